"""A run's bundle as a version of the registered model, once, however often it is asked for."""

from pathlib import Path
from typing import Any

from training.bundle import read_record

__all__ = ["MODEL_NAME", "by_alias", "register", "version_of_run"]

MODEL_NAME = "engagement"


def register(client: Any, mlflow_run_id: str, bundle: Path) -> str:
    """Register the run's bundle as the next version of MODEL_NAME and return the version's number.

    The first version ever becomes the champion, later ones the challenger until `promote` moves them. Serving follows the
    aliases, so a model that reads no video, or names an emotion, gets none. A run that has a version keeps it.
    """
    record = read_record(bundle)
    version = version_of_run(client, record.run_id)
    is_new = version is None
    if version is None:
        _ensure_model(client)
        tags = {"run": record.run_id, "data_digest": record.data_digest, "simulated": str(record.simulated).lower()}
        version = client.create_model_version(
            MODEL_NAME,
            source=f"runs:/{mlflow_run_id}/bundle",
            run_id=mlflow_run_id,
            tags=tags,
            description=record.notice or record.dataset,
            await_creation_for=0,  # it waits, and logs that it does, for what only other registries do later
        )
    if record.infers_emotion or not record.reads_video:
        return str(version.version)
    if by_alias(client, MODEL_NAME, "champion") is None:  # also where a kill came between the version and its alias
        client.set_registered_model_alias(MODEL_NAME, "champion", version.version)
    elif is_new:
        client.set_registered_model_alias(MODEL_NAME, "challenger", version.version)
    return str(version.version)


def version_of_run(client: Any, run_id: str) -> Any | None:
    """The version that was registered of the run of that name."""
    quoted = run_id.replace("'", "")
    found = client.search_model_versions(f"name='{MODEL_NAME}' and tags.run='{quoted}'")
    return found[0] if found else None


def by_alias(client: Any, name: str, alias: str) -> Any | None:
    """The version that holds the alias."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _ensure_model(client: Any) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(MODEL_NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(MODEL_NAME, description="Engagement level of a webcam clip, by Rapt")
