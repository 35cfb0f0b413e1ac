"""Kill a worker 20 times at random steps, and count the runs that end as an undisturbed one: losses, positions and weights.

Runs of 40 steps with two workers on this machine, each killed several times; seeds are printed.

    python -m benchmarks.fault_campaign [--runs 4] [--kills 5] [--seed 1]
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.measure import console, machine, save
from benchmarks.tiny_job import tiny_job
from cluster.launch import connect_ray, disconnect_ray, run_on_ray
from tests.cluster.ray_faults import Faults, random_kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("runs", 4), ("kills", 5), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch:
        connect_ray(None, num_cpus=max(os.cpu_count() or 1, 4))
        try:
            rows = _campaign(Path(scratch), runs=asked.runs, kills=asked.kills, seed=asked.seed)
        finally:
            disconnect_ray()
    table = Table(title="kill -9 of a worker at random steps", caption=machine())
    for heading in ("seed", "kills", "attempts went on from step", "same losses and positions", "same weights"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(str, row.values()))
    total = sum(row["kills"] for row in rows)
    same = sum(row["same losses and positions"] and row["same weights"] for row in rows)
    table.add_row("all", str(total), "", f"{same} of {len(rows)} runs", "", style="bold")
    console.print(table)
    save("fault_campaign", rows)


def _campaign(scratch: Path, *, runs: int, kills: int, seed: int) -> list[dict[str, Any]]:
    undisturbed = Faults()
    job = tiny_job(scratch, "undisturbed")
    run_on_ray(job, undisturbed)
    weights = _weights(job.run_folder)
    rows: list[dict[str, Any]] = []
    for number in range(seed, seed + runs):
        faults, job = random_kills(number, kills=kills, last_step=36), tiny_job(scratch, f"killed-{number}", max_failures=kills)
        run_on_ray(job, faults)
        rows.append(
            {
                "seed": number,
                "kills": faults.done,
                "starts": faults.starts,
                "same losses and positions": faults.steps == undisturbed.steps,
                "same weights": _weights(job.run_folder) == weights,
            }
        )
        console.print(rows[-1])
    return rows


def _weights(run_folder: Path) -> bytes:
    return (run_folder / "bundle" / "model.safetensors").read_bytes()


if __name__ == "__main__":
    main()
