"""A process that computes one rank's order of an epoch and says how long it took and how much memory. Started by bench_order."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import answer

WORLD_SIZE, RANK, MICROBATCH = 64, 5, 8


def rapt(folder: str) -> dict[str, Any]:
    """Read the manifest; the draws of one rank's whole epoch, microbatch by microbatch; then, of a fresh stream, the middle's."""
    import torch  # noqa: F401  # the loader needs it, the order does not: counted with the imports

    from data_shards.reading.order import DrawStream
    from data_shards.reading.reader import ShardSet, Target

    timed, step = _Timed(), MICROBATCH * WORLD_SIZE
    shards = timed("read the manifest", lambda: ShardSet(folder, splits=("train",), target=Target("engagement")))
    levels_N = shards.view.levels_N
    timed.add("levels of the samples")

    def partition(start: int) -> int:
        stream = DrawStream(levels_N, 0, "shuffled", step)
        positions = range(start + RANK * MICROBATCH, len(levels_N) - MICROBATCH, step)
        return sum(len(stream.draws(position, MICROBATCH)[0]) for position in positions)

    timed("order and partition of an epoch", lambda: partition(0))
    timed("resume in the middle", lambda: partition(len(levels_N) // 2 // step * step))
    return timed.result()


def numpy_permutation(num_samples: int) -> dict[str, Any]:
    """The same order and partition by numpy's Generator: a permutation, and a slice of it, in the state numpy was left in."""
    timed, step = _Timed(), MICROBATCH * WORLD_SIZE

    def partition(start: int) -> int:
        order = np.random.default_rng(0).permutation(num_samples)
        mine = order[start : num_samples // step * step].reshape(-1, WORLD_SIZE, MICROBATCH)[:, RANK]
        return sum(len(batch) for batch in mine)

    timed("order and partition of an epoch", lambda: partition(0))
    timed("resume in the middle", lambda: partition(num_samples // 2 // step * step))
    return timed.result()


def streaming(num_shards: int, clips_a_shard: int, algorithm: str) -> dict[str, Any]:
    """The same by mosaicml-streaming: its partitions over nodes, ranks and workers, and its shuffle, as its dataset does."""
    from benchmarks.torchvision_stub import importable_torchvision

    importable_torchvision()
    from streaming.base.partition import get_partitions
    from streaming.base.shuffle import get_shuffle

    num_samples, sizes = num_shards * clips_a_shard, np.full(num_shards, clips_a_shard)
    timed = _Timed()

    def partition(drop_first: int) -> int:
        ids = get_partitions("relaxed", num_samples, WORLD_SIZE // 8, WORLD_SIZE // 8, 8, 1, MICROBATCH, drop_first)
        shuffled = get_shuffle(algorithm, sizes, WORLD_SIZE // 8, 0, 0, 1 << 18)
        return int(np.where(ids != -1, shuffled[ids], -1)[RANK // 8, RANK % 8].size)

    timed("order and partition of an epoch", lambda: partition(0))
    timed("resume in the middle", lambda: partition(num_samples // 2))
    return timed.result()


class _Timed:
    """Seconds of each part, and the memory over that of the imports."""

    def __init__(self) -> None:
        self._imports_mib = _peak_mib()
        self._parts: dict[str, float] = {}
        self._begun_s = time.perf_counter()

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        result = work()
        self.add(name)
        return result

    def add(self, name: str) -> None:
        self._parts[name] = time.perf_counter() - self._begun_s
        self._begun_s = time.perf_counter()

    def result(self) -> dict[str, Any]:
        return {"parts_s": self._parts, "imports_mib": self._imports_mib, "peak_mib": _peak_mib()}


def _peak_mib() -> float:
    """The largest resident memory of this process so far. (On Linux `getrusage` would count the parent's before the exec.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    answer({"rapt": rapt, "numpy": numpy_permutation, "streaming": streaming})
