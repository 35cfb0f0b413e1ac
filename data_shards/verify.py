"""Check a shard folder against its manifest: every file's sha256, every frame readable by its index."""

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

from data_shards.errors import ShardError
from data_shards.manifest import Manifest, ShardEntry, read_manifest
from data_shards.reader import ShardSet

__all__ = ["verify_shards"]


def verify_shards(folder: Path, *, progress: Callable[[int, int], None] = lambda done, total: None) -> tuple[Manifest, list[str]]:
    """(manifest, findings): one sentence for each damaged file or frame, none where the set is whole."""
    manifest = read_manifest(folder)
    findings: list[str] = []
    for number, entry in enumerate(manifest.shards):
        progress(number, len(manifest.shards))
        findings += _tar_findings(folder, entry)
        alone = manifest.model_copy(update={"shards": (entry,)})
        shards = ShardSet(folder, splits=(entry.split,), manifest=alone)
        for sample in range(len(shards)):
            try:
                shards.read(sample).decode_frames()
            except ShardError as error:
                findings.append(str(error))
    progress(len(manifest.shards), len(manifest.shards))
    return manifest, list(dict.fromkeys(findings))


def _tar_findings(folder: Path, entry: ShardEntry) -> list[str]:
    path = folder / entry.name
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
