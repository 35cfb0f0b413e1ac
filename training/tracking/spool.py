"""A spool: what is to be told to MLflow, on the run's own disk before it is told.

FOLDER/spool.jsonl     entries, appended in order, never changed
FOLDER/position.json   how far they are sent, and to which run of which server
FOLDER/lock            held by who sends them

An entry is written with one call to the system, so a kill loses none that was told. It is fsynced before it is sent
(MLflow never knows more than the disk) and where the writer says so (checkpoints, epochs, the end): a power cut takes
at most the steps since, and a run that goes on from its last checkpoint tells those again.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from data_shards.atomic import write_whole
from data_shards.schema import Stored
from training.tracking.entries import Entry, Metrics, parse_entry

__all__ = ["Position", "Spool", "read_entries", "read_lines", "read_position", "save_position", "waiting_records"]

_NAME = "spool.jsonl"
_READ_BYTES = 1 << 18
_LONGEST_LINE = 1 << 24
_KEPT_ON_A_FULL_DISK = 100_000


class Position(Stored):
    """How far a spool is sent. offset: bytes; num_sent: lines. version: the registered one, "" while there is none.

    num_refused: entries that the server does not take, passed over.
    """

    uri: str = ""
    mlflow_run_id: str = ""
    offset: int = 0
    num_sent: int = 0
    num_refused: int = 0
    version: str = ""


class Spool:
    """Appends entries. A step's figures are told once: a run that goes back to a checkpoint repeats steps that are there.

    One thread may append while others read the file. OSError never leaves `append`: what a full disk does not take is
    kept in memory and written with the next entry.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.num_entries = 0
        self.last_steps: dict[str, int] = {}
        self.last_status = ""
        self._unwritten: list[bytes] = []
        path = folder / _NAME
        for line in read_lines(path):
            self.num_entries += 1
            self._remember(line)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._is_torn = _ends_torn(path)

    def append(self, entry: Entry, *, durable: bool = False) -> None:
        """Write the entry; durable: fsynced too. Metrics of steps that are there are left out."""
        if isinstance(entry, Metrics):
            new = {name: value for name, value in entry.values.items() if entry.step > self.last_steps.get(name, -1)}
            if not new:
                return
            entry = entry.model_copy(update={"values": new})
            self.last_steps |= dict.fromkeys(new, entry.step)
        self._unwritten.append(entry.to_bytes())
        del self._unwritten[_KEPT_ON_A_FULL_DISK:]
        try:
            self._write()
            if durable:
                os.fsync(self._file)
        except OSError:
            pass  # a full disk ends other things, and says so there; the next entry tries again

    def close(self) -> None:
        """Write and fsync what is left."""
        try:
            self._write()
            os.fsync(self._file)
        except OSError:
            pass
        os.close(self._file)

    def _write(self) -> None:
        while self._unwritten:
            # half a line of a process that was killed, or of a disk that was full, ends here and is passed over
            line = (b"\n" if self._is_torn else b"") + self._unwritten[0]
            self._is_torn = True
            if os.write(self._file, line) < len(line):
                raise OSError("written in part")
            self._is_torn = False
            self._unwritten.pop(0)
            self.num_entries += 1

    def _remember(self, line: bytes) -> None:
        try:
            content = json.loads(line)
            if content["kind"] == "metrics":
                for name in content["values"]:
                    self.last_steps[name] = max(self.last_steps.get(name, -1), int(content["step"]))
            elif content["kind"] == "status":
                self.last_status = str(content["status"])
        except (ValueError, KeyError, TypeError):
            pass  # damaged: passed over when it is sent, too


def read_lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """The whole lines from `offset` on; what is still being written is left for the next look."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                yield line


def read_entries(folder: Path, offset: int) -> list[tuple[Entry | None, int]]:
    """Some entries from `offset` on, each with the offset after it; None for a damaged line. Fsynced before they are read."""
    path = folder / _NAME
    if not path.exists():
        return []
    with path.open("rb") as file:
        os.fsync(file.fileno())
        file.seek(offset)
        content = file.read(_READ_BYTES)
        while content and b"\n" not in content and len(content) < _LONGEST_LINE and (more := file.read(_READ_BYTES)):
            content += more
    found = []
    for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
        offset += len(line)
        found.append((parse_entry(line), offset))
    return found


def read_position(folder: Path) -> Position:
    """How far the spool of `folder` is sent; from its start where nobody knows: sending twice does no harm."""
    path = folder / "position.json"
    try:
        position = Position.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return Position()
    # a power cut may leave a spool shorter than it was
    size = (folder / _NAME).stat().st_size if (folder / _NAME).exists() else 0
    return position if position.offset <= size else Position(uri=position.uri)


def save_position(folder: Path, position: Position) -> None:
    write_whole(folder / "position.json", position.to_bytes())


def waiting_records(folder: Path) -> int:
    """How many entries of the spool in `folder` are not sent yet."""
    return sum(1 for _ in read_lines(folder / _NAME, read_position(folder).offset))


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"
