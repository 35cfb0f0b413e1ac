"""The audit log: one JSON line a request, with nothing in it of the person who asked or of what was sent.

There is no address, no file name, no query and no score in it: the key's id says who is answerable, and the template of the
route (`/v1/jobs/{id}`) what was asked for. What it keeps is bounded: the oldest file goes when the newest is full.
"""

import fcntl
import os
from datetime import datetime
from pathlib import Path

from data_shards.errors import ConfigError
from data_shards.schema import Stored

__all__ = ["AUDIT_FILE", "AuditLine", "AuditLog"]

AUDIT_FILE = "audit.jsonl"


class AuditLine(Stored):
    """One request. status: HTTP's, or 499 where the client left before its answer; refusal: the reason's short name, None
    where there was none; bytes_in and bytes_out: of the bodies."""

    time: datetime
    request_id: str
    key_id: str | None
    method: str
    route: str
    status: int
    bytes_in: int
    bytes_out: int
    ms: float
    refusal: str | None = None


class AuditLog:
    """Appends to FOLDER/audit.jsonl, and moves it to audit.jsonl.1, .2, ... when it is full; several processes may.

    max_bytes: of one file; num_files: the one that is written to and the older ones. ConfigError where it cannot be written.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 16 << 20, num_files: int = 5) -> None:
        self._path = folder / AUDIT_FILE
        self._max_bytes, self._num_files = max_bytes, num_files
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = self._open()
        except OSError as error:
            raise ConfigError(f"{self._path}: the audit log cannot be written ({error.strerror}); name another folder") from None

    def write(self, line: AuditLine) -> None:
        """Append the line in one write, so that no two processes' lines mix. OSError where it cannot be written."""
        self._follow()
        if os.fstat(self._file).st_size >= self._max_bytes:
            self._rotate()
        os.write(self._file, line.to_bytes())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _follow(self) -> None:
        """Go on in the newest file where another process, or a person, has moved this one away."""
        try:
            is_newest = os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except FileNotFoundError:
            is_newest = False
        if not is_newest:
            newest = self._open()
            os.close(self._file)
            self._file = newest

    def _rotate(self) -> None:
        full = self._file
        fcntl.flock(full, fcntl.LOCK_EX)  # let go of with the file
        if os.path.samestat(os.fstat(full), os.stat(self._path)):  # no other process was quicker
            for number in range(self._num_files - 1, 0, -1):
                older = self._path if number == 1 else self._numbered(number - 1)
                if older.exists():
                    os.replace(older, self._numbered(number))
            if self._num_files == 1:
                self._path.unlink()
        self._file = self._open()
        os.close(full)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{AUDIT_FILE}.{number}")
