"""What is told to MLflow, as entries of a spool: one JSON line each. Sending an entry twice leaves the same in MLflow."""

import json
from typing import Literal

from data_shards.errors import Stopped
from data_shards.schema import Stored

__all__ = [
    "Artifact",
    "DatasetInput",
    "Ending",
    "Entry",
    "Metrics",
    "Params",
    "Register",
    "RunOpened",
    "Status",
    "Tags",
    "ending_by",
    "parse_entry",
]

Ending = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended, in MLflow's words: KILLED is one that was stopped, and can go on."""


def ending_by(error: BaseException | None) -> Ending:
    """How a run ended that has no bundle: as stopped where a person or a node asked, as failed by any other error."""
    return "KILLED" if error is None or isinstance(error, Stopped) or not isinstance(error, Exception) else "FAILED"


class RunOpened(Stored):
    """The first entry: the run's name in MLflow, by which it is opened again, and the name of the run it is below, or "".

    makes_it: whether the run is made where it is missing; who does not make it waits for who does. at_ms: its start.
    """

    kind: Literal["run"] = "run"
    name: str
    parent: str = ""
    makes_it: bool = True
    at_ms: int


class Params(Stored):
    kind: Literal["params"] = "params"
    values: dict[str, str]


class Tags(Stored):
    kind: Literal["tags"] = "tags"
    values: dict[str, str]


class Metrics(Stored):
    """Figures of one step; at_ms: wall-clock time in milliseconds since 1970.

    MLflow's key of a value is (name, step, time, value), so the time is of the entry and not of its sending: a second
    sending is the same row.
    """

    kind: Literal["metrics"] = "metrics"
    at_ms: int
    step: int
    values: dict[str, float]


class DatasetInput(Stored):
    """The data of a run. digest: the manifest's sha256; profile: what MLflow's page shows of the data, as JSON."""

    kind: Literal["dataset"] = "dataset"
    name: str
    digest: str
    source: str
    profile: str


class Artifact(Stored):
    """A file, or all files of a folder, into the artifact folder `to`. path: relative to the run's folder, or absolute."""

    kind: Literal["artifact"] = "artifact"
    path: str
    to: str = ""


class Register(Stored):
    """The bundle becomes a version of the registered model; path as an artifact's."""

    kind: Literal["register"] = "register"
    path: str


class Status(Stored):
    kind: Literal["status"] = "status"
    status: Literal["RUNNING"] | Ending
    at_ms: int


Entry = RunOpened | Params | Tags | Metrics | DatasetInput | Artifact | Register | Status

_KINDS: dict[str, type[Entry]] = {
    "run": RunOpened,
    "params": Params,
    "tags": Tags,
    "metrics": Metrics,
    "dataset": DatasetInput,
    "artifact": Artifact,
    "register": Register,
    "status": Status,
}


def parse_entry(line: bytes) -> Entry | None:
    """One line of a spool; None where it is damaged."""
    try:
        return _KINDS[json.loads(line)["kind"]].model_validate_json(line)
    except (ValueError, KeyError, TypeError):  # pydantic's ValidationError is a ValueError
        return None
