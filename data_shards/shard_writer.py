"""Write one shard: a list of clips to a WebDataset tar and its index, whole or not at all."""

import hashlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import webdataset

from data_shards.atomic import whole_file, write_whole
from data_shards.decode import DecodeLimits, decoder_versions
from data_shards.errors import ClipError, ShardError
from data_shards.listing import ListedClip, Reject
from data_shards.manifest import SCHEMA_VERSION, IndexedSample, ShardIndex, index_name
from data_shards.preprocess import PreprocessConfig, preprocess
from data_shards.sample import Sample, sample_key

__all__ = ["ShardPlan", "finished_index", "write_shard"]


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The unit of work: which clips go into which shard. crashed: clips known to kill the decoder, not to be opened."""

    name: str
    split: str
    clips: tuple[ListedClip, ...]
    preprocess: PreprocessConfig
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    crashed: frozenset[str] = frozenset()

    @property
    def sha256(self) -> str:
        """Digest of everything the shard's bytes follow from, the clips' contents by their size only."""
        content = [
            SCHEMA_VERSION,
            self.name,
            self.preprocess.model_dump(),
            decoder_versions(),
            self.limits.model_dump(),
            [
                (c.clip_id, c.subject, c.session, c.split, c.labels, c.extra, c.path.stat().st_size if c.path.exists() else -1)
                for c in self.clips
            ],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finished_index(folder: Path, plan: ShardPlan) -> ShardIndex | None:
    """The index of an already written shard of this plan, or None where it is missing, partial or of another plan."""
    index_path, tar_path = folder / index_name(plan.name), folder / plan.name
    if not index_path.exists() or not tar_path.exists():
        return None
    try:
        index = ShardIndex.from_bytes(index_path.read_bytes(), origin=index_path)
    except ShardError:
        return None
    whole = index.size_bytes == tar_path.stat().st_size and index.plan_sha256 == plan.sha256
    return index if whole else None


def write_shard(folder: Path, plan: ShardPlan, *, on_clip: Callable[[str], None]) -> ShardIndex:
    """Decode the plan's clips into `folder/plan.name`. A clip that cannot be used becomes a reject, never an error.

    on_clip is called with each clip's id before it is opened, so a caller knows which clip killed a process.
    """
    samples: list[tuple[str, Sample]] = []
    rejects: list[Reject] = []
    for clip in plan.clips:
        try:
            if clip.clip_id in plan.crashed:
                raise ClipError(f"{clip.path.name}: crashed the decoder; re-encode it")
            on_clip(clip.clip_id)
            samples.append((sample_key(clip.clip_id), preprocess(clip, plan.preprocess, plan.limits)))
        except ClipError as error:
            rejects.append(Reject(clip_id=clip.clip_id, source=clip.path.name, reason=str(error)))

    tar_path = folder / plan.name
    # fixed owner, mode and mtime, and members in the plan's order: same input, same bytes
    tar_options = {"user": "rapt", "group": "rapt", "mode": 0o644, "mtime": 0, "encoder": False}
    with whole_file(tar_path) as beside, beside.open("wb") as file, webdataset.TarWriter(file, **tar_options) as writer:
        for key, sample in samples:
            writer.write({"__key__": key, **sample.members()})
    members = _member_places(tar_path)
    with tar_path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    index = ShardIndex(
        schema_version=SCHEMA_VERSION,
        shard=plan.name,
        split=plan.split,
        plan_sha256=plan.sha256,
        size_bytes=tar_path.stat().st_size,
        sha256=digest,
        samples=tuple(_indexed(key, sample, members) for key, sample in samples),
        rejects=tuple(rejects),
    )
    write_whole(folder / index_name(plan.name), index.to_bytes())
    return index


def _indexed(key: str, sample: Sample, members: dict[str, tuple[int, int]]) -> IndexedSample:
    return IndexedSample(
        key=key,
        clip_id=sample.meta.clip_id,
        subject=sample.meta.subject,
        session=sample.meta.session,
        labels=sample.meta.labels,
        members={extension: members[f"{key}.{extension}"] for extension in sample.members()},
    )


def _member_places(tar_path: Path) -> dict[str, tuple[int, int]]:
    """Member name to (offset, size) of its bytes in the tar."""
    with tarfile.open(tar_path, mode="r:") as tar:
        return {member.name: (member.offset_data, member.size) for member in tar}
