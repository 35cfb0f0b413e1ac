"""A bounded folder of shards fetched from a store, shared by the processes of one machine.

FOLDER/SHA256              a shard, whole and checked: it is named by its content, so that data sets and versions can share
FOLDER/.SHA256.lock        held (flock) by whoever fetches it; its size is the room that the fetch has taken meanwhile
FOLDER/.SHA256.arriving    a shard on its way, and the partial file of it
FOLDER/.room.lock          held while room is made

A shard's mtime says when it was last asked for; one that was fetched ahead counts as asked for _KEPT_AHEAD_S later, so that
it is not evicted before it is read, by whichever process. The kernel lets go of a killed process's locks, and what it
left is removed by the next one that makes room.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from data_shards.errors import ConfigError, ShardError
from data_shards.storage.store import Store, writing

__all__ = ["CacheSettings", "ShardCache"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEPT_AHEAD_S = 600
_POLL_S = 0.05


@dataclass(frozen=True)
class CacheSettings:
    """Where shards of a bucket are kept on this machine, and how many bytes of them at most."""

    folder: Path
    max_bytes: int


@dataclass(frozen=True)
class _Shard:
    name: str
    size_bytes: int
    sha256: str


class ShardCache:
    """Local files of a store's shards, at most max_bytes of them at any time, those being fetched counted.

    hits, misses: how often a shard was there when it was asked for, and how often not. num_fetched, fetched_bytes: what
    this object brought. Safe between threads; every process makes its own.
    """

    def __init__(self, store: Store, settings: CacheSettings, *, num_fetchers: int = 4) -> None:
        self.store = store
        self.folder, self.max_bytes = settings.folder, settings.max_bytes
        self.hits = self.misses = self.num_fetched = self.fetched_bytes = 0
        self._lock = Lock()  # of the counts and of _ahead
        self._ahead: dict[str, Future[bool]] = {}
        self._fetchers = ThreadPoolExecutor(num_fetchers, thread_name_prefix="rapt-shard-cache")
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, *, size_bytes: int, sha256: str) -> Path:
        """The shard's file, whole and checked, fetched now where it is not there.

        It may be evicted as soon as another is asked for: `open` gives a file that stays. Raises what the fetch raised,
        also where it was a `prefetch`; asked for again, it is fetched again.
        """
        shard = self._checked(name, size_bytes, sha256)
        is_there = self._touch(shard)
        with self._lock:
            self.hits += is_there
            self.misses += not is_there
            ahead = self._ahead.pop(sha256, None)
        if is_there:
            return self.folder / sha256
        if ahead is not None and not ahead.cancel():  # one that waits for its turn is fetched here and now
            ahead.result()
        while not self._touch(shard):
            self._fetch(shard, ahead=False)
        return self.folder / sha256

    def open(self, name: str, *, size_bytes: int, sha256: str) -> int:
        """A descriptor of the shard's file, which stays readable when the file is evicted. The caller closes it."""
        while True:
            path = self.path(name, size_bytes=size_bytes, sha256=sha256)
            try:
                return os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # evicted since
                continue

    def prefetch(self, name: str, *, size_bytes: int, sha256: str) -> None:
        """Start to fetch the shard behind the caller's back.

        Nothing happens where it is there or on its way, and where it has no room beside the shards that were fetched
        ahead and not read yet: ask again when one of them was.
        """
        shard = self._checked(name, size_bytes, sha256)
        with self._lock:
            before = self._ahead.get(sha256)
            is_open = before is not None and (not before.done() or before.exception() is not None)  # or not told yet
            if not is_open and not (self.folder / sha256).exists():
                self._ahead[sha256] = self._fetchers.submit(self._fetch, shard, ahead=True)

    def close(self) -> None:
        """End the threads, after the fetches under way."""
        self._fetchers.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _checked(self, name: str, size_bytes: int, sha256: str) -> _Shard:
        if not _SHA256.fullmatch(sha256):
            raise ShardError(f"{self.store.uri}/{name}: {sha256!r} is no sha256; the manifest it comes from is damaged")
        if size_bytes > self.max_bytes:
            raise ConfigError(
                f"{self.store.uri}/{name}: has {size_bytes} bytes, the cache {self.folder} may hold {self.max_bytes}; "
                f"allow it at least {size_bytes}, or build smaller shards"
            )
        return _Shard(name, size_bytes, sha256)

    def _touch(self, shard: _Shard) -> bool:
        """Whether the shard is there; it is then the last one to be evicted, but for those fetched ahead."""
        try:
            os.utime(self.folder / shard.sha256)
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, shard: _Shard, *, ahead: bool) -> bool:
        """Fetch the shard unless another thread or process just did; False where `ahead` found no room for it."""
        path = self.folder / shard.sha256
        with _locked(self._lock_file(shard.sha256)) as lock:
            if path.exists():
                return True
            self._remove_arriving(shard.sha256)
            while not self._take_room(shard, lock, ahead=ahead):
                if ahead:
                    return False
                time.sleep(_POLL_S)  # until a fetch elsewhere is done, and can be evicted
            arriving = self.folder / f".{shard.sha256}.arriving"  # under its name it may be evicted at once
            try:
                self.store.fetch(shard.name, arriving, sha256=shard.sha256)
                size_bytes = arriving.stat().st_size
                if size_bytes != shard.size_bytes:
                    raise ShardError(
                        f"{self.store.uri}/{shard.name}: has {size_bytes} bytes, the manifest says {shard.size_bytes}; "
                        "copy the manifest again, or build the shards again"
                    )
                asked_at = time.time() + (_KEPT_AHEAD_S if ahead else 0)
                os.utime(arriving, (asked_at, asked_at))
                with self._making_room():  # who looks over the folder must see it as taken room or as a shard, not as neither
                    arriving.rename(path)
                    os.ftruncate(lock, 0)
            finally:
                self._remove_arriving(shard.sha256)
                os.ftruncate(lock, 0)
        with self._lock:
            self.num_fetched += 1
            self.fetched_bytes += size_bytes
        return True

    def _take_room(self, shard: _Shard, lock: int, *, ahead: bool) -> bool:
        """Evict the shards that were asked for longest ago until this one fits, and mark its room as taken."""
        with self._making_room():
            whole, taken_bytes = self._survey()
            free_bytes = self.max_bytes - taken_bytes - sum(size for _, size, _ in whole)
            evicted = []
            for asked_at, size_bytes, path in sorted(whole):
                if free_bytes >= shard.size_bytes or (ahead and asked_at > time.time()):
                    break
                free_bytes += size_bytes
                evicted.append(path)
            if free_bytes < shard.size_bytes:
                return False
            for path in evicted:
                path.unlink(missing_ok=True)
            os.ftruncate(lock, shard.size_bytes)
        return True

    def _survey(self) -> tuple[list[tuple[float, int, Path]], int]:
        """(when it was asked for, size in bytes, path) of every whole shard; the bytes of room taken by fetches."""
        whole, taken_bytes = [], 0
        for entry in os.scandir(self.folder):
            if _SHA256.fullmatch(entry.name):
                whole.append((entry.stat().st_mtime, entry.stat().st_size, Path(entry.path)))
            elif entry.name.endswith(".lock") and (size_bytes := entry.stat().st_size):
                taken_bytes += 0 if self._clear_stale(entry.name[1:-5]) else size_bytes
        return whole, taken_bytes

    def _clear_stale(self, sha256: str) -> bool:
        """Whether a shard's room is taken by nobody: what a killed process left of it is then removed."""
        with _locked(self._lock_file(sha256), wait=False) as lock:
            if lock < 0:
                return False
            self._remove_arriving(sha256)
            os.ftruncate(lock, 0)
        return True

    def _making_room(self) -> AbstractContextManager[int]:
        """Held while shards are looked over or removed."""
        return _locked(self.folder / ".room.lock")

    def _lock_file(self, sha256: str) -> Path:
        return self.folder / f".{sha256}.lock"

    def _remove_arriving(self, sha256: str) -> None:
        for path in self.folder.glob(f".*{sha256}.arriving*"):  # the store writes a partial file beside it first
            path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold a lock file against other threads and processes; a negative number where `wait` is False and it is held.

    Lock files are never removed: somebody else could hold the removed one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = descriptor
        except BlockingIOError:
            held = -1
        yield held
    finally:
        os.close(descriptor)
