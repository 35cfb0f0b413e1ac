"""A hang detector: names the worker that is behind, and writes down where every worker stands. No Ray, no collective.

RUN/hangs/rank-1.txt   the stacks of all threads of worker 1, each time that it did not move

Every worker tells the others through the torch store how far it is; a hang is then two facts: who has not moved, and who
waits for whom. Only differences of a worker's own monotonic clock are compared, so a clock that jumps changes nothing.
"""

import faulthandler
import json
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

__all__ = ["Beat", "Seen", "Watchdog", "hang_sentence"]

_LONG_PHASES = ("evaluate", "checkpoint")
_LONG_FACTOR = 10  # [choice] how much longer than a step these may take while every worker still answers
_MEDIAN_FACTOR = 20
_STEPS_FOR_A_MEDIAN = 3


class Beat(NamedTuple):
    """What a worker says of itself. moves: phases begun since the start, the same count on every worker at the same place."""

    moves: int
    step: int
    phase: str
    ticks: int


class Seen(NamedTuple):
    """A worker's last beat as another worker has it; how long ago it spoke, and how long it has been where it is (seconds)."""

    beat: Beat
    silent_s: float
    still_s: float


class Watchdog:
    """The loop's `watch` on one worker. `tell` gets one sentence a hang, on one of the workers that still answer.

    hang_after_s: a worker that has not moved for so long, or for 20 of its median steps where that is longer, is hung; always
    below the collectives' timeout_s, which ends what the watchdog only describes. Until three steps are known it is 0.8 of the
    timeout: the first one may compile. [choice] An evaluation or a checkpoint may take 10 times as long while all workers
    answer. A worker that is stopped, or whose interpreter is held by a library, answers nobody and leaves no stacks of its own.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        store: Any,
        folder: Path,
        *,
        hang_after_s: float,
        timeout_s: float,
        tell: Callable[[str], None],
        tick_s: float = 1.0,
    ) -> None:
        self._rank, self._size, self._folder, self._tell = rank, size, folder, tell
        self._hang_after_s, self._timeout_s, self._tick_s = hang_after_s, timeout_s, tick_s
        self._address = (store.host, store.port)
        self._store: Any = None
        self._ticks = 0
        self._mine = Beat(0, 0, "start", 0)
        self._moved_s = self._exchanged_s = time.monotonic()
        self._step_began_s = 0.0
        self._steps_s: deque[float] = deque(maxlen=50)
        self._heard: dict[int, tuple[Beat, float, float]] = {}  # beat, when it last spoke, when it last moved
        self._reported_at = -1
        self._done = threading.Event()
        # two threads: a store whose owner is stopped holds whoever asks it for longer than any timeout that it was given
        for name, target in (("talking", self._talk), ("looking", self._look_on)):
            threading.Thread(target=target, daemon=True, name=f"watchdog-{name}").start()

    def __call__(self, phase: str, step: int) -> None:
        """The worker begins `phase` of `step`."""
        now_s, mine = time.monotonic(), self._mine
        if step != mine.step:
            if mine.step:
                self._steps_s.append(now_s - self._step_began_s)
            self._step_began_s = now_s
        self._mine = mine._replace(moves=mine.moves + 1, step=step, phase=phase)
        self._moved_s = now_s

    def close(self) -> None:
        self._done.set()

    def _talk(self) -> None:
        while not self._done.wait(self._tick_s):
            self._ticks += 1
            with suppress(RuntimeError):  # a store that does not answer is itself a finding: the first worker holds it
                self._exchange()

    def _look_on(self) -> None:
        while not self._done.wait(self._tick_s):
            self._look()

    def _exchange(self) -> None:
        """Put this worker's beat into the store, take the others'."""
        try:
            if self._store is None:  # a connection of its own, which is never waited for long
                patience = timedelta(seconds=max(2 * self._tick_s, 1.0))
                self._store = dist.TCPStore(*self._address, is_master=False, timeout=patience)  # type: ignore[attr-defined]
            self._store.set(f"beat/{self._rank}", json.dumps(self._mine._replace(ticks=self._ticks)))
            there = [rank for rank in range(self._size) if self._store.check([f"beat/{rank}"])]
            beats = self._store.multi_get([f"beat/{rank}" for rank in there])
        except RuntimeError:
            self._store = None  # an answer that comes late would be taken for that of the next question
            raise
        now_s = self._exchanged_s = time.monotonic()
        for rank, content in zip(there, beats, strict=True):
            beat = Beat(*json.loads(content))
            before, spoke_s, moved_s = self._heard.get(rank, (None, now_s, now_s))
            if before is not None and beat.ticks != before.ticks:
                spoke_s = now_s
            if before is not None and beat.moves != before.moves:
                moved_s = now_s
            self._heard[rank] = (beat, spoke_s, moved_s)

    def _look(self) -> None:
        """Where this worker has not moved for too long: write its stacks, and say who is behind if that falls to it."""
        mine, still_s = self._mine, time.monotonic() - self._moved_s
        if self._reported_at == mine.moves or mine.moves == 0:
            return
        now_s = time.monotonic()
        seen = {}
        for rank, (beat, spoke_s, moved_s) in list(self._heard.items()):
            # while the store is silent, only the first worker, which holds it, is known to be
            seen[rank] = Seen(beat, (now_s if rank == 0 else self._exchanged_s) - spoke_s, now_s - moved_s)
        seen[self._rank] = Seen(mine, 0.0, still_s)
        patience_s = self._patience_s()
        answers = all(other.silent_s < patience_s / 2 for other in seen.values())
        long_phase = mine.phase in _LONG_PHASES and answers
        if still_s < patience_s * (_LONG_FACTOR if long_phase else 1):
            return
        self._reported_at = mine.moves
        self._dump(f"worker {self._rank} has been in {mine.phase} of step {mine.step} for {still_s:.0f} s")
        sentence, behind = hang_sentence(seen, silent_after_s=patience_s / 2)
        if self._rank == min((rank for rank in seen if rank not in behind), default=self._rank):
            self._tell(f"{sentence}; stacks are in {self._folder.name}/, the timeout of {self._timeout_s:g} s ends it")

    def _patience_s(self) -> float:
        limit_s = 0.8 * self._timeout_s
        if len(self._steps_s) < _STEPS_FOR_A_MEDIAN:
            return limit_s
        return min(limit_s, max(self._hang_after_s, _MEDIAN_FACTOR * statistics.median(self._steps_s)))

    def _dump(self, heading: str) -> None:
        with suppress(OSError):  # a full disk must not end the thread that says so
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"rank-{self._rank}.txt").open("a") as file:
                file.write(heading + "\n")
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)


def hang_sentence(seen: Mapping[int, Seen], *, silent_after_s: float) -> tuple[str, tuple[int, ...]]:
    """Who is behind and who waits, in words, and the ranks that are behind (none where all stand at the same place).

    A worker that no longer speaks is behind whatever it said last; else those that have begun the fewest phases are.
    """
    silent = [rank for rank, other in seen.items() if other.silent_s >= silent_after_s]
    fewest = min(seen[rank].beat.moves for rank in (silent or seen))
    behind = tuple(sorted(rank for rank in (silent or seen) if seen[rank].beat.moves == fewest))
    if len(behind) == len(seen):
        beat = seen[behind[0]].beat
        return f"no worker moves, and none is behind: all are in {beat.phase} of step {beat.step}", ()
    first = seen[behind[0]]
    waiting = sorted(rank for rank in seen if rank not in behind)
    ahead = seen[waiting[0]].beat
    words = f"{_named(behind)} {'is' if len(behind) == 1 else 'are'} behind: in {first.beat.phase} of step {first.beat.step}"
    words += f" for {first.still_s:.0f} s" + (" and silent" if silent else "")
    return f"{words}; {_named(waiting)} {'wait' if len(waiting) > 1 else 'waits'} in {ahead.phase} of step {ahead.step}", behind


def _named(ranks: tuple[int, ...] | list[int]) -> str:
    return f"worker {ranks[0]}" if len(ranks) == 1 else "workers " + ", ".join(map(str, ranks))
