"""MLflow: one run a job, told by the first worker. The embedded default is sqlite and a folder beside it.

Params are the resolved RunConfig, tags the lineage (data digest, commit, recipe), metrics by step and epoch, artifacts
the confusion matrix as a picture and the bundle.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_shards.errors import ModelError
from training.config import RunConfig
from training.events import CheckpointSaved, EpochDone, Event, RunFinished, StepDone
from training.metrics import Evaluation
from training.reproduction.table import Row, Table

__all__ = ["MlflowTracker", "ParentRun", "mlflow_client", "track_table"]

EXPERIMENT = "engagement"
_STEPS_A_CALL = 50
_LONGEST_PARAM = 500


def mlflow_client(uri: str) -> Any:
    """An MlflowClient on a tracking server or an embedded sqlite database. ModelError where it does not answer."""
    import logging

    # the embedded database announces each of its migrations; mlflow sets alembic's level while it migrates
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a service for personal data sends nothing home
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    try:
        if uri.startswith("sqlite:///"):
            _check_sqlite(Path(uri.removeprefix("sqlite:///")))
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # mlflow, sqlalchemy, requests and drivers raise errors of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(f"MLflow at {uri}: does not answer ({reason}); check MLFLOW_TRACKING_URI") from None
    return client


def _check_sqlite(path: Path) -> None:
    """Open the database file as such, so that a damaged one is told at once and not after mlflow's retries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as database:
            database.execute("pragma schema_version")


