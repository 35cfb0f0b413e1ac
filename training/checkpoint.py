"""Checkpoints below a folder or an S3 prefix: each counts only when it is whole.

step-00000120/state.pt           model, optimiser, loss, random state (read with weights_only)
step-00000120/checkpoint.json    the record: step, position, data digest, and sha256 and size of every file that it needs
best-epoch-000003.safetensors    the best epoch's weights, which the checkpoints that speak of them need too

Every file appears whole or not at all, the record last. A checkpoint is good when its record agrees with its own checksum
and every file with the record's: a writer may be killed anywhere, and a bit may flip anywhere, without a torn one being taken.
Order is by step. No clock and no file time is looked at.

Kept are the newest `kept` checkpoints and the best weights that they name; the rest is removed after each that was written,
so the only good one never is. On a full disk all but the newest good one are given up before the next is tried once more.
What killed writers left, and what is damaged, is removed when a run starts. What cannot be read for another reason is neither:
a disk or a store that fails ends the start, and beside a record of another form nothing is removed.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from pydantic import Field
from safetensors.torch import load, save
from torch import Tensor

from data_shards.atomic import is_partial, whole_file
from data_shards.errors import DataError, ModelError, ShardError, StorageError
from data_shards.schema import Stored
from data_shards.storage.store import Store, fetched

__all__ = ["NOTHING_FOUND", "CheckpointRecord", "Checkpoints", "FileRecord", "Found", "folder_name", "read_state", "read_weights"]

_OURS = re.compile(r"step-(\d{8,})/.+|best-epoch-\d{6,}\.safetensors")


class FileRecord(Stored):
    """A file as it was written."""

    sha256: str
    size_bytes: int


class CheckpointRecord(Stored):
    """What stands in checkpoint.json. position: draws consumed globally; best_metric is None before the first validation.

    run: the RunConfig as JSON, for it is not gone on with as another. files: all that the checkpoint needs, by their names
    below the store; record_sha256: of this record without it.
    """

    step: int
    position: int
    data_digest: str
    run: dict[str, Any]
    best_epoch: int
    best_metric: float | None
    loss_sum: float
    loss_count: int
    files: dict[str, FileRecord] = Field(default_factory=dict)
    record_sha256: str = ""

    def sealed(self, files: dict[str, FileRecord]) -> "CheckpointRecord":
        """The record of these files, with its own checksum."""
        bare = self.model_copy(update={"files": files, "record_sha256": ""})
        return bare.model_copy(update={"record_sha256": hashlib.sha256(bare.to_bytes()).hexdigest()})


class Found(NamedTuple):
    """The last good checkpoint: its record, and its files' content, which agreed with the record. All None where there is none.

    best is None before the first epoch has ended. skipped: newer checkpoints that are damaged or half written.
    """

    record: CheckpointRecord | None
    state: bytes | None
    best: bytes | None
    skipped: tuple[str, ...]


NOTHING_FOUND = Found(None, None, None, ())


class Checkpoints:
    """The checkpoints of one run at `store`, as its first worker sees them. One thread at a time.

    kept: how many of them. scratch: a folder of this machine for files on their way to a bucket.
    """

    def __init__(self, store: Store, *, kept: int, scratch: Path) -> None:
        self.store, self._kept, self._scratch = store, kept, scratch
        self._records: dict[int, CheckpointRecord] = {}
        self._not_understood: list[str] = []

    def find(self) -> Found:
        """The last good checkpoint.

        StorageError where the store, or the disk, does not answer: then nobody knows which is the last. ModelError where
        there are only some of another version of Rapt: a run that started afresh would write over them.
        """
        sizes = self.store.names()
        steps = sorted({int(match[1]) for name in sizes if (match := _OURS.fullmatch(name)) and match[1]}, reverse=True)
        good, content, skipped = None, {}, []
        for step in steps:
            try:
                record = self._read_record(step)
                if good is None:  # what is older was found good when it was the last
                    content = {name: self._read_file(name, file, sizes) for name, file in record.files.items()}
                    good = record
                self._records[step] = record
            except (FileNotFoundError, ShardError):
                skipped += [folder_name(step)] if good is None else []
            except OSError as error:
                raise StorageError(
                    f"{self.store.uri}/{folder_name(step)}: cannot be read ({error.strerror or type(error).__name__}); look at "
                    "the disk, or move the folder away to go on from an earlier checkpoint"
                ) from None
        if good is None and self._not_understood:
            raise ModelError(
                f"{self.store.uri}/{self._not_understood[0]}: a checkpoint of another version of Rapt; resume the run with that "
                "version, or start a new run"
            )
        if good is None:
            return NOTHING_FOUND._replace(skipped=tuple(skipped))
        best = content[_best_name(good.best_epoch)] if good.best_epoch else None
        return Found(good, content[_state_name(good.step)], best, tuple(skipped))

    @property
    def last_step(self) -> int:
        """Of the newest good checkpoint, 0 where there is none."""
        return max(self._records, default=0)

    def clean(self) -> None:
        """Remove what `find` passed over, and what killed writers left; what cannot be removed stays, and never counts."""
        needed = {name for record in self._records.values() for name in _names_of(record)}
        with suppress(OSError, DataError):
            for name in () if self._not_understood else self.store.names():
                if _OURS.fullmatch(name) and name not in needed:
                    self._delete(name)
        here = self.store.local_path("any")
        if here is not None:
            for folder in (here.parent, *here.parent.glob("step-*")):
                for path in folder.glob(".*"):
                    if is_partial(path.name):
                        path.unlink(missing_ok=True)
                with suppress(OSError):  # those that still hold something
                    folder.rmdir()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def save(self, record: CheckpointRecord, state: dict[str, Any], best: dict[str, Tensor]) -> None:
        """Write a checkpoint, then remove those that are not kept. best: the weights of record.best_epoch, where it is not 0.

        OSError or DataError where it cannot be written: nothing counts of it, and every good one is still there.
        """
        try:
            self._put(record, state, best)
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT) and self.store.local_path("any") is not None
            if not is_full or not self._drop(sorted(self._records)[:-1], record):  # a bucket is not what is full: scratch is
                raise
            self._put(record, state, best)
        self._drop(sorted(self._records)[: -self._kept], record)

    def _put(self, record: CheckpointRecord, state: dict[str, Any], best: dict[str, Tensor]) -> None:
        files = {}
        if record.best_epoch:
            name = _best_name(record.best_epoch)
            there = next((known.files[name] for known in self._records.values() if name in known.files), None)
            files[name] = there or self._put_file(name, lambda file: file.write(save(_contiguous(best))))
        name = _state_name(record.step)
        files[name] = self._put_file(name, lambda file: torch.save(state, file))
        whole = record.sealed(files)
        self._put_file(_record_name(record.step), lambda file: file.write(whole.to_bytes()))
        self._records[record.step] = whole

    def _put_file(self, name: str, write: Callable[[Any], object]) -> FileRecord:
        with self._outgoing(name) as path:
            with path.open("wb") as file:
                hashing = _HashingFile(file)
                try:
                    write(hashing)
                except RuntimeError:  # torch.save's, of whatever happens below it
                    if hashing.error is not None:
                        raise hashing.error from None
                    raise
            return FileRecord(sha256=hashing.digest.hexdigest(), size_bytes=hashing.size_bytes)

    @contextmanager
    def _outgoing(self, name: str) -> Iterator[Path]:
        """A path to write to, whose file is the store's `name` when the block ends; nothing is left when it raises."""
        here = self.store.local_path(name)
        if here is not None:
            try:
                with whole_file(here) as beside:
                    yield beside
            except BaseException:
                with suppress(OSError):  # a step's folder in which nothing came to lie
                    here.parent.rmdir()
                raise
            return
        path = self._scratch / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield path
            self.store.put(path, name)
        finally:
            path.unlink(missing_ok=True)

    def _drop(self, steps: Sequence[int], current: CheckpointRecord) -> bool:
        """Remove checkpoints, records first, and best weights that no other names; whether there were any.

        One that cannot be removed is tried again with the next.
        """
        dropped = [self._records[step] for step in steps]
        try:
            for record in dropped:
                self._delete(_record_name(record.step))
                self._delete(_state_name(record.step))
                del self._records[record.step]
            needed = {_best_name(current.best_epoch), *(name for kept in self._records.values() for name in kept.files)}
            for name in {name for record in dropped for name in record.files} - needed:
                self._delete(name)
        except (OSError, DataError):
            return False
        return bool(dropped)

    def _delete(self, name: str) -> None:
        self.store.delete(name)
        here = self.store.local_path(name)
        if here is not None and "/" in name:
            with suppress(OSError):
                here.parent.rmdir()

    def _read_record(self, step: int) -> CheckpointRecord:
        """ShardError where the record is not as it was written."""
        name = _record_name(step)
        content = self.store.read(name)
        if _is_of_another_form(content):
            self._not_understood.append(folder_name(step))
        record = CheckpointRecord.from_bytes(content, origin=name)
        if (record.step, content) != (step, record.sealed(record.files).to_bytes()):
            raise ShardError(f"{name}: not as it was written; resume from an earlier checkpoint")
        return record

    def _read_file(self, name: str, file: FileRecord, sizes: dict[str, int]) -> bytes:
        if sizes.get(name) != file.size_bytes:
            raise ShardError(f"{name}: not of the size that its record says; resume from an earlier checkpoint")
        with fetched(self.store, name, sha256=file.sha256) as path:
            return path.read_bytes()


