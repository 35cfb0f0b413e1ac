"""What a run says while it goes: typed events, to whoever listens (a terminal, a file, MLflow). Only the first worker speaks."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from data_shards.schema import Stored
from training.metrics import Evaluation

__all__ = [
    "CheckpointFailed",
    "CheckpointSaved",
    "EpochDone",
    "Event",
    "EventLog",
    "Listener",
    "Notice",
    "Profiled",
    "RunFinished",
    "RunStarted",
    "StepDone",
    "WorkersChanged",
    "parse_event",
]


class RunStarted(Stored):
    """The run is set up; start_step is above 0 where it resumed. skipped: checkpoints that were
    damaged or half written, and passed over.

    num_dropped: training clips that the label view gives no level, or that lack what the run trains on. num_frozen:
    parameters that do not train. fresh: weights that `starts_from` has not; unused: weights of it that the model has not.
    """

    kind: Literal["run_started"] = "run_started"
    run_id: str
    recipe: str = ""
    start_step: int
    total_steps: int
    steps_per_epoch: float
    global_batch: int
    num_parameters: int
    num_dropped: int = 0
    num_frozen: int = 0
    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class StepDone(Stored):
    """One optimiser step: the global batch's mean loss, its rate, and the share of its time spent waiting for data.

    gpu_memory_gib: the most that tensors took on the first worker's GPU so far; 0 on a CPU.
    """

    kind: Literal["step"] = "step"
    step: int
    position: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float
    samples_per_s: float
    data_wait_share: float
    gpu_memory_gib: float = 0.0


class EpochDone(Stored):
    """An epoch's end. validation is None where the recipe has no validation split."""

    kind: Literal["epoch"] = "epoch"
    epoch: int
    step: int
    train_loss: float
    validation: Evaluation | None
    is_best: bool


class CheckpointSaved(Stored):
    """A checkpoint is there, whole. took_s: since it was due; stall_s: how long training waited for it, its copy."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    took_s: float = 0.0
    stall_s: float = 0.0


class CheckpointFailed(Stored):
    """A checkpoint could not be written. The run goes on, the last good one stays, the next is tried."""

    kind: Literal["checkpoint_failed"] = "checkpoint_failed"
    step: int
    reason: str


class Profiled(Stored):
    """Where a step's time went, as one sentence and as shares of it; the traces lie in `folder`."""

    kind: Literal["profile"] = "profile"
    sentence: str
    bound: str
    shares: dict[str, float]
    folder: str


class RunFinished(Stored):
    """The run is whole: the test split was read, once, with the best epoch's weights."""

    kind: Literal["run_finished"] = "run_finished"
    bundle: str
    best_epoch: int
    test: Evaluation | None


class Notice(Stored):
    """Something a person should read that is no part of the training itself: MLflow is away, records wait."""

    kind: Literal["notice"] = "notice"
    sentence: str


class WorkersChanged(Stored):
    """How many workers train, of how many wanted: told at the start, after a death, after a resize, and while one waits.

    reason: what happened, in a sentence's words, or "" where nothing did.
    """

    kind: Literal["workers"] = "workers"
    alive: int
    wanted: int
    reason: str = ""


Event = RunStarted | StepDone | EpochDone | CheckpointSaved | CheckpointFailed | RunFinished | Notice | WorkersChanged | Profiled
Listener = Callable[[Event], None]

_KINDS: dict[str, type[Event]] = {
    "run_started": RunStarted,
    "step": StepDone,
    "epoch": EpochDone,
    "checkpoint": CheckpointSaved,
    "checkpoint_failed": CheckpointFailed,
    "profile": Profiled,
    "run_finished": RunFinished,
    "notice": Notice,
    "workers": WorkersChanged,
}


def parse_event(line: bytes) -> Event:
    """One line of an event log."""
    return _KINDS[json.loads(line)["kind"]].from_bytes(line, origin="events.jsonl")


class EventLog:
    """Appends every event to `path` as a JSON line, at once, so that another process can follow it. Any thread may tell.

    No run ends for its log: what a full disk does not take is kept in memory and written with the next event.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._unwritten = b""
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock, suppress(OSError):
            self._unwritten += event.to_bytes()
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def close(self) -> None:
        self._file.close()
