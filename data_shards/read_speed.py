"""How fast a set of shards is read on this machine: as bytes, as decoded batches, and until the first batch is there."""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from data_shards.loader import training_batches
from data_shards.order import DrawStream
from data_shards.reader import ShardSet, Target
from data_shards.sample import FRAMES
from data_shards.schema import Stored
from data_shards.shard_cache import CacheSettings

__all__ = ["ReadSpeed", "measure_read_speed"]


class ReadSpeed(Stored):
    """Samples a second of one split. first_batch_s includes opening the set, and fetching where it lies in a bucket."""

    uri: str
    split: str
    num_samples: int
    num_threads: int
    open_s: float
    first_batch_s: float
    stored_samples_per_s: float
    stored_bytes_per_s: float
    decoded_samples_per_s: float


def measure_read_speed(
    uri: str | Path,
    *,
    split: str,
    num_threads: int,
    seconds: float,
    cache: CacheSettings | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ReadSpeed:
    """Read samples of `split` in training's shuffled order for about `seconds` each as they are stored and decoded."""
    begun_s = time.perf_counter()
    shards = ShardSet(uri, splits=(split,), cache_settings=cache)
    open_s = time.perf_counter() - begun_s
    label = next(iter(shards.manifest.label_names))
    shards = ShardSet(uri, splits=(split,), target=Target(label), manifest=shards.manifest, cache_settings=cache)
    stream = DrawStream(shards.view.levels_N, 0, "shuffled", 8)
    inputs = ((FRAMES,) if shards.manifest.preprocess else ()) + tuple(
        name for name, shape in shards.manifest.features.items() if all(shape)
    )
    batches = training_batches(
        shards, stream, inputs=inputs, microbatch=8, rank=0, world_size=1, start=0, num_threads=num_threads
    )
    next(batches)
    first_batch_s = time.perf_counter() - begun_s
    progress(1, 3)

    read, size, begun_s = 0, 0, time.perf_counter()
    while time.perf_counter() - begun_s < seconds:
        for number in stream.draws(read, 64)[0].tolist():
            size += sum(map(len, shards.read_members(number).values()))
        read += 64
    stored_s = time.perf_counter() - begun_s
    progress(2, 3)

    decoded, begun_s = 0, time.perf_counter()
    while time.perf_counter() - begun_s < seconds:
        decoded += sum(len(batch.clip_ids) for batch in islice(batches, 2))
    decoded_s = time.perf_counter() - begun_s
    batches.close()
    shards.close()
    progress(3, 3)
    return ReadSpeed(
        uri=str(uri),
        split=split,
        num_samples=len(shards),
        num_threads=num_threads,
        open_s=open_s,
        first_batch_s=first_batch_s,
        stored_samples_per_s=read / stored_s,
        stored_bytes_per_s=size / stored_s,
        decoded_samples_per_s=decoded / decoded_s,
    )