class _HashingFile:
    """A file that is written once, from front to back. error: why it could not be, which torch.save does not pass on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            self._file.write(content)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(content)
        self.size_bytes += len(content)
        return len(content)

    def flush(self) -> None:
        self._file.flush()


def read_state(content: bytes) -> dict[str, Any]:
    """The state in a state.pt, on the CPU; nothing is unpickled beyond tensors and plain values."""
    state: dict[str, Any] = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    return state


def read_weights(content: bytes) -> dict[str, Tensor]:
    """The weights of a best epoch."""
    return load(content)


def _contiguous(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors wants them: no two in one memory, no strides."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}


def folder_name(step: int) -> str:
    """A checkpoint's folder below the store."""
    return f"step-{step:08d}"


def _state_name(step: int) -> str:
    return f"{folder_name(step)}/state.pt"


def _record_name(step: int) -> str:
    return f"{folder_name(step)}/checkpoint.json"


def _best_name(epoch: int) -> str:
    return f"best-epoch-{epoch:06d}.safetensors"


def _is_of_another_form(content: bytes) -> bool:
    """Whether a record has other fields than ours: another version's, or one whose field's name a flipped bit changed."""
    try:
        fields = json.loads(content)
    except ValueError:
        return False
    return isinstance(fields, dict) and fields.keys() != CheckpointRecord.model_fields.keys()


def _names_of(record: CheckpointRecord) -> set[str]:
    return {_record_name(record.step), *record.files}
