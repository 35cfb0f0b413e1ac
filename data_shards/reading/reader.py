"""Read samples out of shards by their index: no tar library, no process state."""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from data_shards.errors import ConfigError, ShardError
from data_shards.listing import NO_LEVEL
from data_shards.manifest import Manifest, ShardEntry, index_bytes, read_manifest
from data_shards.reading.label_views import LabelView, view_labels
from data_shards.reading.open_shards import OpenShards
from data_shards.sample import FRAMES, Sample, member_of
from data_shards.storage.shard_cache import CacheSettings
from data_shards.storage.store import open_store

__all__ = ["ShardSet", "Target"]

Places = dict[str, npt.NDArray[np.int64]]  # extension to (N, 2): offset and size in bytes; -1 where a sample has no such member


@dataclass(frozen=True)
class Target:
    """What is learned from a set: a label of the manifest, looked at in one of LABEL_VIEWS.

    needs: inputs without which a sample is left out.
    """

    label: str
    view: str = "levels"
    needs: tuple[str, ...] = ()


class ShardSet:
    """The samples of some splits of a set of shards, numbered 0 .. N - 1 in the manifest's order.

    uri is a folder or s3://bucket/prefix; shards in a bucket are fetched whole into the cache that `cache` names.
    target: only the samples that it labels are numbered; `num_dropped` counts the others. Opening reads the manifest
    alone; a shard's index is read when one of its samples is first asked for. Safe to share between threads.
    """

    def __init__(
        self,
        uri: str | Path,
        *,
        splits: tuple[str, ...],
        target: Target | None = None,
        manifest: Manifest | None = None,
        cache_settings: CacheSettings | None = None,
    ) -> None:
        self._store = open_store(uri)
        self.uri = self._store.uri
        self.manifest = manifest or read_manifest(self._store)
        unknown = [split for split in splits if split not in self.manifest.splits]
        if unknown:
            raise ConfigError(
                f"{self.uri}: holds no split '{unknown[0]}' (it has: {', '.join(self.manifest.splits)}); name one of these"
            )
        self.splits = splits
        self.target = target
        self._entries: tuple[ShardEntry, ...] = tuple(e for e in self.manifest.shards if e.split in splits)
        self._starts = [0, *accumulate(entry.num_samples for entry in self._entries)]
        self._view = self._labels_seen() if target else None
        self._places_N = np.arange(self._starts[-1])
        if self._view:
            self._places_N = np.flatnonzero((self._view.levels_N != NO_LEVEL) & self._has_what_is_needed())
        self._open_index = cache(self._read_index)
        self._files = OpenShards(self._store, cache_settings)
        self._indexes_ahead: set[int] = set()
        self._index_readers = ThreadPoolExecutor(2, thread_name_prefix="rapt-index")

    def __len__(self) -> int:
        return len(self._places_N)

    @property
    def is_remote(self) -> bool:
        return self._files.is_remote

    @property
    def num_dropped(self) -> int:
        """Samples of the splits that the target does not label, or that lack what it needs."""
        return self._starts[-1] - len(self)

    def count_with(self, name: str) -> int:
        """How many numbered samples have the input `name`."""
        return int(self._which_have(name)[self._places_N].sum())

    @property
    def view(self) -> LabelView:
        """The target's level names, the level of every numbered sample, and the levels' places on the engagement scale."""
        assert self._view is not None, "a set is opened with a target where its levels are asked for"
        return self._view._replace(levels_N=self._view.levels_N[self._places_N])

    @property
    def shard_starts(self) -> npt.NDArray[np.int64]:
        """The number of each shard's first sample, of those that hold any numbered sample, and at the end N."""
        starts = np.searchsorted(self._places_N, np.asarray(self._starts, dtype=np.int64))
        return np.unique(starts).astype(np.int64)

    def read(self, number: int, inputs: Sequence[str] | None = None, optional: Sequence[str] = ()) -> Sample:
        """Sample `number` with the inputs named (`frames` or a feature; None: all), and the optional ones where it has them.

        ShardError where its bytes are damaged, ConfigError where an input is not there.
        """
        entry = self._entries[self._shard_of(number)]
        return Sample.from_members(
            self.read_members(number, inputs, optional), origin=f"{self.uri}/{entry.name}: sample {int(self._places_N[number])}"
        )

    def read_members(self, number: int, inputs: Sequence[str] | None = None, optional: Sequence[str] = ()) -> dict[str, bytes]:
        """The members of sample `number` as they are stored, extension to bytes: all, or `json` and those of the inputs."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = self._shard_of(number)
        row = int(self._places_N[number]) - self._starts[shard]
        places = {name: (int(at[row, 0]), int(at[row, 1])) for name, at in self._open_index(shard).items() if at[row, 0] >= 0}
        if inputs is not None:
            places = self._wanted(places, (*inputs, *(name for name in optional if member_of(name) in places)), shard)
        return self._copied(shard, places)

    def prefetch(self, numbers: npt.NDArray[np.int64]) -> None:
        """Start to fetch the shards of these samples, the first first, as far as the cache has room; does not wait."""
        shards = np.searchsorted(self._starts, self._places_N[numbers], side="right") - 1
        for shard in dict.fromkeys(shards.tolist()):
            self._files.prefetch(self._entries[shard])
            if shard not in self._indexes_ahead:
                self._indexes_ahead.add(shard)
                self._index_readers.submit(self._open_index, shard)  # an error comes again to who reads a sample

    def check_cache(self, window_shards: int | None) -> None:
        """ConfigError where the cache cannot hold what an epoch reads at once: `window_shards` shards, or with None all."""
        sizes = sorted((entry.size_bytes for entry in self._entries), reverse=True)
        self._files.check_room(sum(sizes if window_shards is None else sizes[: 2 * window_shards]))

    def close(self) -> None:
        """Close the shards' files and end background fetches."""
        self._index_readers.shutdown(wait=False, cancel_futures=True)
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _shard_of(self, number: int) -> int:
        return bisect_right(self._starts, int(self._places_N[number])) - 1

    def _labels_seen(self) -> LabelView:
        assert self.target is not None
        levels = {
            name: np.array([level for entry in self._entries for level in entry.labels[name]], dtype=np.int64)
            for name in self.manifest.label_names
        }
        try:
            return view_labels(self.target.view, self.target.label, self.manifest.label_names, levels)
        except ConfigError as error:
            raise ConfigError(f"{self.uri}: {error}") from None

    def _has_what_is_needed(self) -> npt.NDArray[np.bool_]:
        """Of every sample of the splits, whether it has all that the target needs. ConfigError where none has."""
        assert self.target is not None
        has_N = np.ones(self._starts[-1], dtype=np.bool_)
        for name in self.target.needs:
            if name not in self._inputs_there:
                known = self._inputs_there
                raise ConfigError(
                    f"{self.uri}: no sample has '{name}' (they have: {', '.join(known)}); choose a recipe that reads what is "
                    "there, or add features with `rapt shards extract`"
                )
            has_N &= self._which_have(name)
        if not has_N.any():
            raise ConfigError(f"{self.uri}: no sample of {', '.join(self.splits)} has {' and '.join(self.target.needs)}")
        return has_N

    @property
    def _inputs_there(self) -> tuple[str, ...]:
        return (*([FRAMES] if self.manifest.preprocess else []), *self.manifest.features)

    def _which_have(self, name: str) -> npt.NDArray[np.bool_]:
        """Of every sample of the splits, whether it has the input `name`."""
        has_N = np.full(self._starts[-1], name in self._inputs_there)
        for start, entry in zip(self._starts, self._entries, strict=False):
            has_N[[start + place for place in entry.lacks.get(name, ())]] = False
        return has_N

    def _wanted(self, places: Mapping[str, tuple[int, int]], inputs: Sequence[str], shard: int) -> dict[str, tuple[int, int]]:
        missing = [name for name in inputs if member_of(name) not in places]
        if missing:
            has = [name for name in (FRAMES, *self.manifest.features) if member_of(name) in places]
            raise ConfigError(
                f"{self.uri}/{self._entries[shard].name}: a sample has no '{missing[0]}' (it has: {', '.join(has)}); "
                "choose a recipe that reads what is there"
            )
        return {extension: places[extension] for extension in ("json", *map(member_of, inputs))}

    def _copied(self, shard: int, places: Mapping[str, tuple[int, int]]) -> dict[str, bytes]:
        file = self._files.open(self._entries[shard])
        members = {extension: file[offset : offset + size] for extension, (offset, size) in places.items()}
        if any(len(members[extension]) != size for extension, (_, size) in places.items()):
            raise ShardError(f"{self.uri}/{self._entries[shard].name}: its index points past its end; build it again")
        return members

    def _read_index(self, shard: int) -> Places:
        """Where the members of a shard's samples lie. As arrays: an index's records take twenty times the room."""
        # plain JSON: its sha256 is the manifest's, and to validate every record again takes ten times as long
        samples = json.loads(index_bytes(self._store, self._entries[shard]))["samples"]
        extensions = {extension for sample in samples for extension in sample["members"]}
        return {
            extension: np.array([sample["members"].get(extension, (-1, -1)) for sample in samples], dtype=np.int64)
            for extension in extensions
        }
