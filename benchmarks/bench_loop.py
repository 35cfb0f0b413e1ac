"""What does the training loop cost beside a bare one, how long does it wait for data, and what does a second worker bring?

Aims: a step at most 1.03 times that of a bare loop over the same batches, model, loss and optimiser; under 2 % of it waiting for
data. Rapt's side is `rapt train --local` as a person runs it, with its event log and MLflow; step times are the medians of
the intervals between steps once the run has settled, each in a process of its own. The sets are simulated clips and random
features.

    python -m benchmarks.bench_loop
"""

import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from rich.table import Table

from benchmarks.measure import console, machine, save
from benchmarks.training_sets import feature_shards, frame_shards
from cluster.waiting import StopRequest
from data_shards.errors import Stopped
from training.augment import augment
from training.config import RunConfig, with_settings
from training.engine import make_optimiser
from training.events import Event, StepDone
from training.losses import LOSSES
from training.models import MODELS
from training.recipes import recipe
from training.run_data import RunData
from training.world import World

ROUNDS, WARM_UP = 3, 5
SETTLE_S = 20.0  # of a run's start, in which a thread imports mlflow and makes its database
Case = tuple[str, RunConfig, Callable[[], Path], int]
CASES: tuple[Case, ...] = (
    ("demo", recipe("demo"), lambda: frame_shards(160, num_frames=32, size_px=64), 25),
    (
        "cmose_visual, cross entropy",
        with_settings(recipe("cmose_visual"), ["loss.name=cross_entropy"]),
        lambda: feature_shards(1500),
        20,
    ),
)
WAITING: tuple[Case, ...] = (
    ("demo", recipe("demo"), lambda: frame_shards(160, num_frames=32, size_px=64), 40),
    ("resnet_tcn", recipe("resnet_tcn"), lambda: frame_shards(32, num_frames=50, size_px=224), 8),
    ("cmose_visual", recipe("cmose_visual"), lambda: feature_shards(1500), 25),
)


def main() -> None:
    results = [_overhead(*case) for case in CASES] + [_waiting()] + [_two_workers()]
    save("loop", results)


def _overhead(name: str, run: RunConfig, shards: Callable[[], Path], steps: int) -> dict[str, object]:
    run = with_settings(run, ["loop.epochs=1000"])
    data = shards()
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(statistics.median(_alone(_rapt_steps_s, run, data, steps)[0]))
        bare.append(statistics.median(_alone(_bare_steps_s, run, data, steps)))
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    table = Table(title=f"A step of {name}, batches of {run.loop.global_batch}", caption=f"{ROUNDS} rounds in turn; {machine()}")
    for heading in ("", "median", "min", "max"):
        table.add_column(heading, justify="left" if not heading else "right")
    for label, values in (("rapt train --local, ms", ours), ("bare PyTorch loop, ms", bare)):
        table.add_row(label, *(f"{1000 * f(values):,.1f}" for f in (statistics.median, min, max)))
    table.add_row("ratio (aim 1.03)", *(f"{f(ratios):.3f}" for f in (statistics.median, min, max)), style="bold")
    console.print(table)
    return {"title": f"loop overhead, {name}", "ratio": statistics.median(ratios), "rapt_s": ours, "bare_s": bare}


def _alone(measure: Callable[[str, Path, int], Any], run: RunConfig, data: Path, steps: int) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, run.model_dump_json(), data, steps).result()


def _rapt_steps_s(run_json: str, data: Path, steps: int) -> tuple[list[float], list[float]]:
    """(seconds, share of waiting for data) of each of `steps` steps of a real run, once it has settled."""
    from cluster.job import TrainingJob
    from cluster.launch import run_local

    run, stop = RunConfig.model_validate_json(run_json), StopRequest()
    seen: list[tuple[float, float]] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            seen.append((time.perf_counter(), event.data_wait_share))
            if seen[-1][0] - seen[0][0] < SETTLE_S:
                del seen[1:]
            elif len(seen) > steps + 1:
                stop.ask()

    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch:
        folder = Path(scratch)
        uri = f"sqlite:///{folder}/mlflow/mlflow.db"
        job = TrainingJob(run=run, data=str(data), run_id="bench", run_folder=folder / "run", mlflow_uri=uri)
        with suppress(Stopped):
            run_local(job, listen, stop=stop)
    moments, waits = zip(*seen[1:], strict=True)
    return [b - a for a, b in pairwise(moments)], list(waits[1:])


