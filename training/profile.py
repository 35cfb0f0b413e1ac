"""Where the time of a training step goes: torch's profiler over a few steady steps, and a verdict in one line.

A worker's own view misleads: one that waits for a slow peer sees communication. So the workers put their shares together.
Waiting for data counts as on the worker that waits longest, for the others wait for it; communicating as on the worker that
communicates least, which is the last to arrive and waits for nobody. What is left is computing. [choice] The greatest of the
three shares gives the verdict its name.
"""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from data_shards.atomic import write_whole
from data_shards.schema import Stored
from training.loop import Phase
from training.world import World

__all__ = ["Bound", "StepProfile", "Verdict", "WorkerTimes", "exposed_s", "verdict_of"]

Bound = Literal["data", "compute", "communication"]
Span = tuple[float, float]
_STEP_PHASES = ("data", "forward", "backward", "update")
_WARM_UP_STEPS = 3  # threads, allocators and DDP's buckets settle; the profiler itself is on for the last of them
_STEPS = 5
_FEWEST_STEPS = 2
_MARK = "rapt: "  # before a phase's name in the trace
_COMMUNICATION = ("gloo:", "nccl:", "c10d::", "ncclDevKernel", "ncclKernel")


class WorkerTimes(Stored):
    """A worker's seconds in each phase, over `steps` steps; communication_s: of them, what no computing went on beside."""

    steps: int
    phases_s: dict[str, float]
    communication_s: float

    @property
    def total_s(self) -> float:
        return sum(self.phases_s.get(phase, 0.0) for phase in _STEP_PHASES)


class Verdict(Stored):
    """What holds a run up. shares: of a step's time, in [0, 1], together 1; workers: what they are made of, by rank."""

    bound: Bound
    shares: dict[Bound, float]
    step_s: float
    workers: tuple[WorkerTimes, ...]

    @property
    def sentence(self) -> str:
        share = self.shares
        return (
            f"{self.bound}-bound: of a step's {self.step_s:.3g} s, {share['data']:.0%} is waiting for data, "
            f"{share['compute']:.0%} computing, {share['communication']:.0%} communicating"
        )


def verdict_of(workers: Sequence[WorkerTimes]) -> Verdict:
    """The shares of all workers as one verdict; see the top of this file."""
    data = max(worker.phases_s.get("data", 0.0) / worker.total_s for worker in workers)
    communication = min(min(worker.communication_s / worker.total_s for worker in workers), 1.0 - data)
    shares: dict[Bound, float] = {"data": data, "compute": 1.0 - data - communication, "communication": communication}
    return Verdict(
        bound=max(shares, key=lambda name: shares[name]),
        shares=shares,
        step_s=max(worker.total_s / worker.steps for worker in workers),
        workers=tuple(workers),
    )


class StepProfile:
    """A context, and what `train` tells of its phases (its `watch`). Writes to `folder`, below the run's, when it ends well:

    trace-RANK.json.gz   each worker's steps with their phases, for ui.perfetto.dev
    verdict.json         the Verdict, by the first worker

    verdict is None until then, and where the run was too short: it takes 5 steps after 3 to warm up, or at least 2 of an epoch.
    """

    def __init__(self, folder: Path, *, world: World, device: torch.device) -> None:
        self._folder, self._world, self._device = folder, world, device
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else it prints two lines of its own to standard error
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profiler = profile(activities=activities)
        self._state: Literal["waiting", "warm", "recording", "done"] = "waiting"
        self._first_step = self._steps = 0
        self._phases_s: dict[str, float] = {}
        self._phase, self._began_s = "", 0.0
        self._mark: record_function | None = None
        self.verdict: Verdict | None = None

    def __enter__(self) -> "StepProfile":
        return self

    def __call__(self, phase: Phase, step: int) -> None:
        """A phase begins."""
        if self._state == "done":
            return
        self._first_step = self._first_step or step
        if self._state == "recording":
            self._end_phase()
            if self._is_enough(phase):
                self._stop()
                return
        elif phase == "data" and step == self._first_step + _WARM_UP_STEPS - 1 and self._state == "waiting":
            self._profiler.start()
            self._state = "warm"
        elif phase == "data" and step == self._first_step + _WARM_UP_STEPS:
            self._state = "recording"
        if self._state == "recording":
            self._mark = record_function(_MARK + phase)
            self._mark.__enter__()  # type: ignore[no-untyped-call]
        self._phase, self._began_s = phase, time.perf_counter()

    def _end_phase(self) -> None:
        self._phases_s[self._phase] = self._phases_s.get(self._phase, 0.0) + time.perf_counter() - self._began_s
        self._steps += self._phase == "update"
        if self._mark:
            self._mark.__exit__(None, None, None)

    def _is_enough(self, next_phase: Phase) -> bool:
        """An evaluation would swell the trace and tells nothing of steps, so an epoch's end is an end where steps are there."""
        if next_phase == "data":
            return self._steps >= _STEPS
        return next_phase in ("evaluate", "checkpoint") and self._steps >= _FEWEST_STEPS

    def _stop(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._profiler.stop()
        self._state = "done"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._state == "recording":
            self._end_phase()
        if self._state in ("warm", "recording"):
            self._stop()
        if kind is None and self._steps:  # workers do the same steps, so they all come here or none
            self._folder.mkdir(parents=True, exist_ok=True)
            self._profiler.export_chrome_trace(str(self._folder / f"trace-{self._world.rank}.json.gz"))
            times = WorkerTimes(steps=self._steps, phases_s=self._phases_s, communication_s=self._communication_s())
            self.verdict = verdict_of(self._world.gather(times))
            if self._world.is_first:
                write_whole(self._folder / "verdict.json", self.verdict.to_bytes())

    def _communication_s(self) -> float:
        """Of the recorded steps: time in gloo's, NCCL's and c10d's operations during which nothing was computed."""
        communicating: list[Span] = []
        computing: list[Span] = []
        events = self._profiler.events() or ()  # type: ignore[no-untyped-call]
        begin_us = min(event.time_range.start for event in events if event.name.startswith(_MARK))  # the step before warmed up
        on_gpu = self._device.type == "cuda"
        for event in events:
            is_kernel = event.device_type.name == "CUDA" and not event.is_user_annotation
            if event.time_range.start < begin_us or on_gpu != is_kernel:
                continue  # on a GPU its kernels tell: what the CPU does only starts them
            span = (event.time_range.start / 1e6, event.time_range.end / 1e6)
            if event.name.startswith(_COMMUNICATION):
                communicating.append(span)
            elif on_gpu or event.name.startswith("aten::"):
                computing.append(span)
        return exposed_s(communicating, computing)


def exposed_s(spans: Iterable[Span], hidden_by: Iterable[Span]) -> float:
    """Seconds that lie in one of `spans` at least, and in none of `hidden_by`."""
    hidden = _union(hidden_by)
    return _length(_union([*spans, *hidden])) - _length(hidden)


def _union(spans: Iterable[Span]) -> list[Span]:
    """The same stretch of time as spans that do not overlap, in order."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _length(spans: Iterable[Span]) -> float:
    return sum(end - start for start, end in spans)
