"""How fast a set of shards is read on this machine: as bytes, as decoded batches, and until the first batch is there."""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from pathlib import Path

from data_shards.errors import ConfigError
from data_shards.manifest import Manifest, read_manifest
from data_shards.reading.loader import Batch, training_batches
from data_shards.reading.order import DrawStream
from data_shards.reading.reader import ShardSet, Target
from data_shards.sample import FRAMES
from data_shards.schema import Stored
from data_shards.storage.shard_cache import CacheSettings

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
    """Read samples of `split` in training's shuffled order for about `seconds` each as they are stored and decoded.

    ConfigError where the set holds nothing of which batches can be made.
    """
    begun_s = time.perf_counter()
    manifest = read_manifest(uri)
    open_s = time.perf_counter() - begun_s
    inputs, features = _inputs(uri, manifest)
    target = Target(next(iter(manifest.label_names)))
    with closing(ShardSet(uri, splits=(split,), target=target, manifest=manifest, cache_settings=cache)) as shards:
        stream = DrawStream(shards.view.levels_N, 0, "shuffled", 8)

        def batches() -> Generator[Batch]:
            return training_batches(
                shards,
                stream,
                inputs=inputs,
                optional=features,
                microbatch=8,
                rank=0,
                world_size=1,
                start=0,
                num_threads=num_threads,
            )

        with closing(batches()) as first:
            next(first)
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
        with closing(batches()) as fresh:  # of which nothing was decoded ahead before the clock started
            while time.perf_counter() - begun_s < seconds:
                decoded += sum(len(batch.clip_ids) for batch in islice(fresh, 2))
            decoded_s = time.perf_counter() - begun_s
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


def _inputs(uri: str | Path, manifest: Manifest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(frames, features): all that a batch can hold."""
    features = tuple(name for name, shape in manifest.features.items() if all(shape[1:]) and shape != (0,))
    frames = (FRAMES,) if manifest.preprocess else ()
    if not frames + features:
        raise ConfigError(
            f"{uri}: has no frames, and the rows of its features ({', '.join(manifest.features)}) differ from clip to clip: "
            "no batch can be made; build it with features of one width"
        )
    return frames, features
