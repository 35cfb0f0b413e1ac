"""Entries of a spool into MLflow: in order, in batches, each from its position on. No thread and no patience of its own."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.tracking.client import (
    LONGEST_PARAM,
    experiment_id,
    find_run,
    first_line,
    is_refusal,
    is_unfit,
    new_client,
    shown_uri,
)
from training.tracking.entries import Artifact, DatasetInput, Entry, Metrics, Params, Register, RunOpened, Tags
from training.tracking.registration import register
from training.tracking.spool import Position, read_entries, read_position, save_position

__all__ = ["Delivery", "RefusedError", "RunMissingError"]

_VALUES_A_CALL = 1000  # metrics that MLflow takes in one call
_NAMES_A_CALL = 100  # params, or tags
_LONGEST_DIGEST = 36


class RefusedError(Exception):
    """The server will not take this run's entries, now or later; the message is a sentence's part: who, and why."""


class RunMissingError(Exception):
    """Another sender makes the run that this one writes to, or below, and has not yet."""


class Delivery:
    """Sends the spool of `folder`; `position` says how far it is. A spool that went to another server starts again there.

    Entries' paths are relative to the folder above `folder`.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder, self._uri = folder, uri
        self._client: Any = None
        found = read_position(folder)
        where = shown_uri(uri)
        self.position = found if found.uri == where else Position(uri=where)
        save_position(folder, self.position)

    def send_some(self) -> bool:
        """Send the next entries in one call, and step over them; False where there are none.

        Raises RefusedError where the server will not take them, anything else where it may later.
        """
        found = read_entries(self._folder, self.position.offset)
        if not found:
            return False
        group = _leading_group([entry for entry, _ in found])
        if self._client is None:
            self._client = new_client(self._uri)
        try:
            self._send(group)
            self._step_over(found[: len(group)])
        except Exception as error:
            if is_refusal(error):
                raise self._refused(error) from error
            if not is_unfit(error):
                raise
            self._send_one_by_one(found[: len(group)])
        return True

    def _send_one_by_one(self, found: Sequence[tuple[Entry | None, int]]) -> None:
        """Of entries of which one is not taken, the others; the rest of the run is not kept back by one name."""
        for entry, offset in found:
            try:
                self._send([entry])
                self._step_over([(entry, offset)])
            except Exception as error:
                if not is_unfit(error):
                    raise
                self._check_that_the_run_takes_any(error)
                self._step_over([(entry, offset)], num_refused=1)

    def _check_that_the_run_takes_any(self, error: Exception) -> None:
        """RefusedError where the run was deleted, which MLflow says of a write as it says of a bad name."""
        if not self.position.mlflow_run_id:
            raise self._refused(error) from error
        run = self._client.get_run(self.position.mlflow_run_id)
        if run.info.lifecycle_stage != "active":
            raise RefusedError(f"MLflow at {self.position.uri} has deleted the run")

    def _refused(self, error: Exception) -> RefusedError:
        return RefusedError(f"MLflow at {self.position.uri} refuses ({first_line(error)})")

    def _step_over(self, sent: Sequence[tuple[Entry | None, int]], *, num_refused: int = 0) -> None:
        self._move(
            offset=sent[-1][1],
            num_sent=self.position.num_sent + len(sent),
            num_refused=self.position.num_refused + num_refused,
        )

    def _move(self, **changes: Any) -> None:
        self.position = self.position.model_copy(update=changes)
        save_position(self._folder, self.position)

    def _send(self, entries: Sequence[Entry | None]) -> None:
        """One call's worth: metrics of many steps, or one entry of another kind."""
        entry = entries[0]
        if entry is None:
            return  # a damaged line: half of one that a kill ended
        if isinstance(entry, RunOpened):
            self._open(entry)
            return
        run = self.position.mlflow_run_id
        if isinstance(entry, Metrics):
            self._client.log_batch(run, metrics=_mlflow_metrics(entries))
        elif isinstance(entry, Params):
            self._send_params(run, entry)
        elif isinstance(entry, Tags):
            self._send_tags(run, entry)
        elif isinstance(entry, DatasetInput):
            self._client.log_inputs(run, datasets=[_mlflow_dataset(entry)])
        elif isinstance(entry, Artifact):
            path = self._folder.parent / entry.path
            log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            log(run, str(path), entry.to or None)
        elif isinstance(entry, Register):
            self._move(version=register(self._client, run, self._folder.parent / entry.path))
        elif entry.status == "RUNNING":
            self._client.update_run(run, status="RUNNING")
        else:
            self._client.set_terminated(run, entry.status, end_time=entry.at_ms)

    def _open(self, entry: RunOpened) -> None:
        """Find the run of that name, or make it."""
        experiment = experiment_id(self._client, self._uri)
        found = find_run(self._client, experiment, entry.name)
        if found is None and not entry.makes_it:
            raise RunMissingError(f"no run {entry.name} yet")
        if found is None:
            tags = {"mlflow.parentRunId": self._parent(experiment, entry.parent)} if entry.parent else {}
            found = self._client.create_run(experiment, start_time=entry.at_ms, run_name=entry.name, tags=tags)
        self._move(mlflow_run_id=str(found.info.run_id))

    def _parent(self, experiment: str, name: str) -> str:
        found = find_run(self._client, experiment, name)
        if found is None:
            raise RunMissingError(f"no run {name} yet, which this one is below")
        return str(found.info.run_id)

    def _send_params(self, run: str, entry: Params) -> None:
        from mlflow.entities import Param

        params = [Param(name, value[:LONGEST_PARAM]) for name, value in entry.values.items()]
        for some in _in_batches(params, _NAMES_A_CALL):
            self._client.log_batch(run, params=some)

    def _send_tags(self, run: str, entry: Tags) -> None:
        from mlflow.entities import RunTag

        for some in _in_batches([RunTag(name, value) for name, value in entry.values.items()], _NAMES_A_CALL):
            self._client.log_batch(run, tags=some)


def _leading_group(entries: Sequence[Entry | None]) -> Sequence[Entry | None]:
    """The first entry, and the metrics after it where it is of metrics, as many as one call takes."""
    num_values = length = 0
    for entry in entries:
        if not isinstance(entry, Metrics):
            break
        num_values += len(entry.values)
        if length and num_values > _VALUES_A_CALL:
            break
        length += 1
    return entries[: max(1, length)]


def _mlflow_metrics(entries: Sequence[Entry | None]) -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(name, value, entry.at_ms, entry.step)
        for entry in entries
        if isinstance(entry, Metrics)
        for name, value in entry.values.items()
    ]


def _mlflow_dataset(entry: DatasetInput) -> Any:
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowDatasetInput

    # MLflow's page keeps 36 characters of a digest; the whole one is in the run's tags
    source = json.dumps({"uri": entry.source})
    dataset = Dataset(entry.name, entry.digest[:_LONGEST_DIGEST], "shards", source, profile=entry.profile)
    return MlflowDatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _in_batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