def _bare_steps_s(run_json: str, data: Path, steps: int) -> list[float]:
    """What one would write by hand: the same batches, augmentation, model, loss and optimiser; no events, no checkpoints."""
    run = RunConfig.model_validate_json(run_json)
    with closing(RunData(run, data, World(), torch.device("cpu"), None)) as opened:
        run = opened.run
        torch.manual_seed(run.seed)
        model = MODELS[run.model.name](run.model, len(opened.level_names)).to(memory_format=torch.channels_last)
        optimiser = make_optimiser(model, run.optimiser)
        loss = LOSSES[run.loss.name](run.loss, opened.levels)
        moments = []
        with closing(opened.batches(model, 0)) as batches:
            for _ in range(steps + WARM_UP):
                batch = next(batches)
                inputs = batch.inputs._replace(
                    frames_BTCHW=augment(batch.inputs.frames_BTCHW, batch.inputs.draw_keys_B, run.data.augment)
                )
                model.train()
                value = loss(model(model.prepared(inputs)), batch.labels_B)
                value.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), run.optimiser.clip_norm or float("inf"))
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                value.item()
                moments.append(time.perf_counter())
    return [b - a for a, b in zip(moments[WARM_UP:-1], moments[WARM_UP + 1 :], strict=True)]


def _waiting() -> dict[str, object]:
    table = Table(title="Waiting for data, share of a step", caption=f"one process; {machine()}")
    for heading in ("recipe", "step, s", "clips/s", "median wait (aim 2 %)", "of all steps' time"):
        table.add_column(heading, justify="left" if heading == "recipe" else "right")
    result: dict[str, object] = {"title": "data wait"}
    for name, run, shards, steps in WAITING:
        seconds, waits = _alone(_rapt_steps_s, with_settings(run, ["loop.epochs=1000"]), shards(), steps)
        step_s = statistics.median(seconds)
        whole = sum(s * w for s, w in zip(seconds, waits, strict=True)) / sum(seconds)
        table.add_row(
            name, f"{step_s:.3f}", f"{run.loop.global_batch / step_s:.1f}", f"{statistics.median(waits):.2%}", f"{whole:.2%}"
        )
        result[name] = {"step_s": step_s, "median wait": statistics.median(waits), "wait of all": whole}
    console.print(table)
    return result


def _two_workers() -> dict[str, object]:
    """`demo`, the same global batch, one thread a worker: one worker against two that share it, in turn."""
    run = with_settings(recipe("demo"), ["loop.epochs=1000", "loop.global_batch=16"])
    data = frame_shards(160, num_frames=32, size_px=64)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for size, seen in rates.items():
            seen.append(16 / _distributed_step_s(run, data, size))
    times = [b / a for a, b in zip(rates[1], rates[2], strict=True)]
    table = Table(title="demo on workers of one thread each, gloo", caption=f"3 rounds in turn; {machine()}")
    for heading in ("", "median", "min", "max"):
        table.add_column(heading, justify="left" if not heading else "right")
    for size, seen in rates.items():
        table.add_row(
            f"{size} worker{'s' if size > 1 else ''}, clips/s", *(f"{f(seen):.1f}" for f in (statistics.median, min, max))
        )
    table.add_row("times as fast", *(f"{f(times):.2f}" for f in (statistics.median, min, max)), style="bold")
    console.print(table)
    return {"title": "scaling", "clips_per_s": rates, "times": times}


def _distributed_step_s(run: RunConfig, data: Path, size: int) -> float:
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        torch.multiprocessing.spawn(_worker, (size, port, run.model_dump_json(), str(data), scratch), nprocs=size)
        moments = [float(line) for line in Path(scratch, "moments").read_text().split()]
    return statistics.median(b - a for a, b in zip(moments[WARM_UP:-1], moments[WARM_UP + 1 :], strict=True))


def _worker(rank: int, size: int, port: int, run_json: str, data: str, folder: str) -> None:
    from training.loop import train

    torch.set_num_threads(1)
    store = dist.TCPStore(  # type: ignore[attr-defined]  # missing in torch's stubs
        "127.0.0.1", port, size, is_master=rank == 0, timeout=timedelta(seconds=60)
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    moments: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            moments.append(time.perf_counter())

    run = RunConfig.model_validate_json(run_json)
    train(run, data, Path(folder, "run"), run_id="bench", world=World(rank, size), listeners=[listen], stop_after_step=25)
    if rank == 0:
        Path(folder, "moments").write_text("\n".join(map(str, moments)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
