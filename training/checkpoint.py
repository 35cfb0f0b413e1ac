"""Checkpoints that are whole or not there: written beside, fsynced, renamed, checksummed; the last good one is found.

step-00000120/state.pt          model, optimiser, random state (read with weights_only)
step-00000120/checkpoint.json   step, position, data digest, the best epoch so far, state.pt's sha256
"""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from data_shards.atomic import fsync_folder, write_whole
from data_shards.errors import ModelError, ShardError
from data_shards.schema import Stored

__all__ = ["CheckpointRecord", "all_records", "latest_checkpoint", "load_checkpoint", "prune_checkpoints", "save_checkpoint"]


class CheckpointRecord(Stored):
    """What stands in checkpoint.json. position: draws consumed globally; best_metric is None before the first validation."""

    step: int
    position: int
    data_digest: str
    best_epoch: int
    best_metric: float | None
    loss_sum: float
    loss_count: int
    state_sha256: str


def save_checkpoint(folder: Path, record: CheckpointRecord, state: dict[str, Any]) -> Path:
    """Write `state` and `record` (its state_sha256 is filled in) below `folder`; returns the checkpoint's own folder."""
    final = folder / f"step-{record.step:08d}"
    beside = folder / f".{final.name}.partial-{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with (beside / "state.pt").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        whole = record.model_copy(update={"state_sha256": _sha256(beside / "state.pt")})
        write_whole(beside / "checkpoint.json", whole.to_bytes())
        shutil.rmtree(final, ignore_errors=True)
        os.rename(beside, final)
    except (OSError, RuntimeError) as error:  # torch.save tells a full disk as a RuntimeError
        shutil.rmtree(beside, ignore_errors=True)
        raise ModelError(
            f"{final}: the checkpoint cannot be written ({str(error)[:120]}); make room, then resume the run"
        ) from None
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    fsync_folder(folder)
    return final


def latest_checkpoint(folder: Path) -> tuple[Path | None, CheckpointRecord | None, tuple[str, ...]]:
    """(path, record, damaged): the newest whole checkpoint, or None, and the names of newer ones that are damaged."""
    damaged: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            record = CheckpointRecord.from_bytes((path / "checkpoint.json").read_bytes(), origin=path)
            if _sha256(path / "state.pt") == record.state_sha256:
                return path, record, tuple(damaged)
        except (OSError, ShardError):
            pass
        damaged.append(path.name)
    return None, None, tuple(damaged)


def all_records(folder: Path) -> list[CheckpointRecord]:
    """The records of the checkpoints that can be read."""
    records = []
    for path in sorted(folder.glob("step-*/checkpoint.json")):
        with contextlib.suppress(OSError, ShardError):
            records.append(CheckpointRecord.from_bytes(path.read_bytes(), origin=path))
    return records


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state below a checkpoint's folder, on the CPU; nothing is unpickled beyond tensors and plain values."""
    state: dict[str, Any] = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    return state


def prune_checkpoints(folder: Path, *, kept: int) -> None:
    """Remove all but the newest `kept` checkpoints, and what a killed writer left."""
    for path in sorted(folder.glob("step-*"))[:-kept]:
        shutil.rmtree(path)
    for path in folder.glob(".step-*.partial-*"):
        shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
