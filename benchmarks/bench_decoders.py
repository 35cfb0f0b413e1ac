"""Which decoder should shards be made with? decord 0.6.0 against decord2 and PyAV, on the same clips: time, frames, memory.

Each decoder runs in a process of its own, on one thread; rounds in turn. decord2 is skipped where it cannot be installed.

    python -m benchmarks.bench_decoders
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.clips import decoder_clips
from benchmarks.decoder_worker import picked_frames
from benchmarks.measure import console, machine, save
from benchmarks.peers import peers_python
from benchmarks.worker import Worker

ROUNDS = 5
NUM_OPENS = 300
_LIKE = 0.5  # mean absolute difference of a frame, of 255: neighbours of a still scene are alike


def main() -> None:
    peers = peers_python()
    pythons: dict[str, str | Path] = {"decord": sys.executable, **({"decord2": peers} if peers else {}), "pyav": sys.executable}
    timed, opened = [], []
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch:
        for what, path, size in decoder_clips():
            workers = {name: Worker("benchmarks.decoder_worker", python=python) for name, python in pythons.items()}
            try:
                timed.append({"clip": what, **_times(workers, path, size, Path(scratch))})
                opened.append({"clip": what, **_memory(workers, path, size)})
            finally:
                for worker in workers.values():
                    worker.__exit__()
    _print_times(timed, list(pythons))
    _print_memory(opened, list(pythons))
    save("decoders", [{"title": "50 frames of a clip", "clips": timed}, {"title": f"{NUM_OPENS} opens", "clips": opened}])


def _times(workers: dict[str, Worker], path: Path, size: tuple[int, int], scratch: Path) -> dict[str, Any]:
    """Decoder to its seconds a clip and how many of its frames are of another moment, or that it failed and why."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for _ in range(ROUNDS + 1):
        for name, worker in workers.items():
            rounds[name].append(worker.ask("read", decoder=name, path=str(path), width=size[0], height=size[1]))
    results: dict[str, Any] = {}
    for name, answers in rounds.items():
        failed = [answer["failed"] for answer in answers if "failed" in answer]
        if failed:
            results[name] = {"failed": failed[0]}
            continue
        results[name] = {
            "clock_s": [answer["clock_s"] for answer in answers[1:]],
            "cpu_s": [answer["cpu_s"] for answer in answers[1:]],
            "wrong": _wrong_frames(workers, name, path, scratch),
        }
    return results


def _wrong_frames(workers: dict[str, Worker], decoder: str, path: Path, scratch: Path) -> int:
    """How many of 50 frames look more like another frame of the clip than like the one asked for."""
    small = {"path": str(path), "width": 128, "height": 96}
    workers["pyav"].ask("every_frame", **small, save_to=str(scratch / "all.npy"))
    workers[decoder].ask("read", decoder=decoder, **small, save_to=str(scratch / "read.npy"))
    all_frames, read = (np.load(scratch / name).astype(np.float32) for name in ("all.npy", "read.npy"))
    asked = picked_frames(len(all_frames))
    apart = np.stack([np.abs(all_frames - frame).mean(axis=(1, 2, 3)) for frame in read])
    return int((apart[np.arange(len(asked)), asked] > apart.min(axis=1) + _LIKE).sum())


def _memory(workers: dict[str, Worker], path: Path, size: tuple[int, int]) -> dict[str, list[float]]:
    """Decoder to its resident memory in MiB after a tenth, half and all of the opens; none where it cannot read the clip."""
    parts = (NUM_OPENS // 10, NUM_OPENS // 2 - NUM_OPENS // 10, NUM_OPENS - NUM_OPENS // 2)
    rss: dict[str, list[float]] = {}
    for name, worker in workers.items():
        asked = {"decoder": name, "path": str(path), "width": size[0], "height": size[1]}
        if "failed" in worker.ask("read", **asked):
            rss[name] = []
            continue
        rss[name] = [(worker.ask("open_often", times=times, **asked), worker.rss_mib())[1] for times in parts]
    return rss


def _print_times(timed: list[dict[str, Any]], names: list[str]) -> None:
    table = Table(
        title="Milliseconds for 50 frames of a clip, median (of them processor time); frames of another moment",
        caption=f"{ROUNDS} rounds in turn, one decoding thread, frames scaled to 224 on the shorter side; {machine()}",
    )
    for heading in ("", *names, *(f"{name} / decord" for name in names[1:])):
        table.add_column(heading, justify="right" if heading else "left")
    for row in timed:
        cells = [_cell(row[name]) for name in names]
        table.add_row(row["clip"], *cells, *(_ratio(row[name], row["decord"]) for name in names[1:]))
    console.print(table)


def _cell(result: dict[str, Any]) -> str:
    if "failed" in result:
        return "fails"
    clock_ms, cpu_ms = (statistics.median(result[key]) * 1e3 for key in ("clock_s", "cpu_s"))
    wrong = f", {result['wrong']} wrong" if result["wrong"] else ""
    return f"{clock_ms:.0f} ({cpu_ms:.0f}){wrong}"


def _ratio(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """The median over rounds of the ratio of processor times."""
    if "failed" in theirs or "failed" in ours:
        return ""
    return f"{statistics.median(a / b for a, b in zip(theirs['cpu_s'], ours['cpu_s'], strict=True)):.2f}"


def _print_memory(opened: list[dict[str, Any]], names: list[str]) -> None:
    table = Table(
        title=f"Resident memory, MiB, after {NUM_OPENS // 10}, {NUM_OPENS // 2} and {NUM_OPENS} opens, two frames each",
        caption=machine(),
    )
    for heading in ("", *names):
        table.add_column(heading, justify="right" if heading else "left")
    for row in opened:
        table.add_row(row["clip"], *(" / ".join(f"{mib:.0f}" for mib in row[name]) or "fails" for name in names))
    console.print(table)


if __name__ == "__main__":
    main()
