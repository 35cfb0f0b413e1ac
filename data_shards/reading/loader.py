"""Shards to batches: a rank's share of the draw stream, decoded ahead by threads.

The JPEG decoder releases the interpreter lock, so threads suffice and nothing is sent between processes.
Letters: B clips, T frames, C = 3 RGB channels, H height, W width.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_shards.errors import ConfigError, ShardError
from data_shards.listing import NO_LEVEL
from data_shards.reading.order import DrawStream
from data_shards.reading.reader import ShardSet
from data_shards.sample import FRAMES, Sample

__all__ = ["Batch", "ClipInputs", "batch_of", "read_in_order", "read_numbered", "training_batches"]

_BATCHES_AHEAD = 3
_DRAWS_AHEAD = 1024  # of the draw stream, whose shards are fetched before they are needed where they lie in a bucket


class ClipInputs(NamedTuple):
    """What a model reads. frames_BTCHW uint8 RGB in [0, 255], T = 0 where the model reads none; draw_keys_B int64, the
    source of what is random in training.

    features: name to float32 (B, ...); where clips differ in their first axis, the shorter are filled up with zeros.
    lengths: name to int64 (B,), how long that axis is in each clip, 0 where a clip lacks the feature; (B, 0) where all do.
    """

    frames_BTCHW: Tensor
    draw_keys_B: Tensor
    features: Mapping[str, Tensor] = MappingProxyType({})
    lengths: Mapping[str, Tensor] = MappingProxyType({})

    def to(self, device: torch.device) -> "ClipInputs":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "ClipInputs":
        """In page-locked memory, from which a copy to a GPU does not hold up the host."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ClipInputs":
        features = {name: change(values) for name, values in self.features.items()}
        lengths = {name: change(values) for name, values in self.lengths.items()}
        return ClipInputs(change(self.frames_BTCHW), change(self.draw_keys_B), features, lengths)


class Batch(NamedTuple):
    """B labelled clips: the model's inputs, labels_B int64, and who they are."""

    inputs: ClipInputs
    labels_B: Tensor
    clip_ids: tuple[str, ...]
    subjects: tuple[str, ...]


def batch_of(
    samples: Sequence[Sample],
    *,
    inputs: Sequence[str],
    levels: Sequence[int] | None = None,
    draw_keys: Sequence[int] | None = None,
) -> Batch:
    """Decode samples into a batch of the inputs named: `frames`, all of one size, or features.

    levels None: the clips have none (serving), labels_B is -1. ShardError where shapes differ beyond their first axis.
    """
    num_clips = len(samples)
    keys = torch.tensor(list(draw_keys) if draw_keys is not None else [0] * num_clips, dtype=torch.int64)
    stacked = {name: _stacked(samples, name) for name in inputs if name != FRAMES}
    features, lengths = ({name: pair[part] for name, pair in stacked.items()} for part in (0, 1))
    return Batch(
        inputs=ClipInputs(_frames(samples, read=FRAMES in inputs), keys, features, lengths),
        labels_B=torch.tensor(list(levels) if levels is not None else [NO_LEVEL] * num_clips, dtype=torch.int64),
        clip_ids=tuple(sample.meta.clip_id for sample in samples),
        subjects=tuple(sample.meta.subject for sample in samples),
    )


def _frames(samples: Sequence[Sample], *, read: bool) -> Tensor:
    """frames_BTCHW, the memory in BTHWC as the decoder writes it."""
    shape = samples[0].frame_shape() if read else (0, 0, 0, 3)
    frames_BTHWC = np.empty((len(samples), *shape), dtype=np.uint8)
    for row, sample in enumerate(samples if read else ()):
        sample.decode_frames(out=frames_BTHWC[row])
    return torch.from_numpy(frames_BTHWC).permute(0, 1, 4, 2, 3)


def _stacked(samples: Sequence[Sample], name: str) -> tuple[Tensor, Tensor]:
    """(B, ...) of a feature, filled up with zeros along its first axis, and each clip's length there."""
    arrays = [sample.features.get(name) for sample in samples]
    lengths_B = np.array([0 if values is None else len(values) for values in arrays], dtype=np.int64)
    rest = {values.shape[1:] for values in arrays if values is not None}
    if len(rest) > 1:
        raise ShardError(
            f"clip {samples[0].meta.clip_id} and others of its batch: '{name}' has rows of {' and '.join(map(str, rest))}; "
            "a model that reads it needs one shape"
        )
    filled = np.zeros((len(arrays), int(lengths_B.max()), *next(iter(rest), ())), dtype=np.float32)
    for row, values in enumerate(arrays):
        if values is not None:
            filled[row, : len(values)] = values
    return torch.from_numpy(filled), torch.from_numpy(lengths_B)


