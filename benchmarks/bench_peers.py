"""Rapt beside webdataset, litdata and mosaicml-streaming: the same samples, each in its own format, read in one table.

Samples are 50 JPEGs of 224x224 as one stream, and a JSON record. Each library runs in a process of its own on one core, with
no worker processes (Rapt decodes in its one thread), in its own shuffled order, in batches of 8; the files are in the page
cache. First batch and resume are timed from opening the set, imports done: Rapt starts at the position, litdata and streaming
load the state their own loader gave there, webdataset reads again and skips.

    python -m benchmarks.bench_peers
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.clips import benchmark_clips, repeated
from benchmarks.measure import console, machine, save
from benchmarks.peers import peers_python
from benchmarks.worker import Worker
from data_shards.building.build import build_shards
from data_shards.listing import ENGAGEMENT_LEVELS, Listing
from data_shards.preprocess import PreprocessConfig

NUM_SAMPLES, CLIPS_A_SHARD, ROUNDS = 256, 32, 3
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "samples/s as bytes": ("rate", {"decode": False}),
    "samples/s decoded": ("rate", {"decode": True}),
    "first batch, ms": ("first_batch", {"decode": True, "start": 0}),
    "resume in the middle, ms": ("first_batch", {"decode": True, "start": NUM_SAMPLES // 2}),
}


def main() -> None:
    what, clips = benchmark_clips()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch:
        shards = Path(scratch) / "rapt"
        listing = Listing(
            dataset="benchmark", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=tuple(repeated(clips, NUM_SAMPLES))
        )
        build_shards(listing, shards, preprocess=PreprocessConfig(), clips_per_shard=CLIPS_A_SHARD, num_workers=2)
        answers = read_by_all(shards, Path(scratch), num_samples=NUM_SAMPLES, asked=ASKED, rounds=ROUNDS)
    print_all(f"{NUM_SAMPLES} samples in shards of {CLIPS_A_SHARD}: {what}", answers, rounds=ROUNDS)
    save("peers", [{"title": "the same samples in each library's format", "answers": answers}])


def read_by_all(
    shards: Path, scratch: Path, *, num_samples: int, asked: dict[str, tuple[str, dict[str, Any]]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Library to what was asked to its answers: the set is written in each one's format, then all are asked in turn."""
    peers = peers_python()
    pythons: dict[str, str | Path] = {
        "rapt": sys.executable,
        "webdataset": sys.executable,
        **({"litdata": peers, "streaming": peers} if peers else {}),
    }
    workers = {name: Worker("benchmarks.reading_worker", python=python, on_one_core=True) for name, python in pythons.items()}
    answers: dict[str, dict[str, list[float]]] = {name: {what: [] for what in asked} for name in workers}
    folders = {name: shards if name in ("rapt", "webdataset") else scratch / name for name in workers}
    try:
        for name, worker in workers.items():
            worker.ask("write", library=name, folder=str(shards), out=str(folders[name]))
        for number in range(rounds + 1):
            for what, (function, arguments) in asked.items():
                for name, worker in workers.items():
                    answered = worker.ask(function, library=name, folder=str(folders[name]), num_samples=num_samples, **arguments)
                    if number:  # the first is a warm-up: imports, and files into the page cache
                        answers[name][what].append(answered)
    finally:
        for worker in workers.values():
            worker.__exit__()
    return answers


def print_all(title: str, answers: dict[str, dict[str, list[float]]], *, rounds: int) -> None:
    """Medians, and Rapt's ratio to each peer: of rates, or of the peer's time to Rapt's."""
    table = Table(title=title, caption=f"medians of {rounds} rounds in turn; ratio: how many times as fast Rapt is; {machine()}")
    asked = list(answers["rapt"])
    for heading in ("", *asked):
        table.add_column(heading, justify="right" if heading else "left")
    for name, given in answers.items():
        table.add_row(name, *(f"{statistics.median(given[what]) * (1e3 if _is_time(what) else 1):,.0f}" for what in asked))
    for name, given in answers.items():
        if name != "rapt":
            ratios = [_ratio(answers["rapt"][what], given[what], is_time=_is_time(what)) for what in asked]
            table.add_row(f"rapt / {name}", *(f"{ratio:.2f}" for ratio in ratios), style="bold")
    console.print(table)


def _is_time(what: str) -> bool:
    return what.endswith("ms")


def _ratio(ours: list[float], theirs: list[float], *, is_time: bool) -> float:
    return statistics.median(b / a if is_time else a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
