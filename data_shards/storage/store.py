"""Where shards lie: a folder, or a prefix of a bucket, behind one small interface.

A store holds files under relative POSIX names. A file appears under its name whole or not at all, and its bytes are
compared on both ends. Opening a folder imports nothing; `s3://` imports boto3.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from data_shards.atomic import is_partial, whole_file, write_whole
from data_shards.errors import ConfigError, ShardError, StorageError

__all__ = ["LocalStore", "Store", "checked_name", "fetched", "file_sha256", "open_store", "published", "writing"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Store(Protocol):
    """Files under relative POSIX names. ShardError where a name leads elsewhere, StorageError where the store fails."""

    @property
    def uri(self) -> str:
        """What `open_store` made it from, without a slash at its end."""

    def names(self) -> dict[str, int]:
        """Every file below the store: name to size in bytes, sorted by name; no partial files. Empty where nothing is."""

    def local_path(self, name: str) -> Path | None:
        """Where the file lies already, without copying; None for a remote store."""

    def read(self, name: str) -> bytes:
        """The file's bytes. FileNotFoundError where there is none."""

    def fetch(self, name: str, path: Path, *, sha256: str | None = None) -> None:
        """Copy the file to `path`, whole or not at all. ShardError where its sha256 is another, FileNotFoundError as `read`."""

    def put(self, path: Path, name: str) -> None:
        """Publish the finished file `path` under `name`, whole or not at all; `path` stays."""

    def write(self, name: str, content: bytes) -> None:
        """Publish `content` under `name`, whole or not at all."""

    def delete(self, name: str) -> None:
        """Remove the file; nothing happens where there is none."""


def open_store(uri: str | Path) -> Store:
    """The store at `uri`: `s3://bucket/prefix`, or a folder's path. ConfigError for another scheme.

    The endpoint and the credentials of `s3://` are found by boto3's own rules (AWS_ENDPOINT_URL_S3, AWS_PROFILE, ...).
    """
    scheme = _SCHEME.match(str(uri))
    if isinstance(uri, Path) or scheme is None:
        return LocalStore(Path(uri))
    if scheme[1].lower() != "s3":  # the rest of the address is not shown: it may hold a password
        raise ConfigError(f"{scheme[1]}://: no such storage here; name a folder, or s3://bucket/prefix")
    try:
        from data_shards.storage.object_storage import S3Store
    except ModuleNotFoundError as error:
        raise ConfigError(f"s3:// needs the package {error.name}, which is not installed; pip install boto3") from None
    return S3Store(str(uri))


class LocalStore:
    """The files below a folder. The folder is made when the first file is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = str(folder)

    def names(self) -> dict[str, int]:
        def refuse(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise StorageError(f"{error.filename}: cannot be listed ({error.strerror}); look at its permissions")

        sizes: dict[str, int] = {}
        walked: set[tuple[int, int]] = set()
        for folder, folders, files in os.walk(self.folder, onerror=refuse, followlinks=True):
            place = os.stat(folder)
            if (place.st_dev, place.st_ino) in walked:  # a link back to where we were already
                folders.clear()
                continue
            walked.add((place.st_dev, place.st_ino))
            for file in files:
                path = Path(folder, file)
                if not is_partial(file) and path.is_file():
                    sizes[path.relative_to(self.folder).as_posix()] = path.stat().st_size
        return dict(sorted(sizes.items()))

    def local_path(self, name: str) -> Path:
        return self.folder / checked_name(name)

    def read(self, name: str) -> bytes:
        with self._reading(name) as path:
            return path.read_bytes()

    def fetch(self, name: str, path: Path, *, sha256: str | None = None) -> None:
        with self._reading(name) as source:
            if not source.is_file():
                raise FileNotFoundError(f"{source}: no such file")
            self._copy(source, path, sha256=sha256)

    def put(self, path: Path, name: str) -> None:
        target = self.local_path(name)
        if not (target.exists() and target.samefile(path)):  # built in place: it is there already
            self._copy(path, target)

    def write(self, name: str, content: bytes) -> None:
        path = self.local_path(name)
        with writing(path):
            write_whole(path, content)

    def delete(self, name: str) -> None:
        path = self.local_path(name)
        with writing(path):
            path.unlink(missing_ok=True)

    def _copy(self, source: Path, target: Path, *, sha256: str | None = None) -> None:
        with writing(target), whole_file(target) as beside:
            shutil.copyfile(source, beside)
            copied = file_sha256(beside)
            if sha256 is not None and copied != sha256:
                raise ShardError(f"{source}: its sha256 is not the one that is asked for; copy it again, or build it again")
            if copied != (sha256 or file_sha256(source)):
                raise StorageError(f"{target}: the copy is not what was copied; look at the disk, then try again")

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        path = self.local_path(name)
        try:
            yield path
        except (IsADirectoryError, NotADirectoryError):
            raise FileNotFoundError(f"{path}: no such file") from None
        except PermissionError:
            raise StorageError(f"{path}: may not be read; look at its permissions") from None


@contextmanager
def published(store: Store, name: str) -> Iterator[Path]:
    """A path on this machine to write to; when the block ends, its file lies under `name`, whole or not at all."""
    here = store.local_path(name)
    if here is not None:
        with writing(here), whole_file(here) as beside:
            yield beside
        return
    with tempfile.TemporaryDirectory(prefix="rapt-publish-") as folder:
        path = Path(folder) / PurePosixPath(name).name
        yield path
        store.put(path, name)


@contextmanager
def fetched(store: Store, name: str, *, sha256: str | None = None) -> Iterator[Path]:
    """A file of the store as one of this machine; from a bucket a copy, gone when the block ends.

    FileNotFoundError where there is none, ShardError where its sha256 is not the one that is asked for.
    """
    here = store.local_path(name)
    if here is not None:
        if sha256 is not None and file_sha256(here) != sha256:
            raise ShardError(f"{here}: its sha256 is not the manifest's; run `rapt shards verify`, then build it again")
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="rapt-fetch-") as folder:
        path = Path(folder) / PurePosixPath(name).name
        store.fetch(name, path, sha256=sha256)
        yield path


def checked_name(name: str) -> str:
    """`name` where it is a relative POSIX path that stays below its store; ShardError otherwise.

    Names come out of manifests, and those come from anywhere: none may make us read or write outside the folder.
    """
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ShardError(f"{name!r}: not the name of a file below a store; the manifest or listing it comes from is not ours")
    return name


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say as a StorageError why `path` cannot be written: a full disk, a missing right. What is not there stays so."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or type(error).__name__}); make room, or look at its permissions"
        ) from None
