"""Check a set of shards against its manifest: every file's sha256, every frame and feature readable by its index."""

import hashlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_shards.errors import ShardError
from data_shards.manifest import Manifest, ShardEntry, index_name, read_manifest
from data_shards.reader import ShardSet
from data_shards.store import Store, open_store

__all__ = ["verify_shards"]


def verify_shards(
    uri: str | Path, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Manifest, list[str]]:
    """(manifest, findings): one sentence for each damaged file or sample, none where the set is whole.

    uri: a folder, or s3://bucket/prefix, whose shards are fetched one at a time and not kept.
    """
    store = open_store(uri)
    manifest = read_manifest(store)
    findings: list[str] = []
    for number, entry in enumerate(manifest.shards):
        progress(number, len(manifest.shards))
        with _on_this_machine(store, entry) as folder:
            findings += _tar_findings(folder / entry.name, entry)
            findings += _sample_findings(folder, manifest, entry)
    progress(len(manifest.shards), len(manifest.shards))
    return manifest, list(dict.fromkeys(findings))


@contextmanager
def _on_this_machine(store: Store, entry: ShardEntry) -> Iterator[Path]:
    """A folder that holds the shard and its index, as far as they are there."""
    here = store.local_path("")
    if here is not None:
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="rapt-verify-") as folder:
        for name in (entry.name, index_name(entry.name)):
            try:
                store.fetch(name, Path(folder) / name)
            except FileNotFoundError:
                continue  # found missing below
        yield Path(folder)


def _sample_findings(folder: Path, manifest: Manifest, entry: ShardEntry) -> list[str]:
    alone = manifest.model_copy(update={"shards": (entry,)})
    shards = ShardSet(folder, splits=(entry.split,), manifest=alone)
    findings = []
    for number in range(len(shards)):
        try:
            sample = shards.read(number)
            if sample.has_frames:
                sample.decode_frames()
        except ShardError as error:
            findings.append(str(error))
    shards.close()
    return findings


def _tar_findings(path: Path, entry: ShardEntry) -> list[str]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with tarfile.open(path, mode="r:") as tar:
            keys = {member.name.split(".", 1)[0] for member in tar}
    except FileNotFoundError:
        return [f"{path}: missing; run the same `rapt shards build` again"]
    except (tarfile.TarError, OSError) as error:
        return [f"{path}: not a readable tar ({error}); delete it and run the same `rapt shards build` again"]
    findings = []
    if digest != entry.sha256:
        findings.append(f"{path}: its sha256 is not the manifest's; delete it and run the same `rapt shards build` again")
    if len(keys) != entry.num_samples:
        findings.append(f"{path}: holds {len(keys)} samples, the manifest says {entry.num_samples}; build it again")
    return findings
