"""The order of samples: a pure function of (labels, seed, position). No process state, so any reader can start anywhere.

Training reads one endless stream of draws. Epoch e is the draws [e * L, (e + 1) * L) with L the epoch's length, and
batches follow each other without regard to where an epoch ends: nothing is lost, nothing is read twice but what a
sampler draws on purpose, and every rank gets equally many batches. Position is one number: draws consumed globally.

Samplers:
    shuffled        each epoch is a permutation of the set; L = N
    class_complete  every batch holds every class (Abedi and Khan 2021, section III): in each batch one seat a class,
                    filled from that class's own endless cycle of permutations, and the other seats from the whole set's.
                    [choice] the paper does not say how many seats; L = N rounded up to whole batches.
    windowed        the shards in a shuffled order, `window_shards` of them mixed at a time; L = N. For sets in a bucket that
                    are larger than the local cache: each shard is fetched once an epoch
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_shards.errors import ConfigError
from data_shards.hashing import mix64, seed_of

__all__ = ["DrawStream", "Sampler", "permutation"]

Sampler = Literal["shuffled", "class_complete", "windowed"]

_STREAM_ORDER, _STREAM_CLASS, _STREAM_SEAT, _STREAM_KEY, _STREAM_SHARD, _STREAM_FIRST = range(
    1, 7
)  # words that keep the hash streams apart
_ALL_CLASSES = -1


def permutation(num_items: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation of range(num_items), a pure function of (num_items, seed)."""
    # mix64 is one-to-one, so no two words tie and the sort need not be stable: numpy's vectorised one takes a sixth of the time
    return np.argsort(mix64(seed, np.arange(num_items, dtype=np.int64))).astype(np.int64)


@dataclass(frozen=True)
class DrawStream:
    """The endless stream of draws from a set of samples with `labels_N` levels.

    global_batch: samples an optimiser step; class_complete fills its seats batch by batch. shard_starts: the number of
    each shard's first sample, and N at the end; needed by windowed.
    """

    labels_N: npt.NDArray[np.int64]
    seed: int
    sampler: Sampler
    global_batch: int
    shard_starts: npt.NDArray[np.int64] | None = None
    window_shards: int = 64
    _epochs: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.labels_N) == 0:
            raise ConfigError("the training split holds no sample; build shards with clips in it, or name another split")
        assert self.sampler != "windowed" or self.shard_starts is not None, "windowed mixes shards, it has to know them"
        num_classes = len(np.unique(self.labels_N))
        if self.sampler == "class_complete" and self.global_batch < num_classes:
            raise ConfigError(
                f"loop.global_batch is {self.global_batch}, too small to hold every one of {num_classes} classes; "
                f"set it to {num_classes} or more, or set data.sampler=shuffled"
            )

    @property
    def epoch_length(self) -> int:
        """L: draws an epoch."""
        if self.sampler != "class_complete":
            return len(self.labels_N)
        return -(-len(self.labels_N) // self.global_batch) * self.global_batch

    def draws(self, start: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(sample indices, draw keys), both int64 (count,), of the positions start .. start + count.

        A draw key is a 63-bit number of its own for each position: what is random for one draw (dropout,
        augmentation) follows from it, whichever rank or device computes it.
        """
        positions = np.arange(start, start + count, dtype=np.int64)
        epochs, offsets = np.divmod(positions, self.epoch_length)
        indices = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._epoch(int(epoch))[offsets[here]]
        keys = mix64(seed_of(self.seed, _STREAM_KEY), positions) >> np.uint64(1)
        return indices, keys.astype(np.int64)

    def equal_shares(self, count: int) -> npt.NDArray[np.int64]:
        """Sample indices int64 (count,), equally many of every class and shuffled, for what a loss holds before the first draw.

        A class with fewer samples than its share comes round again. Drawn apart from the stream, and independent of batches
        and workers. With `windowed` the samples come in that sampler's order, so that a shard is still fetched once.
        """
        seed = seed_of(self.seed, _STREAM_FIRST) >> 1  # a run's seed has 63 bits
        by_shard = self.sampler == "windowed"
        order_N = replace(self, seed=seed, sampler="windowed" if by_shard else "shuffled", _epochs={})._epoch(0)
        levels_N = self.labels_N[order_N]
        classes = np.unique(levels_N)
        shares = [len(part) for part in np.array_split(np.arange(count), len(classes))]
        places = np.concatenate([np.resize(np.flatnonzero(levels_N == c), n) for c, n in zip(classes, shares, strict=True)])
        places = np.sort(places) if by_shard else places[permutation(count, seed)]
        picked: npt.NDArray[np.int64] = order_N[places]
        return picked

    def _epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        """Sample indices of one epoch; the last two epochs asked for are kept."""
        if epoch not in self._epochs:
            for old in [e for e in self._epochs if e < epoch - 1]:
                del self._epochs[old]
            make = {"shuffled": self._shuffled, "class_complete": self._class_complete, "windowed": self._windowed}
            self._epochs[epoch] = make[self.sampler](epoch)
        return self._epochs[epoch]

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        return permutation(len(self.labels_N), seed_of(self.seed, _STREAM_ORDER, epoch))

    def _windowed(self, epoch: int) -> npt.NDArray[np.int64]:
        assert self.shard_starts is not None
        sizes_S = np.diff(self.shard_starts)
        shards_S = permutation(len(sizes_S), seed_of(self.seed, _STREAM_SHARD, epoch))
        # the window of each sample's shard, then a random word: sorting by both mixes within windows alone
        window_of_shard_S = np.empty(len(sizes_S), dtype=np.int64)
        window_of_shard_S[shards_S] = np.arange(len(sizes_S)) // self.window_shards
        window_N = np.repeat(window_of_shard_S, sizes_S)
        words_N = mix64(seed_of(self.seed, _STREAM_ORDER, epoch), np.arange(len(self.labels_N)))
        return np.lexsort((words_N, window_N)).astype(np.int64)

    def _class_complete(self, epoch: int) -> npt.NDArray[np.int64]:
        classes = np.unique(self.labels_N)
        num_batches = self.epoch_length // self.global_batch
        seats = self.global_batch - len(classes)
        batches = np.empty((num_batches, self.global_batch), dtype=np.int64)
        for column, level in enumerate(classes):
            members = np.flatnonzero(self.labels_N == level)
            batches[:, column] = members[self._cycle(len(members), epoch * num_batches, num_batches, int(level))]
        others = self._cycle(len(self.labels_N), epoch * num_batches * seats, num_batches * seats, _ALL_CLASSES)
        batches[:, len(classes) :] = others.reshape(num_batches, seats)
        within = mix64(seed_of(self.seed, _STREAM_SEAT, epoch), np.arange(batches.size)).reshape(batches.shape)
        return np.take_along_axis(batches, np.argsort(within, axis=1, kind="stable"), axis=1).reshape(-1)

    def _cycle(self, num_members: int, start: int, count: int, level: int) -> npt.NDArray[np.int64]:
        """Positions start .. start + count of an endless row of permutations of one class's members, or of all samples."""
        first, last = start // num_members, -(-(start + count) // num_members)
        seeds_R = mix64(seed_of(self.seed, _STREAM_CLASS, level), np.arange(first, last, dtype=np.int64))
        words_RM = mix64(seeds_R[:, None], np.arange(num_members, dtype=np.int64))  # a round is a row: `permutation` of its seed
        cycle = np.argsort(words_RM, axis=1, kind="stable").reshape(-1)
        return cycle[start - first * num_members :][:count].astype(np.int64)
