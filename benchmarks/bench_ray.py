"""Ray Train against torchrun: the same run with two workers, in turn. Identical losses, and the ratio of their step times.

A step's time is its 8 clips over its samples/s, as the first worker's events.jsonl has it, from the second epoch on. Aim: Ray
Train within 1.025 of torchrun.

    python -m benchmarks.bench_ray [--rounds 3]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from benchmarks.measure import console, machine, save
from benchmarks.tiny_job import tiny_job
from cluster.launch import connect_ray, disconnect_ray, run_on_ray
from training.events import StepDone, parse_event

SETTINGS = ("model.widths=[16,32]", "loop.epochs=24", "loop.checkpoint_every_steps=0")
WARM_UP_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    medians_s: dict[str, list[float]] = {"Ray Train": [], "torchrun": []}
    losses: list[list[float]] = []
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as name:
        scratch = Path(name)
        tiny_job(scratch, "shards")
        connect_ray(None, num_cpus=max(os.cpu_count() or 1, 4))
        try:
            for number in range(rounds):
                job = tiny_job(scratch, f"ray-{number}", settings=SETTINGS)
                run_on_ray(job, lambda event: None)
                _torchrun(scratch, f"torchrun-{number}")
                for launcher, folder in (("Ray Train", job.run_folder), ("torchrun", scratch / "runs" / f"torchrun-{number}")):
                    steps = _steps(folder)
                    losses.append([step.loss for step in steps])
                    times_s = [job.run.loop.global_batch / step.samples_per_s for step in steps[WARM_UP_STEPS:]]
                    medians_s[launcher].append(statistics.median(times_s))
        finally:
            disconnect_ray()
    ratios = [ray / plain for ray, plain in zip(*medians_s.values(), strict=True)]
    table = Table(title="Ray Train against torchrun, 2 workers", caption=f"{rounds} rounds in turn; {machine()}")
    for heading in ("", "median", "min", "max"):
        table.add_column(heading, justify="left" if not heading else "right")
    for launcher, values_s in medians_s.items():
        table.add_row(f"{launcher}, ms a step", *(f"{1e3 * of(values_s):.2f}" for of in (statistics.median, min, max)))
    table.add_row("ratio", *(f"{of(ratios):.3f}" for of in (statistics.median, min, max)), style="bold")
    console.print(table)
    same = all(each == losses[0] for each in losses)
    console.print(f"losses of all {len(losses)} runs are {'identical' if same else 'NOT identical'}, {len(losses[0])} steps each")
    save("ray", [{"step_s": medians_s, "ratios": ratios, "same losses": same}])


def _torchrun(scratch: Path, run_id: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    worker = ["-m", "benchmarks.torchrun_worker", str(scratch), run_id, *SETTINGS]
    subprocess.run([*command, *worker], check=True, env=environment, capture_output=True)


def _steps(run_folder: Path) -> list[StepDone]:
    events = [parse_event(line) for line in (run_folder / "events.jsonl").read_bytes().splitlines()]
    return [event for event in events if isinstance(event, StepDone)]


if __name__ == "__main__":
    main()
