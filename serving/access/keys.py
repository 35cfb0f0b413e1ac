"""API keys: who may ask for what, until when and how much, in one file that holds no key."""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from data_shards.atomic import whole_file
from data_shards.errors import ConfigError
from data_shards.schema import Stored, first_problem

__all__ = ["SCOPES", "KeyRecord", "KeyScope", "Keyring", "Keys", "create_key", "read_keys", "revoke_key", "utc_now"]

KeyScope = Literal["score", "jobs", "metrics"]
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
_ID_BYTES = 6
_SECRET_BYTES = 32
_KEY = re.compile(r"rapt_([0-9a-f]{12})_([0-9a-f]{64})", flags=re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", flags=re.ASCII)
_NOBODY = hashlib.sha256(secrets.token_bytes(_SECRET_BYTES)).hexdigest()


class KeyRecord(Stored):
    """One key, without its secret.

    secret_sha256: the digest of the secret's hexadecimal text. [choice] A plain SHA-256: the secret is 256 random bits, so
    there is no dictionary to try, and a slow hash would only make each request slow. Times are ISO 8601 in UTC.
    rate_per_minute, concurrency and max_mib bound what comes with the key: requests, requests at once, MiB of one body.
    """

    id: str
    name: str
    secret_sha256: str
    scopes: tuple[KeyScope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rate_per_minute: int = Field(default=60, ge=1)
    concurrency: int = Field(default=4, ge=1)
    max_mib: int = Field(default=100, ge=1)

    def state(self, now: datetime) -> Literal["valid", "revoked", "expired"]:
        """What the key is worth at `now`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "valid"


class Keys(Stored):
    """What the keys file holds: all keys ever made, the revoked ones too."""

    schema_version: Literal[1] = 1
    keys: tuple[KeyRecord, ...] = ()

    def find(self, text: str) -> KeyRecord | None:
        """The record of a whole key, whatever its state; None where the key is none of these.

        The same work is done for an id that exists and one that does not, so that the time tells nothing of either.
        """
        match = _KEY.fullmatch(text)
        key_id, secret = match.groups() if match else ("", "")
        record = next((key for key in self.keys if key.id == key_id), None)
        expected = record.secret_sha256 if record else _NOBODY
        is_right = hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), expected)
        return record if is_right else None


def read_keys(path: Path) -> Keys:
    """The keys of a file; none where there is no file. ConfigError where it cannot be read."""
    try:
        return Keys.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Keys()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); let the service's user read it") from None
    except ValidationError as error:
        raise ConfigError(f"{path}: no keys file ({first_problem(error)}); put its last copy back, or move it away") from None


def create_key(
    path: Path,
    name: str,
    *,
    now: datetime,
    scopes: Sequence[KeyScope] = ("score",),
    expires_at: datetime | None = None,
    rate_per_minute: int = 60,
    concurrency: int = 4,
    max_mib: int = 100,
) -> tuple[KeyRecord, str]:
    """(the record that is stored, the key itself, which is stored nowhere). ConfigError where a key in use has the name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}': no name for a key; take up to 64 letters, digits, dots, dashes and underscores")
    with _changing(path) as keys:
        if any(key.name == name and key.state(now) == "valid" for key in keys):
            raise ConfigError(
                f"a key named '{name}' is in use; revoke it first with `rapt keys revoke {name}`, or take another name"
            )
        secret = secrets.token_hex(_SECRET_BYTES)
        record = KeyRecord(
            id=secrets.token_hex(_ID_BYTES),
            name=name,
            secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            created_at=now,
            expires_at=expires_at,
            rate_per_minute=rate_per_minute,
            concurrency=concurrency,
            max_mib=max_mib,
        )
        keys.append(record)
    return record, f"rapt_{record.id}_{secret}"


def revoke_key(path: Path, name_or_id: str, *, now: datetime) -> KeyRecord:
    """Revoke a key by its id, or by the name of one that is not revoked. ConfigError where there is none."""
    with _changing(path) as keys:
        # the last made of a name: those before it have expired, or there would be no other
        for number, key in reversed(list(enumerate(keys))):
            if key.revoked_at is None and name_or_id in (key.id, key.name):
                keys[number] = key.model_copy(update={"revoked_at": now})
                return keys[number]
        known = ", ".join(key.name for key in keys if key.revoked_at is None) or "none"
        raise ConfigError(f"no key '{name_or_id}' that could be revoked; there are: {known}")


class Keyring:
    """The keys of a running service. The file is read again when it changes, so a key is revoked at once.

    required: say no to who has no key even where none was made. Once a key was seen they stay required while the process
    lives: a keys file that vanishes must not open the service.
    """

    def __init__(self, path: Path | None, *, required: bool) -> None:
        self._path, self._required = path, required
        self._keys = Keys()
        self._seen: tuple[int, int, int] | None = None
        self._refresh()

    @property
    def required(self) -> bool:
        """Whether a request needs a key now. ConfigError where the keys cannot be read."""
        self._refresh()
        return self._required

    def find(self, text: str) -> KeyRecord | None:
        """As `Keys.find`, in the file's present keys."""
        return self._keys.find(text)

    def admits(self, key_id: str, now: datetime) -> bool:
        """Whether the key of that id may ask now. ConfigError where the keys cannot be read."""
        self._refresh()
        return any(key.id == key_id and key.state(now) == "valid" for key in self._keys.keys)

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        except FileNotFoundError:
            seen = None
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be read ({error.strerror}); let the service's user read it") from None
        if seen == self._seen:
            return
        self._keys, self._seen = read_keys(self._path), seen
        self._required = self._required or bool(self._keys.keys)


@contextmanager
def _changing(path: Path) -> Iterator[list[KeyRecord]]:
    """The keys as a list to change, written whole when the block ends, unless it raises; one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = list(read_keys(path).keys)
        yield keys
        with whole_file(path) as beside:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # no moment in which others can read it
            with os.fdopen(descriptor, "wb") as file:
                file.write(Keys(keys=tuple(keys)).to_bytes())
    finally:
        os.close(lock)


def utc_now() -> datetime:
    """The time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
