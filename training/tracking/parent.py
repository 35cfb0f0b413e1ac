"""The MLflow run over the stages of a job: told through a spool like any other."""

from pathlib import Path

from training.bundle import read_record
from training.tracking.entries import Metrics
from training.tracking.figures import final_figures
from training.tracking.spool import Spool
from training.tracking.told_run import SPOOL, ToldRun, now_ms

__all__ = ["ParentRun", "has_been_told"]


class ParentRun(ToldRun):
    """Opened where the job starts, or goes on. Its stages name it, and are below it in MLflow. It ends as its last stage did,
    whose figures were taken over where it finished."""

    def take_over(self, bundle: Path) -> None:
        """Copy the figures of the last stage's bundle, so that the parent stands in a list of runs beside others."""
        self.tell(Metrics(at_ms=now_ms(), step=0, values=final_figures(read_record(bundle))))


def has_been_told(run_folder: Path) -> bool:
    """Whether the run that lies there was told to its end: all of it is in its spool, sent or not."""
    if not (run_folder / SPOOL).is_dir():
        return False
    spool = Spool(run_folder / SPOOL)
    spool.close()
    return spool.last_status == "FINISHED"
