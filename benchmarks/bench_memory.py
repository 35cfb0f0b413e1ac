"""Does a long build's memory stay flat? Resident memory of the worker processes over 2,000 clips.

python -m benchmarks.bench_memory
"""

import os
import tempfile
import time

import psutil
from rich.table import Table

from benchmarks.clips import benchmark_clips, repeated
from benchmarks.measure import console, machine, save
from data_shards.building.shard_pool import write_in_processes
from data_shards.building.shard_writer import ShardPlan
from data_shards.preprocess import PreprocessConfig
from data_shards.storage.store import open_store

NUM_CLIPS, CLIPS_A_SHARD = 2_000, 20
SHOWN = (200, 1_000, 2_000)


def main() -> None:
    what, clips = benchmark_clips()
    many = repeated(clips, NUM_CLIPS)
    plans = [
        ShardPlan(
            name=f"train-{at // CLIPS_A_SHARD:06d}.tar",
            split="train",
            clips=tuple(many[at : at + CLIPS_A_SHARD]),
            preprocess=PreprocessConfig(),
        )
        for at in range(0, NUM_CLIPS, CLIPS_A_SHARD)
    ]
    seen: list[tuple[int, float]] = []  # (clips done, the largest worker's resident memory in MiB)
    begun_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as folder:
        store = open_store(folder)
        written = write_in_processes(
            store,
            plans,
            num_workers=min(2, os.cpu_count() or 1),
            on_done=lambda done: seen.append((done, _largest_worker_mib())),
        )
        for index in written:
            store.delete(index.shard)
    _print(what, seen, time.perf_counter() - begun_s)


def _largest_worker_mib() -> float:
    sizes = [0.0]
    for child in psutil.Process().children(recursive=True):
        try:
            sizes.append(child.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            continue
    return max(sizes)


def _print(what: str, seen: list[tuple[int, float]], took_s: float) -> None:
    """A worker's memory swings with the shard it holds, so each figure is the largest over the fifty clips before."""
    peaks = {done: max(mib for at, mib in seen if done - 50 <= at <= done) for done in SHOWN}
    table = Table(
        title=f"Resident memory of the largest worker, MiB; {NUM_CLIPS} clips: {what}",
        caption=f"shards of {CLIPS_A_SHARD} clips, {took_s:.0f} s; {machine()}",
    )
    for done in SHOWN:
        table.add_column(f"at {done:,} clips", justify="right")
    table.add_column("last / first", justify="right", style="bold")
    table.add_row(*(f"{mib:.0f}" for mib in peaks.values()), f"{peaks[SHOWN[-1]] / peaks[SHOWN[0]]:.2f}")
    console.print(table)
    save("memory", [{"title": "worker memory over a build", "peaks_mib": peaks, "seen": seen, "took_s": took_s}])


if __name__ == "__main__":
    main()
