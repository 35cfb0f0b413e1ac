"""Where a model comes from: data -> run -> checkpoint -> version -> aliases, out of its bundle, MLflow and the audits."""

from pathlib import Path
from typing import Any

from data_shards.errors import ModelError
from data_shards.schema import Stored
from training.bundle import BundleRecord, read_record
from training.promotion import known_audit
from training.registry import aliases_of, find_version, version_record
from training.tracking.client import experiment_id, find_run, mlflow_client
from training.tracking.registration import version_of_run

__all__ = ["CheckpointOrigin", "DataOrigin", "Lineage", "RunOrigin", "VersionOrigin", "lineage_of", "lines_of"]


class DataOrigin(Stored):
    """uri and num_clips as the run recorded them, "" and None where MLflow knows no such run. audit: what one found."""

    dataset: str
    uri: str
    digest: str
    num_clips: int | None
    simulated: bool
    audit: str


class RunOrigin(Stored):
    """mlflow_run_id: "" where MLflow knows no such run. parent: the run it is a stage of; starts_from: another's weights."""

    name: str
    recipe: str
    commit: str
    mlflow_run_id: str
    ray_job: str
    parent: str
    starts_from: str


class CheckpointOrigin(Stored):
    """Which weights the bundle has: those at the end of the best epoch. step: None where nobody recorded it."""

    best_epoch: int
    step: int | None


class VersionOrigin(Stored):
    name: str
    version: str
    aliases: tuple[str, ...]


class Lineage(Stored):
    """The chain from data to aliases. version: None where the bundle is not registered."""

    data: DataOrigin
    run: RunOrigin
    checkpoint: CheckpointOrigin
    version: VersionOrigin | None


def lineage_of(uri: str, model: str, *, audits: Path) -> Lineage:
    """The chain of `models:/NAME@alias`, `models:/NAME/VERSION`, a run's name or a bundle's folder.

    ModelError where there is no such model, or MLflow does not answer. audits: the folder of audits by digest.
    """
    client = mlflow_client(uri)
    folder = Path(model)
    if (folder / "run.json").is_file():
        record = read_record(folder)
        version = version_of_run(client, record.run_id)
    else:
        version = find_version(client, model)
        record = version_record(client, version, model)
    run = _run(client, uri, record, version)
    tags: dict[str, str] = run.data.tags if run else {}
    return Lineage(
        data=DataOrigin(
            dataset=record.dataset,
            uri=tags.get("data", ""),
            digest=record.data_digest,
            num_clips=int(tags["num_clips"]) if "num_clips" in tags else None,
            simulated=record.simulated,
            audit=_audit(audits, record.data_digest),
        ),
        run=RunOrigin(
            name=record.run_id,
            recipe=record.run.recipe,
            commit=record.commit,
            mlflow_run_id=run.info.run_id if run else "",
            ray_job=tags.get("ray_job", ""),
            parent=_name_of(client, tags.get("mlflow.parentRunId", "")),
            starts_from=record.run.starts_from,
        ),
        checkpoint=CheckpointOrigin(best_epoch=record.best_epoch, step=int(tags["best_step"]) if "best_step" in tags else None),
        version=VersionOrigin(name=version.name, version=str(version.version), aliases=aliases_of(client, version))
        if version
        else None,
    )


def lines_of(lineage: Lineage) -> list[str]:
    """The chain as a small tree, each link below what it was made from."""
    data, run, version = lineage.data, lineage.run, lineage.version
    word = "simulated clips" if data.simulated else "clips"
    clips = f"{data.num_clips:,} {word}" if data.num_clips is not None else word
    run_parts = [f"recipe {run.recipe}", f"commit {run.commit[:12]}"]
    run_parts += [f"MLflow {run.mlflow_run_id}"] if run.mlflow_run_id else ["not in MLflow"]
    run_parts += [f"{name} {value}" for name, value in (("Ray job", run.ray_job), ("stage of", run.parent)) if value]
    run_parts += [f"starts from {run.starts_from}"] if run.starts_from else []
    step = f", step {lineage.checkpoint.step}" if lineage.checkpoint.step is not None else ""
    named = f"{version.name} version {version.version}" if version else "no version registered"
    aliases = (", ".join(version.aliases) if version else "") or "none"
    return [
        f"data        {data.dataset} {data.digest[:12]}, {clips}" + (f", {data.uri}" if data.uri else ""),
        f"|           audit: {data.audit}",
        f"+- run      {run.name}: {', '.join(run_parts)}",
        f"   +- checkpoint  best epoch {lineage.checkpoint.best_epoch}{step}",
        f"      +- version  {named}",
        f"         +- aliases  {aliases}",
    ]


def _run(client: Any, uri: str, record: BundleRecord, version: Any | None) -> Any | None:
    """The MLflow run that made the bundle: the version's, or the one of its name."""
    from mlflow.exceptions import MlflowException

    try:
        if version is not None:
            return client.get_run(version.run_id)
        return find_run(client, experiment_id(client, uri), record.run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise ModelError(f"MLflow does not answer ({error.error_code}); check MLFLOW_TRACKING_URI") from None


def _name_of(client: Any, mlflow_run_id: str) -> str:
    return str(client.get_run(mlflow_run_id).info.run_name) if mlflow_run_id else ""


def _audit(audits: Path, digest: str) -> str:
    audit = known_audit(audits, digest)
    if audit is None:
        return "none known"
    leaks = "; ".join(leak.sentence for leak in audit.leaks)
    return f"leaks: {leaks}" if leaks else f"no leak in {audit.num_clips:,} clips"
