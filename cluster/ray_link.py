"""A worker's end of the relay: one thread brings what the worker has to say, and fetches what it is asked to do."""

import queue
import signal
import threading
import time
from contextlib import suppress
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from training.events import Event

__all__ = ["Link", "notice_sigterm"]

_EVERY_S = 0.5
_CALLS_PER_S = 400  # [choice] of all workers together: a relay answers some thousands
_EVENTS_WAITING = 1000

_sigterm_at = threading.Event()


def notice_sigterm() -> None:
    """Take SIGTERM as a notice. Runs in a worker's main thread, where alone handlers can be set."""
    _sigterm_at.clear()
    signal.signal(signal.SIGTERM, lambda number, frame: _sigterm_at.set())


class Link:
    """Called with an event, it brings it: in order, without waiting while fewer than 1,000 events are on their way."""

    def __init__(self, relay: Any, rank: int, size: int) -> None:
        self._relay, self._rank = relay, rank
        self._every_s = max(_EVERY_S, size / _CALLS_PER_S)
        self._events: queue.Queue[bytes] = queue.Queue(_EVENTS_WAITING)
        self._wake, self._done = threading.Event(), threading.Event()
        self._order, self._cause, self._is_lost = "", "", False
        self.why_started: str | None = ray.get(relay.join.remote(size))
        self._thread = threading.Thread(target=self._exchange, daemon=True, name="link")
        self._thread.start()

    def __call__(self, event: Event) -> None:
        if self._is_lost:
            return  # the driver is gone: Ray is about to end this worker, and events.jsonl has the event
        self._events.put(event.to_bytes())
        if self._events.qsize() > _EVENTS_WAITING // 2:
            self._wake.set()

    def flush(self) -> None:
        """Wait until all is with the relay: what a checkpoint holds, a kill does not take from who listens."""
        self._wake.set()
        while self._events.unfinished_tasks and not self._is_lost:
            time.sleep(0.001)

    def should_stop(self) -> bool:
        """Whether this worker is to write a checkpoint: SIGTERM, a node that is drained, the driver's order or its end."""
        if not self._cause:
            if _sigterm_at.is_set():
                self._cause = f"worker {self._rank} got SIGTERM"
            elif _drain_notice() is not None:
                self._cause = "a node is being taken away"
        return bool(self._order or self._cause or self._is_lost)

    def leave(self, how: Literal["result", "refused", "stopped"], what: Any) -> None:
        """Bring the rest, then how this worker ended."""
        self.close()
        ray.get(self._relay.leave.remote(how, what))

    def is_refused(self) -> bool:
        """Whether some worker met what no retry mends."""
        return bool(ray.get(self._relay.is_refused.remote()))

    def close(self) -> None:
        self._done.set()
        self._wake.set()
        self._thread.join()

    def _exchange(self) -> None:
        while not self._is_lost:
            ending = self._done.is_set()
            self._wake.clear()
            events = []
            with suppress(queue.Empty):
                while True:
                    events.append(self._events.get_nowait())
            try:
                self._order = ray.get(self._relay.exchange.remote(events, self._cause))
            except RayError:
                self._is_lost = True
            for _ in events:
                self._events.task_done()
            if ending:
                return
            self._wake.wait(self._every_s)


def _drain_notice() -> Any:
    """Ray's notice that a node of the run goes, as this worker has it. ray.train.get_preemption_info would be a message
    between all workers at each step, where the loop's own already tells that one of them wants to stop."""
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info
