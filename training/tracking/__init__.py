"""MLflow: one run a job. What is told lies first in a spool on disk; a thread sends it, so that no run waits for a server."""

from training.tracking.client import check_tracking_uri, mlflow_client, shown_uri
from training.tracking.parent import ParentRun
from training.tracking.table import track_table
from training.tracking.told_run import TrackingSettings
from training.tracking.tracker import MlflowTracker

__all__ = [
    "MlflowTracker",
    "ParentRun",
    "TrackingSettings",
    "check_tracking_uri",
    "mlflow_client",
    "shown_uri",
    "track_table",
]
