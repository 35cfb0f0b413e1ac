"""Where shards and datasets lie: a folder or a bucket, behind one small interface. (The bucket's half comes with a merge.)"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from data_shards.atomic import whole_file, write_whole
from data_shards.errors import ConfigError, ShardError

__all__ = ["LocalStore", "Store", "open_store", "published"]


@runtime_checkable
class Store(Protocol):
    uri: str

    def names(self) -> dict[str, int]: ...
    def local_path(self, name: str) -> Path | None: ...
    def read(self, name: str) -> bytes: ...
    def fetch(self, name: str, path: Path, *, sha256: str | None = None) -> None: ...
    def put(self, path: Path, name: str) -> None: ...
    def write(self, name: str, content: bytes) -> None: ...
    def delete(self, name: str) -> None: ...


class LocalStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = str(folder)

    def names(self) -> dict[str, int]:
        return {
            path.relative_to(self.folder).as_posix(): path.stat().st_size
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not (path.name.startswith(".") and ".partial-" in path.name)
        }

    def local_path(self, name: str) -> Path | None:
        return self.folder / name

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def fetch(self, name: str, path: Path, *, sha256: str | None = None) -> None:
        with whole_file(path) as beside:
            shutil.copyfile(self.folder / name, beside)
            if sha256 and hashlib.sha256(beside.read_bytes()).hexdigest() != sha256:
                raise ShardError(f"{self.folder / name}: its sha256 is not the manifest's; copy it again")

    def put(self, path: Path, name: str) -> None:
        with whole_file(self.folder / name) as beside:
            shutil.copyfile(path, beside)

    def write(self, name: str, content: bytes) -> None:
        write_whole(self.folder / name, content)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


def open_store(uri: str | Path) -> Store:
    if "://" in str(uri):
        raise ConfigError(f"{uri}: only folders for now")
    return LocalStore(Path(uri))


@contextmanager
def published(store: Store, name: str) -> Iterator[Path]:
    """A path on this machine to write to; when the block ends it lies under `name` in the store, whole or not at all."""
    here = store.local_path(name)
    if here is not None:
        with whole_file(here) as beside:
            yield beside
        return
    with tempfile.TemporaryDirectory(prefix="rapt-publish-") as folder:
        path = Path(folder) / PurePosixPath(name).name
        yield path
        store.put(path, name)
