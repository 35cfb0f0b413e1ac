"""Where a dataset's files lie: a folder or a bucket. Listing looks at names; a clip's bytes come when it is decoded."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from data_shards.errors import ClipError, DataError
from data_shards.storage.store import Store, open_store

__all__ = ["Source", "SourceFile", "file_of"]

_MAX_TEXT_BYTES = 512 * 2**20  # a label file is text; CMOSE's holds 1,024 numbers a clip


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file below `uri`, a folder or s3://bucket/prefix; `name` is relative to it, with forward slashes."""

    uri: str
    name: str
    size_bytes: int

    @contextmanager
    def local(self) -> Iterator[Path]:
        """The file's path on this machine; one that lies in a bucket is fetched, and gone when the block ends.

        ClipError where the file is gone, or cannot be read in the block.
        """
        store = _connected(self.uri)
        here = store.local_path(self.name)
        if here is not None:
            try:
                yield here
            except OSError as error:
                if str(error.filename) != str(here):  # of the block's own work
                    raise
                raise ClipError(
                    f"{self.name}: cannot be read from {self.uri} ({error.strerror or error}); "
                    "put it back, or list the dataset again"
                ) from None
            return
        with tempfile.TemporaryDirectory(prefix="rapt-clip-") as folder:
            path = Path(folder) / PurePosixPath(self.name).name
            try:
                store.fetch(self.name, path)
            except FileNotFoundError:
                raise ClipError(f"{self.name}: no longer in {self.uri}; put it back, or list the dataset again") from None
            yield path


class Source:
    """The files of a dataset, by name; listing them is all that opening does. DataError where there are none."""

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        self._store = open_store(uri)
        sizes = self._store.names()
        if not sizes:
            raise DataError(f"{self.uri}: no file there; name the folder or the bucket that holds the dataset")
        self.files = {name: SourceFile(uri=self.uri, name=name, size_bytes=size) for name, size in sizes.items()}

    def read(self, name: str) -> bytes:
        """A label file's content. DataError where it is missing, not as long as listed, or far too large for text."""
        place = f"{self.uri.rstrip('/')}/{name}"
        if name not in self.files:
            raise DataError(f"{place}: no such file; name the folder that holds it as SOURCE")
        if self.files[name].size_bytes > _MAX_TEXT_BYTES:
            raise DataError(f"{place}: {self.files[name].size_bytes:,} bytes, over the limit of {_MAX_TEXT_BYTES:,}; cut it")
        try:
            content = self._store.read(name)
        except OSError as error:
            raise DataError(f"{place}: cannot be read ({error.strerror or error}); check the source") from None
        listed_bytes = self.files[name].size_bytes
        if len(content) != listed_bytes:
            raise DataError(f"{place}: {len(content):,} bytes came where {listed_bytes:,} were listed; run the command again")
        return content

    def named(self, basename: str) -> list[str]:
        """The names of all files called `basename`, in whatever folder, those nearest the top first."""
        found = [name for name in self.files if PurePosixPath(name).name == basename]
        return sorted(found, key=lambda name: (name.count("/"), name))


@lru_cache(maxsize=8)
def _connected(uri: str) -> Store:
    """One store an address and process: a bucket's connections are kept from clip to clip."""
    return open_store(uri)


def file_of(path: Path) -> SourceFile:
    """A single file on this machine as a SourceFile."""
    size_bytes = path.stat().st_size if path.exists() else 0
    return SourceFile(uri=str(path.parent), name=path.name, size_bytes=size_bytes)
