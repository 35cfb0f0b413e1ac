"""The one door to an MLflow server: its client, its experiment, a run by its name, and what its errors mean."""

import contextlib
import fcntl
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data_shards.errors import ConfigError, ModelError

__all__ = [
    "EXPERIMENT",
    "LONGEST_PARAM",
    "check_tracking_uri",
    "ended",
    "experiment_id",
    "find_run",
    "first_line",
    "is_refusal",
    "is_unfit",
    "load_mlflow",
    "mlflow_client",
    "new_client",
    "shown_uri",
]

EXPERIMENT = "engagement"
LONGEST_PARAM = 500
_IMPORTING, _OPENING = threading.Lock(), threading.Lock()
_DATABASES = ("postgresql", "mysql", "mssql")
# a person has to mend these: asking again gives the same answer (mlflow/protos/databricks.proto, ErrorCode)
_REFUSALS = (
    "CUSTOMER_UNAUTHORIZED",
    "ENDPOINT_NOT_FOUND",
    "INVALID_STATE",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
)
_UNFIT = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST", "RESOURCE_LIMIT_EXCEEDED")
_ASK_AGAIN_STATUS = (408, 425, 429)


def shown_uri(uri: str) -> str:
    """The address as it may be printed and stored: without a name and a password in it."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def check_tracking_uri(uri: str) -> None:
    """ConfigError where no server can ever answer there: an unknown scheme, no host, a file that is no database."""
    scheme, _, rest = uri.partition("://")
    try:
        is_address = bool(urlsplit(uri).hostname) and urlsplit(uri).port != 0
    except ValueError:
        is_address = False
    if scheme in ("http", "https") or scheme.split("+")[0] in _DATABASES:
        if not is_address:
            raise ConfigError(f"MLFLOW_TRACKING_URI {shown_uri(uri)}: names no host; write http://HOST:PORT, or unset it")
    elif scheme == "sqlite" and len(rest) > 1:
        try:
            _check_sqlite(Path(uri.removeprefix("sqlite:///")))
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"MLFLOW_TRACKING_URI {uri}: no database ({error}); move the file away, or name another") from None
    else:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI {shown_uri(uri)}: no address of an MLflow server; write http://HOST:PORT or "
            "sqlite:////FOLDER/mlflow.db, or unset it"
        )


def _check_sqlite(path: Path) -> None:
    """Open the database file as such: a damaged one is told at once, not after mlflow's retries."""
    if path.exists():
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as database:
            database.execute("pragma schema_version")


def new_client(uri: str) -> Any:
    """An MlflowClient; nothing is asked of the server yet, but an embedded database is made where it is missing."""
    import logging

    # the embedded database announces each of its migrations; mlflow sets alembic's level while it migrates
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a service for personal data sends nothing home
    # mlflow asks again after a lost answer, also to make a run, which would make two: who calls asks again, by name
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each few kB
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    load_mlflow()
    from mlflow import MlflowClient

    with _OPENING:
        if uri.startswith("sqlite:///"):
            _make_sqlite(Path(uri.removeprefix("sqlite:///")))
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_sqlite(path: Path) -> None:
    """Make the embedded database where it is missing, beside its place and then into it.

    MLflow makes it by migrations that neither a second process nor a kill between them leaves whole, and that never go on
    afterwards; a new run has a sender in each of its workers' processes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_sqlite(path)
    if path.exists():
        return
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    with (path.parent / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            engine = create_sqlalchemy_engine(f"sqlite:///{made}")
            _initialize_tables(engine)
            engine.dispose()
            made.replace(path)


def load_mlflow() -> None:
    """Import all of mlflow that any thread here uses, in one thread at a time.

    Its modules import each other in circles: two threads that enter such a circle from two sides get halves of modules,
    and the import fails for good in both.
    """
    with _IMPORTING:
        import mlflow
        import mlflow.artifacts
        import mlflow.entities
        import mlflow.models
        import mlflow.system_metrics.metrics.cpu_monitor
        import mlflow.system_metrics.metrics.disk_monitor
        import mlflow.system_metrics.metrics.gpu_monitor
        import mlflow.system_metrics.metrics.network_monitor
        import mlflow.types.schema  # noqa: F401


def mlflow_client(uri: str) -> Any:
    """A client of a server, or embedded database, that has answered. ModelError where it does not."""
    try:
        client = new_client(uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # mlflow, sqlalchemy, requests and drivers raise errors of many kinds
        where = shown_uri(uri)
        raise ModelError(f"MLflow at {where}: does not answer ({first_line(error)}); check MLFLOW_TRACKING_URI") from None
    return client


def experiment_id(client: Any, uri: str) -> str:
    """The id of the one experiment all runs are in, made where it is missing."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    # a server chooses its own artifact store; beside an embedded database it is a folder
    artifacts = str(Path(uri.removeprefix("sqlite:///")).parent / "artifacts") if uri.startswith("sqlite:///") else None
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
    except Exception:
        found = client.get_experiment_by_name(EXPERIMENT)  # another sender, a node's, made it in the meantime
        if found is None:
            raise
        return str(found.experiment_id)


def find_run(client: Any, experiment: str, name: str) -> Any | None:
    """The run of that name."""
    quoted = name.replace("'", "")
    found = client.search_runs([experiment], filter_string=f"attributes.run_name = '{quoted}'", max_results=1)
    return found[0] if found else None


@contextlib.contextmanager
def ended(client: Any, mlflow_run_id: str) -> Iterator[str]:
    """Yields the id of a run and ends the run after the block: as finished, or as failed where the block raises."""
    status = "FAILED"
    try:
        yield mlflow_run_id
        status = "FINISHED"
    finally:
        client.set_terminated(mlflow_run_id, status)


def is_refusal(error: Exception) -> bool:
    """Whether the server answered that it will not: no right, no such experiment, a run that was deleted."""
    code = getattr(error, "error_code", "")
    return code in _REFUSALS or (not code and 400 <= _status(error) < 500 and _status(error) not in _ASK_AGAIN_STATUS)


def is_unfit(error: Exception) -> bool:
    """Whether the server, or this machine, cannot take this one entry: a name it does not allow, a file that is gone."""
    return getattr(error, "error_code", "") in _UNFIT or isinstance(error, FileNotFoundError | ModelError)


def first_line(error: BaseException) -> str:
    """An error's first line, short, without what is secret in an address."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"//[^/@\s]+@", "//", line)[:160]


def _status(error: Exception) -> int:
    """The HTTP status of an artifact store's answer, 0 where there is none: requests and boto3 have places of their own."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return int(getattr(answer, "status_code", 0) or 0)
