"""A simulated million clips in 2,000 shards: read the manifest, one of 64 ranks' draws of an epoch, resume in the middle.

Aim: 2 s and 500 MB together. Peers, for the order and the partition: numpy's permutation, and mosaicml-streaming's own
functions where they can be installed. Every run is a fresh process; importing (torch, numpy, pydantic) is not timed, and its
memory is stated apart.

    python -m benchmarks.bench_order
"""

import hashlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.measure import console, machine, save
from benchmarks.peers import peers_python
from benchmarks.worker import Worker
from data_shards.manifest import SCHEMA_VERSION, SIMULATED_NOTICE, Manifest, ShardEntry, SplitSummary
from data_shards.storage.store import open_store

NUM_SHARDS, CLIPS_A_SHARD, NUM_SUBJECTS = 2_000, 500, 20_000
ROUNDS = 5
_LABELS = ("boredom", "engagement", "confusion", "frustration")
_LEVELS = ("very low", "low", "high", "very high")


def main() -> None:
    peers = peers_python()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as folder:
        open_store(folder).write("manifest.json", _simulated_manifest().to_bytes())
        size_mb = (Path(folder) / "manifest.json").stat().st_size / 1e6
        jobs: dict[str, tuple[str | Path, str, dict[str, Any]]] = {
            "rapt": (sys.executable, "rapt", {"folder": folder}),
            "numpy": (sys.executable, "numpy", {"num_samples": NUM_SHARDS * CLIPS_A_SHARD}),
        }
        if peers:
            for algorithm in ("py1s", "py1e"):
                arguments = {"num_shards": NUM_SHARDS, "clips_a_shard": CLIPS_A_SHARD, "algorithm": algorithm}
                jobs[f"streaming {algorithm}"] = (peers, "streaming", arguments)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
        for _ in range(ROUNDS):
            for name, (python, function, arguments) in jobs.items():
                with Worker("benchmarks.order_worker", python=python) as worker:
                    runs[name].append(worker.ask(function, **arguments))
    _print(runs, size_mb)
    save("order", [{"title": "order of a simulated million clips", "manifest_mb": size_mb, "runs": runs}])


def _simulated_manifest() -> Manifest:
    """A manifest of shards that do not exist: a million clips with four labels, drawn by DAiSEE's engagement's frequencies."""
    rng = np.random.default_rng(0)
    levels_LSN = rng.choice(len(_LEVELS), (len(_LABELS), NUM_SHARDS, CLIPS_A_SHARD), p=(0.01, 0.05, 0.49, 0.45))
    histogram = {name: tuple(np.bincount(levels.ravel()).tolist()) for name, levels in zip(_LABELS, levels_LSN, strict=True)}
    people = tuple(f"person-{number:05d}" for number in range(NUM_SUBJECTS))
    return Manifest(
        schema_version=SCHEMA_VERSION,
        dataset="benchmark",
        simulated=True,
        notice=SIMULATED_NOTICE,
        label_names=dict.fromkeys(_LABELS, _LEVELS),
        preprocess=None,
        features={"openface": (300, 60)},
        extractors={},
        splits={"train": SplitSummary(num_samples=levels_LSN[0].size, subjects=people, label_histogram=histogram)},
        shards=tuple(
            ShardEntry(
                name=f"train-{number:06d}.tar",
                split="train",
                num_samples=CLIPS_A_SHARD,
                size_bytes=CLIPS_A_SHARD * 500_000,
                sha256=(digest := hashlib.sha256(str(number).encode()).hexdigest()),
                index_sha256=digest,
                labels={name: tuple(levels_LSN[i, number].tolist()) for i, name in enumerate(_LABELS)},
            )
            for number in range(NUM_SHARDS)
        ),
        num_rejected=0,
    )


def _print(runs: dict[str, list[dict[str, Any]]], size_mb: float) -> None:
    table = Table(
        title=f"Simulated: a million clips, 2,000 shards, 4 labels, manifest {size_mb:.1f} MB; rank 5 of 64; seconds, medians",
        caption=f"{ROUNDS} fresh processes each, in turn; {machine()}",
    )
    for heading in ("", *runs):
        table.add_column(heading, justify="right" if heading else "left")

    def row(name: str, value: Any, digits: int) -> None:
        medians = [[value(run) for run in answers if value(run) is not None] for answers in runs.values()]
        table.add_row(name, *(f"{statistics.median(values):.{digits}f}" if values else "" for values in medians))

    for part in runs["rapt"][0]["parts_s"]:
        row(part, lambda run, part=part: run["parts_s"].get(part), 3)
    row("together, s", lambda run: sum(run["parts_s"].values()), 3)
    row("peak memory, MiB", lambda run: run["peak_mib"], 0)
    row("of it after importing, MiB", lambda run: run["imports_mib"], 0)
    console.print(table)


if __name__ == "__main__":
    main()
