"""Sharding against a bare decord loop over the same files: on one core (aim: at least 0.9), and from one process to two (1.8).

python -m benchmarks.bench_sharding
"""

import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.table import Table

from benchmarks.clips import benchmark_clips, repeated
from benchmarks.measure import compare, console, machine, save
from benchmarks.worker import one_core
from data_shards.building.shard_pool import write_in_processes
from data_shards.building.shard_writer import ShardPlan, write_shard
from data_shards.listing import ListedClip
from data_shards.preprocess import PreprocessConfig
from data_shards.storage.store import open_store

CLIPS_A_SHARD, NUM_SHARDS, SCALING_ROUNDS = 8, 12, 3
_CONFIG = PreprocessConfig()


def main() -> None:
    what, clips = benchmark_clips()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as folder:
        scaling = _scaling(what, clips, folder)
        both = _against_bare(f"Sharding: {what}", clips, folder)
        one_core()  # the bare loop's decoder would use a second core while it copies frames: the aim is per core
        pinned = _against_bare(f"Sharding on one core: {what}", clips, folder)
    save("sharding", [pinned, both, scaling])


def _against_bare(title: str, clips: list[ListedClip], folder: str) -> dict[str, object]:
    store = open_store(folder)
    (plan,) = _plans(clips, 1)

    def sharding() -> int:
        """Decode, scale, JPEG-encode, checksum, write the tar and its index, fsync."""
        return len(write_shard(store, plan, on_clip=lambda clip_id: None).samples)

    return compare(title, ("rapt", sharding), ("bare decord loop", lambda: _bare_decord(list(plan.clips))), unit="clips")


def _scaling(what: str, clips: list[ListedClip], folder: str) -> dict[str, object]:
    """Seconds for the same shards by one process and by two, beside bare loops in as many processes, in turn; all
    include starting the processes. The processor time of two, over that of one, shows what they cost each other."""
    plans = _plans(clips, NUM_SHARDS)

    def sharding(num_workers: int) -> None:
        list(write_in_processes(open_store(folder), plans, num_workers=num_workers, on_done=lambda done: None))

    def bare(num_workers: int) -> None:
        with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_bare_decord, [list(plan.clips) for plan in plans]))

    ways: dict[str, Callable[[int], None]] = {"rapt": sharding, "bare decord loop": bare}
    seconds: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in ways}
    cpu_seconds: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in ways}
    for _ in range(SCALING_ROUNDS):
        for name, work in ways.items():
            for num_workers in (1, 2):
                begun_s, begun_cpu_s = time.perf_counter(), _children_cpu_s()
                work(num_workers)
                seconds[name][num_workers].append(time.perf_counter() - begun_s)
                cpu_seconds[name][num_workers].append(_children_cpu_s() - begun_cpu_s)
    table = Table(
        title=f"{NUM_SHARDS * CLIPS_A_SHARD} clips ({what}) by one process and by two",
        caption=f"{SCALING_ROUNDS} rounds in turn, load {os.getloadavg()[0]:.1f} at the end; {machine()}",
    )
    for heading in ("", "1 process, s", "2 processes, s", "times as fast", "min", "max", "CPU s"):
        table.add_column(heading, justify="right" if heading else "left")
    gains = {name: [a / b for a, b in zip(taken[1], taken[2], strict=True)] for name, taken in seconds.items()}
    for name, taken in seconds.items():
        medians = [f"{statistics.median(values):.1f}" for values in taken.values()]
        cpu = " and ".join(f"{statistics.median(values):.1f}" for values in cpu_seconds[name].values())
        table.add_row(name, *medians, *(f"{f(gains[name]):.2f}" for f in (statistics.median, min, max)), cpu)
    console.print(table)
    return {"title": "from one process to two", "seconds": seconds, "cpu seconds": cpu_seconds, "times as fast": gains}


def _children_cpu_s() -> float:
    """Processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _plans(clips: list[ListedClip], num_shards: int) -> list[ShardPlan]:
    many = repeated(clips, num_shards * CLIPS_A_SHARD)
    chunks = [tuple(many[at : at + CLIPS_A_SHARD]) for at in range(0, len(many), CLIPS_A_SHARD)]
    return [
        ShardPlan(name=f"train-{number:06d}.tar", split="train", clips=chunk, preprocess=_CONFIG)
        for number, chunk in enumerate(chunks)
    ]


def _bare_decord(clips: list[ListedClip]) -> int:
    """Open and take the same 50 frames at full size, nothing else."""
    import decord

    for clip in clips:
        assert clip.video is not None
        reader = decord.VideoReader(str(Path(clip.video.uri) / clip.video.name), num_threads=1)
        picked = [int((i + 0.5) * len(reader) / _CONFIG.num_frames) for i in range(_CONFIG.num_frames)]
        reader.get_batch(picked).asnumpy()
    return len(clips)


if __name__ == "__main__":
    main()
