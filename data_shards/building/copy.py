"""Copy a set of shards between a folder and a bucket, either way: checked, resumable, the manifest last."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_shards.building.claim import claimed
from data_shards.errors import ShardError
from data_shards.manifest import EXTRACTING, Manifest, ShardEntry, index_name, read_index, read_manifest
from data_shards.storage.store import Store, fetched, open_store

__all__ = ["copy_shards"]


def copy_shards(
    source: str | Path,
    out: str | Path,
    *,
    check: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Copy the set at `source` to `out`; each is a folder or s3://bucket/prefix. Returns the manifest.

    Every shard that is sent has the manifest's sha256. A copy that was broken off goes on where it was: a shard that is
    there in its size, with its index, is not sent again; check: only one whose content is read there and is the same.
    `out` is no set until its manifest is written, at the end.
    """
    origin, target = open_store(source), open_store(out)
    manifest = read_manifest(origin)
    with claimed(target) as there:
        progress(0, len(manifest.shards))
        missing = [entry for entry in manifest.shards if not _is_copied(target, there, entry, check=check)]
        if missing or "manifest.json" not in there or read_manifest(target).digest != manifest.digest:
            for name in ("manifest.json", EXTRACTING, "source.json"):  # of the set that lay there before
                target.delete(name)
        already = len(manifest.shards) - len(missing)
        for number, entry in enumerate(missing):
            progress(already + number, len(manifest.shards))
            index = read_index(origin, entry).to_bytes()
            target.delete(index_name(entry.name))
            with _checked(origin, entry) as path:
                target.put(path, entry.name)
            target.write(index_name(entry.name), index)  # after its shard: a shard with an index is whole
        progress(len(manifest.shards), len(manifest.shards))
        for name in ("rejects.jsonl", "lacking.jsonl"):
            target.write(name, _records(origin, name))
        target.write("manifest.json", manifest.to_bytes())
        named = {name for entry in manifest.shards for name in (entry.name, index_name(entry.name))}
        for name in there.keys() - named - {"manifest.json"}:  # of the set that lay there before
            target.delete(name)
    return manifest


def _is_copied(target: Store, there: dict[str, int], entry: ShardEntry, *, check: bool) -> bool:
    name = index_name(entry.name)
    if there.get(entry.name) != entry.size_bytes or name not in there:
        return False
    if hashlib.sha256(target.read(name)).hexdigest() != entry.index_sha256:
        return False
    if not check:
        return True
    try:
        with _checked(target, entry):
            return True
    except ShardError:
        return False


@contextmanager
def _checked(origin: Store, entry: ShardEntry) -> Iterator[Path]:
    """The shard as a file of this machine whose sha256 is the manifest's."""
    try:
        with fetched(origin, entry.name, sha256=entry.sha256) as path:
            yield path
    except FileNotFoundError:
        raise ShardError(f"{origin.uri}/{entry.name}: missing; build the set again") from None


def _records(origin: Store, name: str) -> bytes:
    try:
        return origin.read(name)
    except FileNotFoundError:
        return b""
