"""Does a temporal model beat a frame-level one on the simulated clips? The demo's model with and without its TCN, over seeds.

Trains both recipes on the same shards and judges them on the same held-out simulated people. Takes about ten minutes
on two cores.

    python -m benchmarks.bench_temporal
"""

import multiprocessing
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.measure import console, machine, save

RECIPES = ("demo", "demo_frames")
SEEDS = (0, 1, 2)
NUM_CLIPS = 320


def main() -> None:
    from cluster.home import home

    shards = _shards()
    jobs = [
        (recipe, seed, shards, home() / "benchmarks" / "temporal" / f"{recipe}-{seed}") for seed in SEEDS for recipe in RECIPES
    ]
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=multiprocessing.get_context("spawn")) as pool:
        accuracies = dict(zip(((job[0], job[1]) for job in jobs), pool.map(_train, jobs), strict=True))
    table = Table(
        title=f"Balanced accuracy on held-out simulated people ({NUM_CLIPS} clips; chance 0.25)",
        caption=f"the order-blind model sees the same frames; {machine()}",
    )
    for heading in ("", *(f"seed {seed}" for seed in SEEDS), "mean"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {recipe: [accuracies[recipe, seed] for seed in SEEDS] for recipe in RECIPES}
    gains = [a - b for a, b in zip(*rows.values(), strict=True)]
    for name, values in (*rows.items(), ("demo minus demo_frames", gains)):
        table.add_row(name, *(f"{value:.3f}" for value in values), f"{np.mean(values):.3f}")
    console.print(table)
    save("temporal", [{"title": "balanced accuracy, simulated test people", "seeds": SEEDS, **rows, "gain": gains}])


def _shards() -> Path:
    from cluster.commands.shards import listing_of
    from cluster.demo import DEMO_PREPROCESS
    from cluster.home import home
    from data_shards.building.build import build_shards

    folder = home() / "shards" / f"demo-{NUM_CLIPS}"
    listing = listing_of("simulated", str(NUM_CLIPS), seed=0, balance="uniform", workers=os.cpu_count() or 1)
    build_shards(listing, folder, preprocess=DEMO_PREPROCESS, num_workers=os.cpu_count() or 1)
    return folder


def _train(job: tuple[str, int, Path, Path]) -> float:
    """In a process of its own, on one core: train the recipe, return balanced accuracy on the test split."""
    import torch

    from training.bundle import read_record
    from training.config import with_settings
    from training.loop import train
    from training.recipes import recipe

    name, seed, shards, folder = job
    torch.set_num_threads(1)
    shutil.rmtree(folder, ignore_errors=True)  # an earlier run of the benchmark is not resumed
    bundle = train(with_settings(recipe(name), [f"seed={seed}"]), shards, folder, run_id=f"{name}-{seed}")
    assert bundle is not None
    record = read_record(bundle)
    assert record.test is not None
    print(f"{name} seed {seed}: {record.test.metrics.balanced_accuracy:.3f}", file=sys.stderr)
    return record.test.metrics.balanced_accuracy


if __name__ == "__main__":
    main()
