"""Check a set of shards against its manifest: every file's sha256, every member's place, every label, frame and feature."""

import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_shards.building.shard_writer import member_places
from data_shards.errors import ShardError
from data_shards.listing import NO_LEVEL
from data_shards.manifest import IndexedSample, Manifest, ShardEntry, ShardIndex, read_index, read_manifest
from data_shards.sample import Sample
from data_shards.storage.store import Store, file_sha256, open_store

__all__ = ["verify_shards"]

Places = dict[str, tuple[int, int]]


def verify_shards(
    uri: str | Path, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Manifest, list[str]]:
    """(manifest, findings): one sentence for each damaged file, and for each sample of a whole file that is not as it should
    be; none where the set is whole.

    uri: a folder, or s3://bucket/prefix, whose shards are fetched one at a time and not kept.
    """
    store = open_store(uri)
    manifest = read_manifest(store)
    findings: list[str] = []
    for number, entry in enumerate(manifest.shards):
        progress(number, len(manifest.shards))
        with _on_this_machine(store, entry.name) as path:
            findings += _shard_findings(store, entry, path)
    progress(len(manifest.shards), len(manifest.shards))
    return manifest, findings


@contextmanager
def _on_this_machine(store: Store, name: str) -> Iterator[Path]:
    """Where the shard lies, or its copy; nothing lies there where the store has none."""
    here = store.local_path(name)
    if here is not None:
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="rapt-verify-") as folder:
        with suppress(FileNotFoundError):  # found missing below
            store.fetch(name, Path(folder) / name)
        yield Path(folder) / name


def _shard_findings(store: Store, entry: ShardEntry, path: Path) -> list[str]:
    place = f"{store.uri}/{entry.name}"
    findings: list[str] = []
    index: ShardIndex | None = None
    places: Places | None = None
    try:
        index = read_index(store, entry)
    except ShardError as error:
        findings.append(str(error))
    try:
        places = _places(path, entry, place)
    except ShardError as error:
        findings.append(str(error))
    if index is None or places is None:
        return findings
    if places != {f"{s.key}.{extension}": own for s in index.samples for extension, own in s.members.items()}:
        return [f"{place}: its members do not lie where its index says; build it again"]
    with path.open("rb") as file:
        for number, indexed in enumerate(index.samples):
            try:
                _check_sample(entry, number, indexed, indexed.read(file))
            except ShardError as error:
                findings.append(f"{place}: {error}")
    return findings


def _places(path: Path, entry: ShardEntry, place: str) -> Places:
    """Where each member lies in the tar. ShardError where the tar is not the one that the manifest names."""
    try:
        if file_sha256(path) != entry.sha256:
            raise ShardError(f"{place}: its sha256 is not the manifest's; delete it and run the same `rapt shards build` again")
        return member_places(path)
    except FileNotFoundError:
        raise ShardError(f"{place}: missing; run the same `rapt shards build` again") from None
    except (tarfile.TarError, OSError) as error:
        raise ShardError(f"{place}: not a readable tar ({error}); delete it and run the same `rapt shards build` again") from None


def _check_sample(entry: ShardEntry, number: int, indexed: IndexedSample, members: dict[str, bytes]) -> None:
    """ShardError where the sample cannot be read, or is not the one that manifest and index speak of."""
    if "json" not in members:
        raise ShardError(f"sample {number}: has no record of its labels; build the shard again")
    sample = Sample.from_members(members, origin=f"sample {number}")
    meta = sample.meta
    if any(indexed.labels.get(name, NO_LEVEL) != levels[number] for name, levels in entry.labels.items()):
        raise ShardError(f"clip {indexed.clip_id}: manifest and index do not agree on its labels; build the set again")
    known = (indexed.clip_id, indexed.subject, indexed.session, indexed.labels, entry.split)
    if known != (meta.clip_id, meta.subject, meta.session, meta.labels, meta.split):
        raise ShardError(f"clip {indexed.clip_id}: index and stored record do not agree on it; build the shard again")
    if sample.has_frames:
        sample.decode_frames()
