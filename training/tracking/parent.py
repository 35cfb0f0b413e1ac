"""The MLflow run over the stages of a job: told through a spool like any other."""

import time
from collections.abc import Callable
from pathlib import Path

from training.bundle import read_record
from training.tracking.entries import Ending, Metrics, RunOpened, Status, Tags
from training.tracking.figures import final_figures
from training.tracking.sender import Sender
from training.tracking.spool import Spool
from training.tracking.tracker import SPOOL, TrackingSettings, waiting_sentence

__all__ = ["ParentRun", "has_been_told"]


class ParentRun:
    """Opened where the job starts, or goes on. Its stages name it, and are below it in MLflow."""

    def __init__(
        self,
        uri: str,
        *,
        name: str,
        tags: dict[str, str],
        run_folder: Path,
        settings: TrackingSettings | None = None,
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._uri, self._name, self._settings, self._notify = uri, name, settings or TrackingSettings(), notify
        self._spool = Spool(run_folder / SPOOL)
        if not self._spool.last_status:
            self._spool.append(RunOpened(name=name, at_ms=_now_ms()))
        self._spool.append(Tags(values=tags))
        self._spool.append(Status(status="RUNNING", at_ms=_now_ms()), durable=True)
        self._sender = Sender(self._spool, uri, notify=notify)

    def take_over(self, bundle: Path) -> None:
        """Copy the figures of the last stage's bundle, so that the parent stands in a list of runs beside others."""
        self._spool.append(Metrics(at_ms=_now_ms(), step=0, values=final_figures(read_record(bundle))))

    def close(self, ending: Ending) -> None:
        """End the run as its last stage ended, whose figures were taken over where it finished."""
        self._spool.append(Status(status=ending, at_ms=_now_ms()), durable=True)
        self._spool.close()
        _, num_waiting = self._sender.close(wait_s=self._settings.close_wait_s)
        if num_waiting:
            self._notify(waiting_sentence(num_waiting, self._uri, self._name))


def has_been_told(run_folder: Path) -> bool:
    """Whether the run that lies there was told to its end: all of it is in its spool, sent or not."""
    if not (run_folder / SPOOL).is_dir():
        return False
    spool = Spool(run_folder / SPOOL)
    spool.close()
    return spool.last_status == "FINISHED"


def _now_ms() -> int:
    return int(time.time() * 1000)
