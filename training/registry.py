"""The model registry: versions of one registered model, and the aliases `champion` and `challenger`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.errors import ConfigError, ModelError
from training.bundle import BundleRecord, read_record
from training.metrics import Metrics
from training.tracking import mlflow_client

__all__ = ["MODEL_NAME", "Gate", "RegisteredModel", "promote", "register", "resolve"]

MODEL_NAME = "engagement"
_SPLITS = ("validation", "test")
_LOWER_IS_BETTER = ("mae", "mse")


EMOTION_IS_OFF = (
    "names an emotion, which is off: the EU AI Act, Art. 5(1)(f), bans that in education outside medical and safety use; "
    "where it is lawful, the operator turns it on with --allow-emotion"
)


@dataclass(frozen=True)
class RegisteredModel:
    """A model as asked for, and where it now lies: name and version are the bundle's run id and "" for a plain folder."""

    name: str
    version: str
    folder: Path


@dataclass(frozen=True)
class Gate:
    """The figure by which a version may take the champion's alias: better than the champion's by at least margin."""

    metric: str = "balanced_accuracy"
    split: str = "validation"
    margin: float = 0.0


def register(uri: str, mlflow_run_id: str, bundle: Path) -> str:
    """Register the run's bundle as the next version of MODEL_NAME and return the version's number.

    The first version ever becomes the champion, later ones the challenger until `promote` moves them. Serving follows the
    aliases, so a model that reads no video, or names an emotion, gets none. A run that has a version keeps it.
    """
    client = mlflow_client(uri)
    record = read_record(bundle)
    if registered := _version_of_run(client, record.run_id):
        return str(registered.version)
    _ensure_model(client)
    tags = {"run": record.run_id, "data_digest": record.data_digest, "simulated": str(record.simulated).lower()}
    version = client.create_model_version(
        MODEL_NAME,
        source=f"runs:/{mlflow_run_id}/bundle",
        run_id=mlflow_run_id,
        tags=tags,
        description=record.notice or record.dataset,
    )
    if record.infers_emotion or not record.reads_video:
        return str(version.version)
    alias = "challenger" if _by_alias(client, MODEL_NAME, "champion") else "champion"
    client.set_registered_model_alias(MODEL_NAME, alias, version.version)
    return str(version.version)


def promote(uri: str, run_id: str, *, alias: str, gate: Gate, allow_emotion: bool = False) -> tuple[str, str]:
    """Move `alias` to the version of run `run_id`; returns (version, what the gate saw). ConfigError where it does not pass.

    allow_emotion: the operator wants a model that names an emotion there.
    """
    client = mlflow_client(uri)
    ours = _version_of_run(client, run_id)
    if ours is None:
        raise ModelError(f"run {run_id}: no registered version; name a run that `rapt train` finished")
    record = read_record(_fetch(client, ours, f"version {ours.version}"))
    if not record.reads_video:
        raise ConfigError(f"version {ours.version} reads features, not video: the endpoint could not serve it as {alias}")
    if record.infers_emotion and not allow_emotion:
        raise ConfigError(f"version {ours.version} {EMOTION_IS_OFF}")
    holder = _by_alias(client, MODEL_NAME, alias)
    seen = "no version held the alias"
    if holder is not None and holder.version != ours.version:
        seen = _compare(client, ours, holder, alias, gate)
    client.set_registered_model_alias(MODEL_NAME, alias, ours.version)
    return str(ours.version), seen


def resolve(model: str, uri: str) -> RegisteredModel:
    """A bundle's folder, or `models:/NAME@alias` or `models:/NAME/VERSION` fetched from the registry."""
    if not model.startswith("models:/"):
        record = read_record(Path(model))
        return RegisteredModel(name=record.run_id, version="", folder=Path(model))
    name, _, alias = model.removeprefix("models:/").partition("@")
    client = mlflow_client(uri)
    if alias:
        found = _by_alias(client, name, alias)
    else:
        name, _, number = name.partition("/")
        found = _by_number(client, name, number)
    if found is None:
        raise ModelError(f"{model}: the registry holds none; train one with `rapt train`, or see `rapt promote --help`")
    return RegisteredModel(name=name, version=str(found.version), folder=_fetch(client, found, model))


def _compare(client: Any, ours: Any, holder: Any, alias: str, gate: Gate) -> str:
    if gate.split not in _SPLITS:
        raise ConfigError(f"--split {gate.split}: a bundle is measured on {' or '.join(_SPLITS)}")
    if ours.tags.get("data_digest") != holder.tags.get("data_digest"):
        raise ConfigError(
            f"version {ours.version} and the {alias} (version {holder.version}) were measured on different data; "
            "train both on one"
        )
    records = [read_record(_fetch(client, version, f"version {version.version}")) for version in (ours, holder)]
    if len({(record.label, record.level_names) for record in records}) > 1:
        names = " and ".join(f"{record.label} ({', '.join(record.level_names)})" for record in records)
        raise ConfigError(f"version {ours.version} and the {alias} answer different questions, {names}: no figure compares them")
    new, old = (_figure(record, version, gate) for record, version in zip(records, (ours, holder), strict=True))
    seen = f"{gate.split} {gate.metric} {new:.4f} against the {alias}'s {old:.4f}"
    gain = old - new if gate.metric in _LOWER_IS_BETTER else new - old
    if gain <= 0 or gain < gate.margin:
        raise ConfigError(f"version {ours.version} does not pass: {seen}, margin {gate.margin}; the alias was not moved")
    return seen


def _figure(record: BundleRecord, version: Any, gate: Gate) -> float:
    evaluation = record.validation if gate.split == "validation" else record.test
    value = getattr(evaluation.metrics, gate.metric, None) if evaluation else None
    if not isinstance(value, float):
        known = ", ".join(name for name, figure in Metrics.model_fields.items() if figure.annotation is float)
        raise ConfigError(f"version {version.version} has no figure {gate.split}_{gate.metric}; there are: {known}")
    return value


def _fetch(client: Any, version: Any, asked: str) -> Path:
    """The version's bundle as a local folder: in place where the artifact store is local, else a download."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    source = client.get_model_version_download_uri(version.name, version.version)
    run = client.get_run(version.run_id)
    local = Path(run.info.artifact_uri.removeprefix("file://")) / "bundle"
    if source.startswith("runs:/") and local.is_dir():
        return local
    try:
        folder = tempfile.mkdtemp(prefix="rapt-bundle-")
        return Path(download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=client.tracking_uri))
    except (MlflowException, OSError) as error:
        raise ModelError(f"{asked}: its bundle cannot be fetched ({type(error).__name__}); check the artifact store") from None


def _ensure_model(client: Any) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(MODEL_NAME)
    except MlflowException:
        client.create_registered_model(MODEL_NAME, description="Engagement level of a webcam clip, by Rapt")


def _version_of_run(client: Any, run_id: str) -> Any | None:
    quoted = run_id.replace("'", "")
    found = client.search_model_versions(f"name='{MODEL_NAME}' and tags.run='{quoted}'")
    return found[0] if found else None


def _by_alias(client: Any, name: str, alias: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise ModelError(f"the registry does not answer ({error.error_code}); check MLFLOW_TRACKING_URI") from None


def _by_number(client: Any, name: str, number: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, number) if number.isdecimal() else None
    except MlflowException:
        return None
