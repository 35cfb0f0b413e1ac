"""What the workers of a run and its driver say to each other: an actor on the driver's node, so that they share no disk.

Workers bring events and how they ended; they take away what they are asked to do. The driver takes the events. At most
1,000 events wait: a worker that brings more waits itself, so that a slow terminal costs no memory.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from training.events import WorkersChanged

__all__ = ["End", "Order", "Relay"]

Order = Literal["", "stop", "pause"]
"""stop: write a checkpoint and end, a person asked for it. pause: write a checkpoint and start again with other workers."""

_EVENTS_WAITING = 1000


@dataclass
class End:
    """How an attempt ended. refused: (class of the RaptError, sentence), what no retry mends; stopped: with a checkpoint.

    failures: what happened at each failure since the run was launched; cause: why it was to stop.
    """

    result: dict[str, str] | None = None
    refused: tuple[str, str] | None = None
    stopped: str = ""
    failures: list[str] = field(default_factory=list)
    cause: str = ""


class Relay:
    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._events: asyncio.Queue[bytes] = asyncio.Queue(_EVENTS_WAITING)
        self._order: Order = ""
        self._end = End()
        self._alive = 0
        self._why_started = ""

    async def begin(self, why: str) -> None:
        """The driver starts an attempt, because of `why` ("" for the first)."""
        self._order, self._alive, self._why_started = "", 0, why
        self._end = End(failures=self._end.failures)

    async def join(self, size: int) -> str | None:
        """A worker of `size` starts. Why this attempt was made, or None where there is nothing left to do."""
        self._alive = size
        return None if self._end.refused else self._why_started

    async def exchange(self, events: list[bytes], cause: str) -> Order:
        """A worker's events, in order, and why it wants to be paused ("" where it does not); returns what it is to do."""
        for event in events:
            await self._events.put(event)
        self._end.cause = self._end.cause or cause
        return self._order

    async def leave(self, how: Literal["result", "refused", "stopped"], what: Any) -> None:
        """A worker ends of itself."""
        setattr(self._end, how, getattr(self._end, how) or what)

    async def is_refused(self) -> bool:
        return self._end.refused is not None

    async def fail(self, dead: int, size: int, sentence: str) -> None:
        """The controller saw a failure: `dead` of `size` workers are gone, and the others will be started again."""
        self._end.failures.append(sentence)
        self._alive, self._why_started = 0, f"started again after {sentence}"
        changed = WorkersChanged(alive=max(0, size - dead), wanted=self._wanted, reason=sentence)
        await self._events.put(changed.to_bytes())

    async def order(self, order: Order, cause: str) -> None:
        """The driver's wish. A stop is not taken back by a pause."""
        if self._order != "stop":
            self._order, self._end.cause = order, cause

    async def take(self, wait_s: float) -> tuple[list[bytes], int]:
        """The events that wait, after at most wait_s seconds, and how many workers are at work."""
        events: list[bytes] = []
        try:
            events.append(await asyncio.wait_for(self._events.get(), wait_s))
        except TimeoutError:
            return [], self._alive
        while not self._events.empty():
            events.append(self._events.get_nowait())
        return events, self._alive

    async def end(self) -> End:
        return self._end
