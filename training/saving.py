"""A run's checkpoints as the loop sees them: found once, taken while it trains, written by the end.

Only the first worker reads and writes; the others are handed what it found, so that all go on from the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_shards.errors import Stopped
from data_shards.storage.store import Store, open_store
from training.checkpoint import NOTHING_FOUND, CheckpointRecord, Checkpoints, Found
from training.checkpoint_writer import CheckpointWriter
from training.events import Listener
from training.host_copy import HostBuffers
from training.world import World

__all__ = ["RunCheckpoints", "checkpoint_store"]


def checkpoint_store(checkpoints: str | Path | Store | None, run_folder: Path) -> Store:
    """Where a run's checkpoints lie: run_folder/checkpoints where nothing else is named."""
    if checkpoints is None:
        return open_store(run_folder / "checkpoints")
    return open_store(checkpoints) if isinstance(checkpoints, (str, Path)) else checkpoints


class RunCheckpoints:
    """Looks for the last good checkpoint when it is made. Workers make it together.

    best: the weights of the best epoch so far, on the CPU, on every worker; the run ends with them, and a checkpoint names
    them. [choice] in memory: a run ends well where neither the store nor the disk can be reached any more.
    """

    def __init__(self, store: Store, *, kept: int, scratch: Path, world: World) -> None:
        self.uri = store.uri
        self._world = world
        self._checkpoints = Checkpoints(store, kept=kept, scratch=scratch)
        self._writer: CheckpointWriter | None = None
        self._found = world.from_first(self._checkpoints.find)
        self.is_new = self._found.record is None
        self.best: dict[str, Any] = {}

    def take_found(self) -> Found:
        """What was found, once: its bytes are as many as the model's. What was passed over is removed."""
        found, self._found = self._found, NOTHING_FOUND
        if self._world.is_first:
            self._checkpoints.clean()
        return found

    def keep_best(self, weights: dict[str, Any]) -> None:
        """Copy the weights of the best epoch. Into new memory, for the writer may still be busy with the one before."""
        self.best = HostBuffers().copy(weights)

    def submit(self, record: CheckpointRecord, state: dict[str, Any], *, due_s: float) -> None:
        """Copy the state, and have it written while training goes on. due_s: by time.perf_counter."""
        if self._writer is not None:
            self._writer.submit(record, state, self.best, due_s=due_s)

    @contextmanager
    def writing(self, tell: Listener) -> Iterator[None]:
        """Have a writer; when the block ends, also by an error, what is due is written and told, within DRAIN_S.

        KeyboardInterrupt, a person's second Ctrl-C, waits for nothing.
        """
        self._writer = CheckpointWriter(self._checkpoints) if self._world.is_first else None
        try:
            yield
        except Exception:
            self._drain(tell, retry=False)
            raise
        except BaseException:
            if self._writer is not None:
                self._writer.abandon()
            raise
        self._drain(tell, retry=False)

    def tell_news(self, tell: Listener) -> None:
        """Say which checkpoints were written meanwhile, and which could not be."""
        for event in self._writer.news() if self._writer is not None else ():
            tell(event)

    def stopped(self, run_id: str, step: int, tell: Listener) -> Stopped:
        """What a run that was asked to stop raises: on all workers, once the first has written its checkpoint."""
        self._drain(tell, retry=True)
        last = self._world.from_first(lambda: self._writer.saved_step if self._writer is not None else 0)
        there = "there" if last == step else f"step {last}, its last checkpoint that could be written"
        return Stopped(f"run {run_id}: stopped at step {step}; `rapt train --resume {run_id}` goes on from {there}")

    def _drain(self, tell: Listener, *, retry: bool) -> None:
        if self._writer is not None:
            self._writer.drain(retry=retry)
        self.tell_news(tell)
