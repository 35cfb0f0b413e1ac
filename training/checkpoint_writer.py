"""Checkpoints beside training: the training thread copies the state, one thread serialises, checksums and puts it.

At most one copy waits while another is written. Where the next is due before that, it takes the waiting one's place, which is
then never written: training does not wait for a slow store, and memory holds two copies at most. [choice] the other way,
to let training wait, would turn an object store's outage into training's. So what a kill takes is bounded by the interval of
checkpoints and the time that one takes to be written.

What cannot be written is told as CheckpointFailed and ends nothing: the last good checkpoint stays, the next is tried.
"""

import threading
import time
from typing import Any, NamedTuple

from torch import Tensor

from data_shards.errors import RaptError
from training.checkpoint import CheckpointRecord, Checkpoints, folder_name
from training.events import CheckpointFailed, CheckpointSaved
from training.host_copy import HostBuffers

__all__ = ["DRAIN_S", "CheckpointWriter"]

DRAIN_S = 60.0
"""How long the end of a run waits for its last checkpoint."""
_PAUSE_S = 1.0


class _Due(NamedTuple):
    """A checkpoint to be written; due_s: when it was due, by the clock of time.perf_counter."""

    record: CheckpointRecord
    state: dict[str, Any]
    best: dict[str, Tensor]
    buffers: HostBuffers
    due_s: float
    stall_s: float


class CheckpointWriter:
    """Writes to `checkpoints` in a thread of its own. All methods are for the training thread."""

    def __init__(self, checkpoints: Checkpoints, *, drain_s: float = DRAIN_S) -> None:
        self._checkpoints, self._drain_s = checkpoints, drain_s
        self._changed = threading.Condition()
        self._waiting: _Due | None = None
        self._writing: _Due | None = None
        self._spare: list[HostBuffers] = []
        self._news: list[CheckpointSaved | CheckpointFailed] = []
        self._closed = False
        self._retry_until_s = 0.0
        self.saved_step = checkpoints.last_step
        self._thread = threading.Thread(target=self._run, name="rapt-checkpoints", daemon=True)
        self._thread.start()

    def submit(self, record: CheckpointRecord, state: dict[str, Any], best: dict[str, Tensor], *, due_s: float) -> None:
        """Copy `state` and have it written. best: the weights of record.best_epoch, never changed again.

        due_s: when the checkpoint was due, by time.perf_counter; from there on its stall counts.
        """
        with self._changed:
            replaced, self._waiting = self._waiting, None
            buffers = replaced.buffers if replaced else self._spare.pop() if self._spare else HostBuffers()
        copied = buffers.copy(state)
        with self._changed:
            self._waiting = _Due(record, copied, best, buffers, due_s, time.perf_counter() - due_s)
            self._changed.notify_all()

    def news(self) -> list[CheckpointSaved | CheckpointFailed]:
        """What happened since the last call."""
        with self._changed:
            news, self._news = self._news, []
        return news

    def drain(self, *, retry: bool) -> None:
        """Wait until the last checkpoint is written, at most drain_s; the writer then takes no more. Once: again is nothing.

        retry: try one that cannot be written until then, because the run ends with it; otherwise once.
        """
        if self._closed:
            return
        until_s = time.perf_counter() + self._drain_s
        self._close(retry_until_s=until_s if retry else 0.0)
        self._thread.join(max(0.0, until_s - time.perf_counter()))
        with self._changed:
            left = self._waiting or self._writing
            if left is not None and self._thread.is_alive():
                reason = f"not written within {self._drain_s:g} s of the run's end; look at {self._checkpoints.store.uri}"
                self._news.append(CheckpointFailed(step=left.record.step, reason=reason))

    def abandon(self) -> None:
        """Write no more, and wait for nothing: the process is being ended."""
        with self._changed:
            self._waiting = None
        self._close(retry_until_s=0.0)

    def _close(self, *, retry_until_s: float) -> None:
        with self._changed:
            self._closed, self._retry_until_s = True, retry_until_s
            self._changed.notify_all()

    def _run(self) -> None:
        while (due := self._next()) is not None:
            event = self._write(due)
            with self._changed:
                self._writing = None
                again = isinstance(event, CheckpointFailed) and self._may_try_again()
                if again:
                    self._waiting = due
                else:
                    self._spare.append(due.buffers)
                    self._news.append(event)
            if again:
                time.sleep(_PAUSE_S)

    def _next(self) -> _Due | None:
        with self._changed:
            while self._waiting is None and not self._closed:
                self._changed.wait()
            self._writing, self._waiting = self._waiting, None
            return self._writing

    def _may_try_again(self) -> bool:
        return self._waiting is None and time.perf_counter() + _PAUSE_S < self._retry_until_s

    def _write(self, due: _Due) -> CheckpointSaved | CheckpointFailed:
        step = due.record.step
        path = f"{self._checkpoints.store.uri}/{folder_name(step)}"
        try:
            self._checkpoints.save(due.record, due.state, due.best)
        except Exception as error:
            return CheckpointFailed(step=step, reason=_plain(error, path))
        self.saved_step = step
        return CheckpointSaved(step=step, path=path, took_s=time.perf_counter() - due.due_s, stall_s=due.stall_s)


def _plain(error: Exception, path: str) -> str:
    """Why, in one sentence."""
    if isinstance(error, RaptError):
        return str(error)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return f"{path}: cannot be written ({(reason.splitlines() or [''])[0][:160]}); make room, or look at its permissions"
