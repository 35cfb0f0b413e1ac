"""Runs as MLflow has them: a line each for a list, the whole of one, and two or more side by side. Reads, never writes."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_shards.errors import ModelError
from data_shards.schema import Stored
from training.tracking.client import EXPERIMENT, find_run, mlflow_client

__all__ = ["ComparedFigure", "Comparison", "Estimate", "RunRecord", "compare_runs", "list_runs", "read_run"]

_LOWER_IS_BETTER = ("loss", "mae", "mse", "data_wait_share", "duration_s")
_NEITHER = ("lr", "grad_norm", "epoch", "majority_accuracy")  # of these, more is not better, and less is not
_OF_MLFLOW = "mlflow."


class Estimate(Stored):
    """A figure and the ends of its 95 % interval over people, None where none was told."""

    value: float
    low: float | None
    high: float | None


class RunRecord(Stored):
    """A run as MLflow has it. state: running, finished, failed, ...; step of total_steps, epoch of epochs: None if unknown.

    validation: balanced accuracy of the best epoch's weights, of the last epoch while the run goes on. started_ms: since
    1970; duration_s: None while it runs.
    """

    name: str
    mlflow_run_id: str
    recipe: str
    state: str
    step: int | None
    total_steps: int | None
    epoch: float | None
    epochs: int | None
    validation: Estimate | None
    test: Estimate | None
    samples_per_s: float | None
    started_ms: int
    duration_s: float | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


class ComparedFigure(Stored):
    """A figure of each run, None where a run has it not; best: which of them is better than the rest, None for no such one."""

    name: str
    values: tuple[float | None, ...]
    best: int | None


class Comparison(Stored):
    """runs: their names. params: those that differ, each run's value or "". figures: of the runs, side by side."""

    runs: tuple[str, ...]
    params: dict[str, tuple[str, ...]]
    figures: tuple[ComparedFigure, ...]


def list_runs(uri: str, *, limit: int, recipe: str = "") -> list[RunRecord]:
    """The newest runs first, without stages and rows, which are below others. ModelError where MLflow does not answer."""
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    quoted = recipe.replace("'", "")
    found: list[RunRecord] = []
    token = None
    while len(found) < limit:
        page = client.search_runs(
            [experiment.experiment_id],
            filter_string=f"tags.recipe = '{quoted}'" if recipe else "",
            order_by=["attributes.start_time DESC"],
            max_results=min(1000, max(50, 2 * limit)),
            page_token=token,
        )
        found += [_record(run) for run in page if "mlflow.parentRunId" not in run.data.tags]
        token = page.token
        if not token:
            break
    return found[:limit]


def read_run(uri: str, name: str) -> RunRecord:
    """The run of that name. ModelError where there is none, or MLflow does not answer."""
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = find_run(client, experiment.experiment_id, name) if experiment else None
    if found is None:
        raise ModelError(f"run {name}: MLflow has none of that name; `rapt runs` lists them, `rapt runs sync` sends what waits")
    return _record(found)


def compare_runs(runs: Sequence[RunRecord]) -> Comparison:
    """Params that differ, and all figures of the end side by side; system metrics are left out."""
    names = sorted({name for run in runs for name in run.params})
    values = {name: tuple(run.params.get(name, "") for run in runs) for name in names}
    named = sorted({name for run in runs for name in run.metrics if not name.startswith("system/")})
    figures = [_compared(name, [run.metrics.get(name) for run in runs]) for name in named]
    return Comparison(
        runs=tuple(run.name for run in runs),
        params={name: found for name, found in values.items() if len(set(found)) > 1},
        figures=(*figures, _compared("duration_s", [run.duration_s for run in runs])),
    )


def _compared(name: str, values: Sequence[float | None]) -> ComparedFigure:
    known = [value for value in values if value is not None]
    best = None
    if not name.endswith(_NEITHER) and len(known) > 1:
        wanted = min(known) if name.endswith(_LOWER_IS_BETTER) else max(known)
        if known.count(wanted) == 1:
            best = list(values).index(wanted)
    return ComparedFigure(name=name, values=tuple(values), best=best)


def _record(run: Any) -> RunRecord:
    params, metrics, tags = dict(run.data.params), dict(run.data.metrics), dict(run.data.tags)
    epoch = metrics.get("epoch")
    per_epoch = float(tags.get("steps_per_epoch", 0.0))
    ended_ms = run.info.end_time if run.info.status != "RUNNING" else None
    return RunRecord(
        name=str(run.info.run_name),
        mlflow_run_id=str(run.info.run_id),
        recipe=tags.get("recipe") or tags.get("table", ""),
        state=str(run.info.status).lower(),
        step=round(epoch * per_epoch) if epoch is not None and per_epoch else None,
        total_steps=int(tags["total_steps"]) if "total_steps" in tags else None,
        epoch=epoch,
        epochs=int(params["loop.epochs"]) if "loop.epochs" in params else None,
        validation=_estimate(metrics, "best_validation") or _estimate(metrics, "validation"),
        test=_estimate(metrics, "test"),
        samples_per_s=metrics.get("samples_per_s"),
        started_ms=int(run.info.start_time),
        duration_s=(ended_ms - run.info.start_time) / 1000 if ended_ms else None,
        params=params,
        metrics=metrics,
        tags={name: value for name, value in tags.items() if not name.startswith(_OF_MLFLOW)},
    )


def _estimate(metrics: Mapping[str, float], split: str) -> Estimate | None:
    name = f"{split}_balanced_accuracy"
    if name not in metrics:
        return None
    return Estimate(value=metrics[name], low=metrics.get(f"{name}_low"), high=metrics.get(f"{name}_high"))
