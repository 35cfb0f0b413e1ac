"""A run as it is told to MLflow: a spool on disk, the thread that sends it, and an end that waits, but not for ever."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.tracking.client import shown_uri
from training.tracking.entries import Ending, Entry, RunOpened, Status, Tags
from training.tracking.sender import Sender
from training.tracking.spool import Position, Spool

__all__ = ["SPOOL", "ToldRun", "TrackingSettings", "now_ms"]

SPOOL = "tracking"  # the folder below the run's


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """close_wait_s: how long a finished run waits for what MLflow has not taken yet. stopped_wait_s: the same of one that
    was stopped or failed, which may have little time, and whose record is sent when it goes on.
    system_interval_s: seconds between a node's system metrics, 0 for none.
    """

    close_wait_s: float = 60.0
    stopped_wait_s: float = 10.0
    system_interval_s: float = 0.0


class ToldRun:
    """A run that is opened, or goes on where its spool lies below run_folder already.

    parent: the name of the MLflow run that this one is below. opening: what else is told of it once, when it is new.
    notify: gets a sentence where something is amiss.
    """

    def __init__(
        self,
        uri: str,
        *,
        name: str,
        tags: dict[str, str],
        run_folder: Path,
        parent: str = "",
        opening: Sequence[Entry] = (),
        settings: TrackingSettings | None = None,
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._uri, self._name, self._settings, self._notify = uri, name, settings or TrackingSettings(), notify
        self._spool = Spool(run_folder / SPOOL)
        if not self._spool.last_status:  # new, or killed before all of these were told
            self._spool.append(RunOpened(name=name, parent=parent, at_ms=now_ms()))
            for entry in opening:
                self._spool.append(entry)
        self._spool.append(Tags(values=tags))
        self._spool.append(Status(status="RUNNING", at_ms=now_ms()), durable=True)
        self._sender = Sender(self._spool, uri, notify=notify)

    @property
    def folder(self) -> Path:
        """Where what is told lies until it is sent."""
        return self._spool.folder

    def tell(self, entry: Entry, *, durable: bool = False) -> None:
        """Into the spool, and on disk before this returns where it is durable."""
        self._spool.append(entry, durable=durable)

    def close(self, ending: Ending) -> Position:
        """End the run, and wait for MLflow as long as the settings say; how far it came."""
        self._spool.append(Status(status=ending, at_ms=now_ms()), durable=True)
        self._spool.close()
        wait_s = self._settings.close_wait_s if ending == "FINISHED" else self._settings.stopped_wait_s
        position, num_waiting = self._sender.close(wait_s=wait_s)
        if num_waiting:
            records = "1 record waits" if num_waiting == 1 else f"{num_waiting:,} records wait"
            self._notify(f"{records} for MLflow at {shown_uri(self._uri)}; `rapt runs sync {self._name}` sends them")
        return position


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
