"""Shards to batches: a rank's share of the draw stream, decoded ahead by threads.

The JPEG decoder and `pread` release the interpreter lock, so threads suffice and nothing is sent between processes.
Letters: B clips, T frames, C = 3 RGB channels, H height, W width.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_shards.errors import ConfigError
from data_shards.order import DrawStream
from data_shards.reader import ShardSet
from data_shards.sample import Sample

__all__ = ["Batch", "ClipInputs", "batch_of", "read_in_order", "training_batches"]

_BATCHES_AHEAD = 3


class ClipInputs(NamedTuple):
    """What a model reads. frames_BTCHW uint8 RGB in [0, 255]; draw_keys_B int64, the source of what is random in training."""

    frames_BTCHW: Tensor
    draw_keys_B: Tensor

    def to(self, device: torch.device) -> "ClipInputs":
        return ClipInputs(*(tensor.to(device, non_blocking=True) for tensor in self))


class Batch(NamedTuple):
    """B labelled clips: the model's inputs, labels_B int64, and who they are."""

    inputs: ClipInputs
    labels_B: Tensor
    clip_ids: tuple[str, ...]
    subjects: tuple[str, ...]


def batch_of(samples: Sequence[Sample], *, label: str | None, draw_keys: Sequence[int] | None = None) -> Batch:
    """Decode samples of one frame size into a batch. label None: the clips have none (serving), labels_B is -1."""
    frames = np.empty((len(samples), *samples[0].frame_shape()), dtype=np.uint8)
    for row, sample in enumerate(samples):
        sample.decode_frames(out=frames[row])
    frames_BTHWC = torch.from_numpy(frames)
    levels = [-1 if label is None else sample.meta.labels[label] for sample in samples]
    keys = draw_keys if draw_keys is not None else [0] * len(samples)
    return Batch(
        inputs=ClipInputs(frames_BTHWC.permute(0, 1, 4, 2, 3), torch.tensor(list(keys), dtype=torch.int64)),
        labels_B=torch.tensor(levels, dtype=torch.int64),
        clip_ids=tuple(sample.meta.clip_id for sample in samples),
        subjects=tuple(sample.meta.subject for sample in samples),
    )


def training_batches(
    shards: ShardSet,
    stream: DrawStream,
    *,
    label: str,
    microbatch: int,
    rank: int,
    world_size: int,
    start: int,
    num_threads: int,
) -> Iterator[Batch]:
    """This rank's endless microbatches from global position `start` on, each of `microbatch` clips.

    One global microbatch is world_size x microbatch draws, cut among the ranks by rank, so every world size reads
    the same sequence. stream.global_batch must be a multiple of it.
    """
    step = microbatch * world_size
    if stream.global_batch % step:
        raise ConfigError(
            f"loop.global_batch {stream.global_batch} cannot be shared by {world_size} workers in microbatches of "
            f"{microbatch}; set loop.global_batch to a multiple of {step}, or change --workers or loop.microbatch"
        )

    def jobs() -> Iterator[tuple[list[int], list[int]]]:
        position = start + rank * microbatch
        while True:
            indices, keys = stream.draws(position, microbatch)
            yield indices.tolist(), keys.tolist()
            position += step

    yield from _prefetched(shards, jobs(), label=label, num_threads=num_threads)


def read_in_order(
    shards: ShardSet, *, label: str, batch: int, rank: int = 0, world_size: int = 1, num_threads: int = 1
) -> Iterator[Batch]:
    """Every sample once, in order, for evaluation: rank r reads samples r, r + world_size, ...; the last batch may be short."""
    mine = range(rank, len(shards), world_size)
    jobs = ((list(mine[at : at + batch]), [0] * len(mine[at : at + batch])) for at in range(0, len(mine), batch))
    yield from _prefetched(shards, jobs, label=label, num_threads=num_threads)


def _prefetched(
    shards: ShardSet, jobs: Iterator[tuple[list[int], list[int]]], *, label: str, num_threads: int
) -> Iterator[Batch]:
    """Batches in the jobs' order, a few of them read and decoded ahead."""

    def read(indices: list[int], keys: list[int]) -> Batch:
        return batch_of([shards.read(index) for index in indices], label=label, draw_keys=keys)

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
