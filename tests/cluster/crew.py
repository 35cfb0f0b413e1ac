"""Crews of real worker processes on gloo, which train a run as Ray Train's workers do, and can be killed within it.

They are forked from a process that has imported everything, so a crew costs what its run costs.
"""

import faulthandler
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cluster.strategies import engine_for
from data_shards.reading.loader import ClipInputs
from training.config import RunConfig
from training.engine import Engine, MakeEngine
from training.events import Event, EventLog, RunStarted, StepDone, parse_event
from training.loop import train
from training.models import EngagementModel, ModelOutput
from training.world import World

__all__ = ["Kill", "Trained", "crew_trains", "draws_of", "events_of", "losses_of"]

TIMEOUT = timedelta(seconds=120)
HANGS = 3 * TIMEOUT


@dataclass(frozen=True)
class Kill:
    """kill -9 of worker `rank` when a phase of step `step` begins; the crew's others are killed once it is dead.

    checkpoint: the step whose checkpoint is waited for first: it is written beside training.
    """

    phase: str
    step: int
    rank: int
    checkpoint: int


@dataclass(frozen=True)
class Trained:
    """One job of a crew: a run into a folder."""

    run: RunConfig
    data: Path
    folder: Path


def crew_trains(jobs: Sequence[Trained], workers: int, *, kill: Kill | None = None) -> None:
    """Train the jobs in turn, by one crew. Returns when all workers ended, or all were killed because one was."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.cluster.crew_preload"])
    attempt = len(list(jobs[0].folder.glob("store-*"))) + 1  # the workers meet by a file: nothing listens
    store = jobs[0].folder / f"store-{attempt}"
    store.parent.mkdir(parents=True, exist_ok=True)
    store.touch()
    crew = [context.Process(target=_work, args=(rank, workers, store, tuple(jobs), kill, attempt)) for rank in range(workers)]
    for worker in crew:
        worker.start()
    while any(worker.is_alive() for worker in crew):
        wait([worker.sentinel for worker in crew if worker.is_alive()])
        if any(worker.exitcode for worker in crew):
            for worker in crew:
                worker.kill()
    for worker in crew:
        worker.join()
    codes = [worker.exitcode for worker in crew]
    if kill:
        assert codes[kill.rank] == -signal.SIGKILL, codes
    else:
        assert codes == [0] * workers


def losses_of(folder: Path) -> list[tuple[int, float]]:
    """(step, loss) of every step that a run has told, in order; steps after a checkpoint that was gone back to come again."""
    return [(event.step, event.loss) for event in events_of(folder) if isinstance(event, StepDone)]


def draws_of(folder: Path) -> dict[int, list[int]]:
    """By step, the keys of the draws that all workers read for it, sorted; where it was done again, what was read last."""
    starts = [event.start_step for event in events_of(folder) if isinstance(event, RunStarted)]
    draws: dict[int, list[int]] = {}
    for attempt, start in enumerate(starts, start=1):
        draws = {step: keys for step, keys in draws.items() if step <= start}
        for path in sorted(folder.glob(f"draws-{attempt}-*.jsonl")):
            for step, keys in map(json.loads, path.read_text().splitlines()):
                draws.setdefault(step, []).extend(keys)
    return {step: sorted(keys) for step, keys in draws.items()}


def events_of(folder: Path) -> list[Event]:
    return [parse_event(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]


class _Recording:
    """An engine that notes which draws this worker's forward passes are of."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine, self._path = engine, path
        self.step_number = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        with self._path.open("a") as file:
            file.write(json.dumps([self.step_number, inputs.draw_keys_B.tolist()]) + "\n")
        return self._engine.forward(inputs)


def _work(rank: int, workers: int, store: Path, jobs: tuple[Trained, ...], kill: Kill | None, attempt: int) -> None:
    faulthandler.dump_traceback_later(HANGS.total_seconds(), exit=True)  # where it hangs, and an end for its crew
    torch.set_num_threads(1)
    world = World(rank, workers)
    if workers > 1:
        group = dist.FileStore(str(store), workers)
        dist.init_process_group("gloo", store=group, rank=rank, world_size=workers, timeout=TIMEOUT)
    for job in jobs:
        _train(job, world, kill, attempt)
    if workers > 1:
        dist.destroy_process_group()


def _train(job: Trained, world: World, kill: Kill | None, attempt: int) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / f"draws-{attempt}-{world.rank}.jsonl"
    path.touch()
    recording: list[_Recording] = []

    def make(model: EngagementModel, run: RunConfig, *, world: World, device: torch.device) -> Engine:
        make_engine: MakeEngine = engine_for(run)
        if run.loop.strategy != "ddp":
            make_engine = partial(make_engine, kept_whole=0)
        recording.append(_Recording(make_engine(model, run, world=world, device=device), path))
        return recording[0]

    def watch(phase: str, step: int) -> None:
        recording[0].step_number = step
        if kill and (phase, step, world.rank) == (kill.phase, kill.step, kill.rank):
            _wait_for(job.folder / "checkpoints" / f"step-{kill.checkpoint:08d}" / "checkpoint.json")
            os.kill(os.getpid(), signal.SIGKILL)

    log = EventLog(job.folder / "events.jsonl") if world.is_first else None
    listeners: list[Any] = [log] if log else []
    train(job.run, job.data, job.folder, run_id="crew", world=world, listeners=listeners, make_engine=make, watch=watch)
    if log:
        log.close()


def _wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + TIMEOUT.total_seconds() / 2
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path} was never written"
        time.sleep(0.01)