def training_batches(
    shards: ShardSet,
    stream: DrawStream,
    *,
    inputs: Sequence[str],
    optional: Sequence[str] = (),
    microbatch: int,
    rank: int,
    world_size: int,
    start: int,
    num_threads: int,
    pin: bool = False,
) -> Generator[Batch]:
    """This rank's endless microbatches from global position `start` on, each of `microbatch` clips.

    inputs and optional: what is read of a sample; one that lacks an optional input is read without it.
    One global microbatch is world_size x microbatch draws, cut among the ranks by rank, so every world size reads
    the same sequence. stream.global_batch must be a multiple of it. pin: batches lie in page-locked memory, for a GPU.
    """
    step = microbatch * world_size
    if stream.global_batch % step:
        raise ConfigError(
            f"loop.global_batch {stream.global_batch} cannot be shared by {world_size} workers in microbatches of "
            f"{microbatch}; set loop.global_batch to a multiple of {step}, or change --workers or loop.microbatch"
        )

    def jobs() -> Iterator[tuple[list[int], list[int]]]:
        position = next_look = start + rank * microbatch
        while True:
            if shards.is_remote and position >= next_look:  # again and again: the cache takes what it has room for by then
                shards.prefetch(stream.draws(position, _DRAWS_AHEAD)[0])
                next_look = position + _DRAWS_AHEAD // 16
            indices, keys = stream.draws(position, microbatch)
            yield indices.tolist(), keys.tolist()
            position += step

    yield from _prefetched(shards, jobs(), inputs=inputs, optional=optional, num_threads=num_threads, pin=pin)


def read_in_order(
    shards: ShardSet,
    *,
    inputs: Sequence[str],
    optional: Sequence[str] = (),
    batch: int,
    rank: int = 0,
    world_size: int = 1,
    num_threads: int = 1,
    pin: bool = False,
) -> Generator[Batch]:
    """Every sample once, in order, for evaluation: rank r reads samples r, r + world_size, ...; the last batch may be short."""
    mine = range(rank, len(shards), world_size)
    yield from read_numbered(shards, mine, inputs=inputs, optional=optional, batch=batch, num_threads=num_threads, pin=pin)


def read_numbered(
    shards: ShardSet,
    numbers: Sequence[int],
    *,
    inputs: Sequence[str],
    optional: Sequence[str] = (),
    batch: int,
    num_threads: int = 1,
    pin: bool = False,
) -> Generator[Batch]:
    """The samples of these numbers, in their order and with draw key 0; the last batch may be short."""

    def jobs() -> Iterator[tuple[list[int], list[int]]]:
        for at in range(0, len(numbers), batch):
            if shards.is_remote:
                shards.prefetch(np.asarray(numbers[at : at + _DRAWS_AHEAD]))
            yield list(numbers[at : at + batch]), [0] * len(numbers[at : at + batch])

    yield from _prefetched(shards, jobs(), inputs=inputs, optional=optional, num_threads=num_threads, pin=pin)


def _prefetched(
    shards: ShardSet,
    jobs: Iterator[tuple[list[int], list[int]]],
    *,
    inputs: Sequence[str],
    optional: Sequence[str],
    num_threads: int,
    pin: bool,
) -> Generator[Batch]:
    """Batches in the jobs' order, a few of them read and decoded ahead."""
    levels_N = shards.view.levels_N

    def read(indices: list[int], keys: list[int]) -> Batch:
        samples = [shards.read(index, inputs, optional) for index in indices]
        batch = batch_of(samples, inputs=(*inputs, *optional), levels=levels_N[indices].tolist(), draw_keys=keys)
        return batch._replace(inputs=batch.inputs.pinned()) if pin else batch

    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="rapt-loader")
    ahead: deque[Future[Batch]] = deque()
    try:
        for indices, keys in jobs:
            ahead.append(pool.submit(read, indices, keys))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