class MlflowTracker:
    """A listener that writes a run's events to MLflow. Making one opens the MLflow run, or the run of that name again."""

    def __init__(self, uri: str, run: RunConfig, *, name: str, tags: dict[str, str]) -> None:
        self._client = mlflow_client(uri)
        self._waiting: list[StepDone] = []
        self.mlflow_run_id = _open_run(self._client, uri, name, tags)
        for name, value in _flat(run.model_dump(mode="json")):
            self._client.log_param(self.mlflow_run_id, name, str(value)[:_LONGEST_PARAM])

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._waiting.append(event)
            if len(self._waiting) >= _STEPS_A_CALL:
                self._send_steps()
        elif isinstance(event, EpochDone):
            self._send_steps()
            self._metrics({"train_loss": event.train_loss}, step=event.step)
            if event.validation:
                self._evaluation(event.validation, step=event.step)
        elif isinstance(event, CheckpointSaved):
            self._send_steps()  # what a checkpoint holds, a kill does not take from the record
        elif isinstance(event, RunFinished):
            self._send_steps()
            if event.test:
                self._evaluation(event.test, step=0)
                figure = confusion_figure(event.test, Path(event.bundle))
                self._client.log_figure(self.mlflow_run_id, figure, "confusion_matrix_test.png")
            self._client.log_artifacts(self.mlflow_run_id, event.bundle, "bundle")

    def close(self, *, finished: bool) -> None:
        """End the MLflow run as finished or failed."""
        self._send_steps()
        self._client.set_terminated(self.mlflow_run_id, "FINISHED" if finished else "FAILED")

    def _send_steps(self) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [
            Metric(name, getattr(event, name), now_ms, event.step)
            for event in self._waiting
            for name in ("loss", "lr", "grad_norm", "samples_per_s", "data_wait_share")
        ]
        self._waiting = []
        if metrics:
            self._client.log_batch(self.mlflow_run_id, metrics=metrics)

    def _metrics(self, values: dict[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._client.log_batch(self.mlflow_run_id, metrics=[Metric(k, v, now_ms, step) for k, v in values.items()])

    def _evaluation(self, evaluation: Evaluation, *, step: int) -> None:
        ours = evaluation.metrics.model_dump()
        recalls = ours.pop("per_class_recall")
        values = {f"{evaluation.split}_{name}": value for name, value in ours.items()}
        values |= {f"{evaluation.split}_recall_{level}": recall for level, recall in enumerate(recalls) if recall is not None}
        values[f"{evaluation.split}_majority_accuracy"] = evaluation.majority_baseline.accuracy
        values[f"{evaluation.split}_balanced_accuracy_low"] = evaluation.balanced_accuracy_interval.low
        values[f"{evaluation.split}_balanced_accuracy_high"] = evaluation.balanced_accuracy_interval.high
        self._metrics(values, step=step)


class ParentRun:
    """The MLflow run over the stages of a job, opened again where it is there. `stage_tags` make a run one of its children."""

    def __init__(self, uri: str, *, name: str, tags: dict[str, str]) -> None:
        self._client = mlflow_client(uri)
        self._uri = uri
        self.mlflow_run_id = _open_run(self._client, uri, name, tags)
        self.stage_tags = {"mlflow.parentRunId": self.mlflow_run_id}
        self._is_whole = False

    def has_finished(self, name: str) -> bool:
        """Whether the run of that name, a stage's, ended as finished."""
        found = _find_run(self._client, _experiment(self._client, self._uri), name)
        return found is not None and found.info.status == "FINISHED"

    def take_over(self, mlflow_run_id: str) -> None:
        """Copy the test figures of the last stage, so that the parent stands in a list of runs beside others."""
        for name, value in self._client.get_run(mlflow_run_id).data.metrics.items():
            if name.startswith("test_"):
                self._client.log_metric(self.mlflow_run_id, name, value)
        self._is_whole = True

    def close(self) -> None:
        """End the run: as finished where the last stage's figures were taken over, as failed otherwise."""
        self._client.set_terminated(self.mlflow_run_id, "FINISHED" if self._is_whole else "FAILED")


def _open_run(client: Any, uri: str, name: str, tags: dict[str, str]) -> str:
    """The MLflow id of the run of that name, made where it is missing."""
    experiment = _experiment(client, uri)
    same_name = _find_run(client, experiment, name)
    if same_name is not None:
        client.update_run(same_name.info.run_id, status="RUNNING")
        return str(same_name.info.run_id)
    return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)


def _find_run(client: Any, experiment: str, name: str) -> Any | None:
    found = client.search_runs([experiment], filter_string=f"attributes.run_name = '{name}'", max_results=1)
    return found[0] if found else None


@contextlib.contextmanager
def _ended(client: Any, mlflow_run_id: str) -> Iterator[str]:
    """Yields the id of a run and ends the run after the block: as finished, or as failed where the block raises."""
    status = "FAILED"
    try:
        yield mlflow_run_id
        status = "FINISHED"
    finally:
        client.set_terminated(mlflow_run_id, status)


def track_table(uri: str, table: Table) -> str:
    """Write a reproduced table as one run, with a run below it for each row; returns the MLflow id of the first.

    A row's metrics have the seed as their step, and their means beside them; params are what each seed chose.
    """
    client = mlflow_client(uri)
    experiment = _experiment(client, uri)
    shared = {"data_digest": table.rows[0].data_digest, "commit": table.rows[0].commit, "table": table.table}
    made = client.create_run(experiment, run_name=f"reproduce-{table.table}", tags=shared)
    with _ended(client, str(made.info.run_id)) as parent:
        client.log_dict(parent, table.model_dump(mode="json"), "table.json")
        for row in table.rows:
            below = client.create_run(experiment, run_name=row.name, tags={**shared, "mlflow.parentRunId": parent})
            with _ended(client, str(below.info.run_id)) as child:
                _track_row(client, child, row)
    return parent


def _track_row(client: Any, child: str, row: Row) -> None:
    for seed, chosen in enumerate(row.chosen):
        client.log_param(child, f"chosen.{seed}", chosen[:_LONGEST_PARAM])
    for name, figure in row.metrics.items():
        client.log_metric(child, f"{name}_mean", figure.mean)
        for seed, value in enumerate(figure.seeds):
            client.log_metric(child, name, value, step=seed)


def _experiment(client: Any, uri: str) -> str:
    """The id of the one experiment all runs are in, made where it is missing."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    # a server chooses its own artifact store; beside an embedded database it is a folder
    artifacts = str(Path(uri.removeprefix("sqlite:///")).parent / "artifacts") if uri.startswith("sqlite:///") else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))


def confusion_figure(evaluation: Evaluation, bundle: Path) -> Any:
    """A matplotlib figure of the confusion matrix, counts and row shares, named by the bundle's level names."""
    from matplotlib.figure import Figure

    from training.bundle import read_record

    record = read_record(bundle)
    counts = evaluation.confusion
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    shares = [[n / max(1, sum(row)) for n in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, f"{count}\n{shares[i][j]:.0%}", ha="center", va="center", color=colour)
    names = record.level_names
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted level")
    axes.set_ylabel("true level")
    word = "simulated " if record.simulated else ""
    axes.set_title(f"{word}{record.dataset if not word else ''}{evaluation.split}: {evaluation.num_samples} clips")
    return figure


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
