"""What runs left on disk, into MLflow: the rest of their records, and their bundles into the registry."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import ConfigError, ModelError
from training.tracking.client import first_line, mlflow_client, shown_uri
from training.tracking.delivery import Delivery, RefusedError, RunMissingError
from training.tracking.sender import lock_spool
from training.tracking.spool import read_position, waiting_records
from training.tracking.told_run import SPOOL

__all__ = ["Synced", "spools_of", "sync_run"]

_LOCK_WAIT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Synced:
    """num_sent: records that were sent now; num_refused: of all, those that MLflow does not take; version: "" for none."""

    num_sent: int
    num_refused: int
    version: str


def spools_of(run_folder: Path) -> Iterator[Path]:
    """The folders of a run's spools: its own, its nodes', then those of its stages, which are below it in MLflow too."""
    for folder in (run_folder, *sorted(path.parent for path in run_folder.glob(f"*/{SPOOL}"))):
        if (folder / SPOOL / "spool.jsonl").exists():
            yield folder / SPOOL
            yield from sorted(path.parent for path in (folder / SPOOL).glob("*/spool.jsonl"))


def sync_run(run_folder: Path, uri: str) -> Synced:
    """Send what waits in the run's spools, and register its bundle where that waits.

    ConfigError where the run's records go to another server, or are being sent; ModelError where this one does not
    answer, or refuses.
    """
    spools = list(spools_of(run_folder))
    if not spools:
        raise ModelError(f"{run_folder}: no record of a run lies there; name one of `rapt runs`, or a run's folder")
    for folder in spools:
        before = read_position(folder).uri
        if before not in ("", shown_uri(uri)):
            raise ConfigError(
                f"run {run_folder.name}: its records go to MLflow at {before}, not at {shown_uri(uri)}; set MLFLOW_TRACKING_URI"
            )
    if any(waiting_records(folder) for folder in spools):
        mlflow_client(uri)
    results = [_sync_spool(folder, uri, run_folder.name) for folder in spools]
    return Synced(
        num_sent=sum(found.num_sent for found in results),
        num_refused=sum(found.num_refused for found in results),
        version=max(found.version for found in results),
    )


def _sync_spool(folder: Path, uri: str, run_name: str) -> Synced:
    until_s = time.monotonic() + _LOCK_WAIT_S
    while time.monotonic() < until_s:
        with lock_spool(folder) as is_ours:
            if is_ours:
                return _send_rest(folder, uri, run_name)
        time.sleep(0.1)
    raise ConfigError(f"run {run_name}: its records are being sent by the run itself, which goes on; wait for its end")


def _send_rest(folder: Path, uri: str, run_name: str) -> Synced:
    delivery = Delivery(folder, uri)
    before = delivery.position.num_sent
    try:
        while delivery.send_some():
            pass
    except RefusedError as refusal:
        raise ModelError(f"run {run_name}: {refusal}; {waiting_records(folder):,} records wait") from None
    except RunMissingError as missing:
        raise ModelError(f"run {run_name}: {missing}; start a new run") from None
    except Exception as error:  # of many kinds, as in mlflow_client
        waiting = waiting_records(folder)
        raise ModelError(
            f"MLflow at {shown_uri(uri)}: does not answer ({first_line(error)}); {waiting:,} records of run {run_name} wait"
        ) from None
    position = delivery.position
    return Synced(num_sent=position.num_sent - before, num_refused=position.num_refused, version=position.version)
