"""The model registry: which bundle a name stands for, and who holds the aliases `champion` and `challenger`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.errors import ModelError
from training.bundle import BundleRecord, read_record
from training.tracking.client import mlflow_client
from training.tracking.registration import MODEL_NAME, by_alias, version_of_run

__all__ = [
    "EMOTION_IS_OFF",
    "MODEL_NAME",
    "RegisteredModel",
    "aliases_of",
    "find_version",
    "holder_of",
    "record_of",
    "resolve",
    "version_record",
]

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


def resolve(model: str, uri: str, *, scratch: Path | None = None) -> RegisteredModel:
    """A bundle's folder, or `models:/NAME@alias` or `models:/NAME/VERSION` fetched from the registry.

    scratch: where a download is put, which its caller then removes; a new temporary folder unless given.
    """
    if not model.startswith("models:/"):
        record = read_record(Path(model))
        return RegisteredModel(name=record.run_id, version="", folder=Path(model))
    client = mlflow_client(uri)
    found = find_version(client, model)
    folder = _fetch_bundle(client, found, model, scratch)
    return RegisteredModel(name=found.name, version=str(found.version), folder=folder)


def find_version(client: Any, model: str) -> Any:
    """The version that `models:/NAME@alias`, `models:/NAME/VERSION` or a run's name stands for. ModelError where none is."""
    if not model.startswith("models:/"):
        found = version_of_run(client, model)
        if found is None:
            raise ModelError(f"run {model}: no registered version; name a run that `rapt train` finished, or `rapt runs sync` it")
        return found
    name, _, alias = model.removeprefix("models:/").partition("@")
    if alias:
        found = holder_of(client, alias, name)
    else:
        name, _, number = name.partition("/")
        found = _by_number(client, name, number)
    if found is None:
        raise ModelError(f"{model}: the registry holds none; train one with `rapt train`, or see `rapt promote --help`")
    return found


def holder_of(client: Any, alias: str, name: str = MODEL_NAME) -> Any | None:
    """The version that holds the alias. ModelError where the registry does not answer."""
    from mlflow.exceptions import MlflowException

    try:
        return by_alias(client, name, alias)
    except MlflowException as error:
        raise ModelError(f"the registry does not answer ({error.error_code}); check MLFLOW_TRACKING_URI") from None


def aliases_of(client: Any, version: Any) -> tuple[str, ...]:
    """The aliases that the version holds, sorted."""
    held = client.get_registered_model(version.name).aliases
    return tuple(sorted(alias for alias, number in held.items() if str(number) == str(version.version)))


def record_of(model: str, uri: str) -> BundleRecord:
    """The record of `models:/NAME@alias`, `models:/NAME/VERSION` or a run's version, without its weights."""
    client = mlflow_client(uri)
    return version_record(client, find_version(client, model), model)


def version_record(client: Any, version: Any, asked: str) -> BundleRecord:
    """The record of the version's bundle, without its weights; ModelError where it cannot be had."""
    source, local = _located(client, version)
    if local is not None:
        return read_record(local)
    with tempfile.TemporaryDirectory(prefix="rapt-record-") as scratch:
        return read_record(_download(client, f"{source}/run.json", Path(scratch), asked).parent)


def _fetch_bundle(client: Any, version: Any, asked: str, scratch: Path | None) -> Path:
    """The version's bundle as a local folder: in place where the artifact store is local, else a download."""
    source, local = _located(client, version)
    return local or _download(client, source, scratch or Path(tempfile.mkdtemp(prefix="rapt-bundle-")), asked)


def _located(client: Any, version: Any) -> tuple[str, Path | None]:
    """Where the registry says that the bundle lies, and its folder where the artifact store is one of this machine."""
    source = str(client.get_model_version_download_uri(version.name, version.version))
    run = client.get_run(version.run_id)
    local = Path(run.info.artifact_uri.removeprefix("file://")) / "bundle"
    return source, local if source.startswith("runs:/") and local.is_dir() else None


def _download(client: Any, source: str, folder: Path, asked: str) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        return Path(download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=client.tracking_uri))
    except (MlflowException, OSError) as error:
        raise ModelError(f"{asked}: its bundle cannot be fetched ({type(error).__name__}); check the artifact store") from None


def _by_number(client: Any, name: str, number: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, number) if number.isdecimal() else None
    except MlflowException:
        return None
