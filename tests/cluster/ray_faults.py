"""What a run on Ray is put through: workers that are killed, stopped or asked to go, and the record of what it said."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from training.events import Event, RunStarted, StepDone, WorkersChanged

__all__ = ["Faults", "random_kills", "train_workers"]


def train_workers(above: int | None = None) -> list[psutil.Process]:
    """The Ray Train workers below the process `above`, else below this one, that still run."""
    found = []
    for process in psutil.Process(above).children(recursive=True):
        try:
            if process.name().startswith("ray::RayTrain") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.pid)


def _signal_one(number: signal.Signals, which: int) -> None:
    there = train_workers()
    if there:
        there[which % len(there)].send_signal(number)


@dataclass
class Faults:
    """A listener that does `plan[step]` once that step was told, one fault an attempt, and keeps all events."""

    plan: dict[int, Callable[[], None]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    done: int = 0

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, RunStarted):
            self._may_hit = True
        if isinstance(event, StepDone) and self._may_hit:
            due = [step for step in self.plan if step <= event.step]
            if due:
                self._may_hit = False  # the next fault is for those that take over
                self.plan.pop(min(due))()
                self.done += 1

    def __post_init__(self) -> None:
        self._may_hit = True

    def hit(self, step: int, number: signal.Signals, which: int = 0) -> "Faults":
        self.plan[step] = lambda: _signal_one(number, which)
        return self

    @property
    def steps(self) -> dict[int, tuple[int, float]]:
        """Position and loss of every step, as last told."""
        return {event.step: (event.position, event.loss) for event in self.events if isinstance(event, StepDone)}

    @property
    def changes(self) -> list[WorkersChanged]:
        return [event for event in self.events if isinstance(event, WorkersChanged)]

    @property
    def starts(self) -> list[int]:
        """The step that each attempt went on from."""
        return [event.start_step for event in self.events if isinstance(event, RunStarted)]


def random_kills(seed: int, *, kills: int, last_step: int) -> Faults:
    """`kills` times kill -9, of a random worker at a random step before last_step."""
    rng = random.Random(seed)
    faults = Faults()
    for step in sorted(rng.sample(range(1, last_step), kills)):
        faults.hit(step, signal.SIGKILL, rng.randrange(2))
    return faults
