"""OUT while a set of shards is made in it: whose it is, and that no other build is at work there.

`building.json` lies in OUT from before the first shard until after the manifest. Tars without it and without a manifest
are somebody else's, however they are named, and are left alone.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from data_shards.atomic import is_partial
from data_shards.errors import ConfigError, DataError
from data_shards.listing import SPLITS
from data_shards.manifest import read_manifest
from data_shards.storage.store import LocalStore, Store

__all__ = ["claimed"]

_MARK = "building.json"
_OWN_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d{{6}}\.(tar|index\.json|next\.json)")
_OWN_RECORD = re.compile(r"(manifest|building|extracting|source)\.json|(rejects|lacking)\.jsonl")


@contextmanager
def claimed(store: Store) -> Iterator[dict[str, int]]:
    """What OUT holds of an earlier set, name to size in bytes; OUT is ours until the block ends.

    ConfigError where it holds anybody else's files, or where another build is at work in a folder (in a bucket that is
    not seen). Where the block raises, OUT stays marked, and the next build goes on there.
    """
    try:
        if isinstance(store, LocalStore):
            store.folder.mkdir(parents=True, exist_ok=True)
        sizes = store.names()
    except OSError as error:
        raise DataError(f"{store.uri}: the output folder cannot be made ({error.strerror}); name another OUT") from None
    _check_ownership(store, sizes)
    if _MARK not in sizes:
        store.write(_MARK, json.dumps({"format": "rapt-shards"}).encode())
    with _alone(store):
        _remove_leftovers(store)
        yield {name: size for name, size in sizes.items() if _OWN_SHARD.fullmatch(name) or name == "manifest.json"}
        store.delete(_MARK)


def _check_ownership(store: Store, sizes: dict[str, int]) -> None:
    foreign = [name for name in sizes if not (_OWN_SHARD.fullmatch(name) or _OWN_RECORD.fullmatch(name))]
    if not foreign and "manifest.json" not in sizes and _MARK not in sizes:
        foreign = list(sizes)
    if foreign:
        raise ConfigError(
            f"{store.uri}: holds files that are not shards of an earlier build ({foreign[0]}); name a new or empty place"
        )
    if "manifest.json" in sizes:
        read_manifest(store)  # somebody else's manifest.json is refused here


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Hold a folder against other builds, by a lock that the kernel lets go of when the process ends."""
    if not isinstance(store, LocalStore):
        yield
        return
    descriptor = os.open(store.folder / _MARK, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{store.uri}: another build is at work there; wait for it, or name another OUT") from None
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(store: Store) -> None:
    """Half-written files of killed processes, in a folder; a bucket shows none."""
    if isinstance(store, LocalStore):
        for path in [path for path in store.folder.iterdir() if is_partial(path.name)]:
            path.unlink()
