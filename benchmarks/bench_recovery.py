"""From a worker's death (kill -9) to the next step, and its parts. Two workers on this machine, a very small model.

seen: the controller tells of the death. started: new processes have imported torch, joined their process group and the MLflow
run. opened: data and model are there and the checkpoint is loaded. first step: that step's own time, new to the process.

    python -m benchmarks.bench_recovery [--kills 5]
"""

import argparse
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

from rich.table import Table

from benchmarks.measure import console, machine, save
from benchmarks.tiny_job import tiny_job
from cluster.launch import connect_ray, disconnect_ray, run_on_ray
from tests.cluster.ray_faults import train_workers
from training.events import Event, RunStarted, StepDone, WorkersChanged

PARTS = ("seen", "started", "opened", "first step")


class Recoveries:
    """Kills a worker some steps after each start, and notes when each part of the recovery was over."""

    def __init__(self, kills: int) -> None:
        self.left, self.marks_s, self.taken_s = kills, [], []  # type: int, list[float], list[list[float]]
        self._steps = 0

    def __call__(self, event: Event) -> None:
        now_s = time.perf_counter()
        awaited = (None, WorkersChanged, WorkersChanged, RunStarted, None)[len(self.marks_s)]
        if awaited and isinstance(event, awaited):
            self.marks_s.append(now_s)
        elif isinstance(event, StepDone) and len(self.marks_s) == 4:
            self.marks_s.append(now_s)
            self.taken_s.append([after - before for before, after in zip(self.marks_s, self.marks_s[1:], strict=False)])
            self.marks_s, self._steps = [], 0
        elif isinstance(event, StepDone) and not self.marks_s:
            self._steps += 1
            if self._steps == 3 and self.left:
                self.left -= 1
                self.marks_s = [now_s]
                train_workers()[self.left % 2].send_signal(signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    kills = parser.parse_args().kills
    recoveries = Recoveries(kills)
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch:
        connect_ray(None, num_cpus=max(os.cpu_count() or 1, 4))
        try:
            run_on_ray(tiny_job(Path(scratch), "killed", max_failures=kills), recoveries)
        finally:
            disconnect_ray()
    table = Table(title=f"from a worker's death to the next step, {len(recoveries.taken_s)} kills", caption=machine())
    for heading in ("part", "median, s", "min", "max"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    columns = {name: [taken[place] for taken in recoveries.taken_s] for place, name in enumerate(PARTS)}
    columns["all"] = [sum(taken) for taken in recoveries.taken_s]
    for name, values_s in columns.items():
        table.add_row(name, *(f"{of(values_s):.2f}" for of in (statistics.median, min, max)))
    console.print(table)
    save("recovery", [{"part": name, "seconds": values_s} for name, values_s in columns.items()])


if __name__ == "__main__":
    main()
