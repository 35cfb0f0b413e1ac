"""Write one shard: a list of clips to a WebDataset tar and its index, whole or not at all."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_shards.building.shard_work import ShardWork
from data_shards.building.summary import common_shape
from data_shards.decode import DecodeLimits, decoder_versions
from data_shards.errors import ClipError, ShardError
from data_shards.listing import FeatureFile, ListedClip, Reject
from data_shards.manifest import SCHEMA_VERSION, IndexedSample, ShardIndex, current_index, index_name
from data_shards.preprocess import PreprocessConfig, preprocess
from data_shards.sample import Sample, sample_key
from data_shards.storage.store import Store, file_sha256, published

__all__ = ["ShardPlan", "finished_index", "member_places", "write_shard", "write_tar"]

_CRASHED = "crashed the decoder; re-encode it"


@dataclass(frozen=True, kw_only=True)
class ShardPlan(ShardWork):
    """Which clips go into which shard of a split, and how they become samples."""

    split: str
    preprocess: PreprocessConfig
    limits: DecodeLimits = field(default_factory=DecodeLimits)

    def write(self, store: Store, *, on_clip: Callable[[str], None]) -> ShardIndex:
        return write_shard(store, self, on_clip=on_clip)

    @property
    def sha256(self) -> str:
        """Digest of everything the shard's bytes follow from, the content of files by their size only."""
        content = [
            SCHEMA_VERSION,
            self.name,
            self.preprocess.model_dump(),
            decoder_versions(),
            self.limits.model_dump(),
            [
                (c.clip_id, c.subject, c.session, c.split, c.labels, c.extra, c.video and c.video.size_bytes, _described(c))
                for c in self.clips
            ],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _described(clip: ListedClip) -> dict[str, str | int]:
    """What a clip's features are: arrays by their sha256, files by their size."""
    return {
        name: values.file.size_bytes if isinstance(values, FeatureFile) else hashlib.sha256(values.tobytes()).hexdigest()
        for name, values in clip.features.items()
    }


def finished_index(store: Store, sizes: Mapping[str, int], plan: ShardPlan) -> ShardIndex | None:
    """The index of an already written shard of this plan, or None where it is missing, partial or of another plan.

    sizes: what the store holds, name to size in bytes.
    """
    if index_name(plan.name) not in sizes or plan.name not in sizes:
        return None
    try:
        index = current_index(store, plan.name, there=sizes)
    except (ShardError, FileNotFoundError):
        return None
    whole = index.size_bytes == sizes[plan.name] and index.plan_sha256 == plan.sha256
    # a process may also have been killed for want of memory: a clip is given another chance by the next build
    crashed = any(reject.reason.endswith(_CRASHED) for reject in index.rejects)
    return index if whole and not crashed else None


def write_shard(store: Store, plan: ShardPlan, *, on_clip: Callable[[str], None]) -> ShardIndex:
    """Decode the plan's clips into the shard `plan.name`. A clip that cannot be used becomes a reject, never an error.

    on_clip is called with each clip's id before it is opened, so a caller knows which clip killed a process.
    """
    samples: list[tuple[str, Sample]] = []
    rejects: list[Reject] = []
    for clip in plan.clips:
        try:
            if clip.clip_id in plan.crashed:
                raise ClipError(f"{clip.source_name}: {_CRASHED}")
            on_clip(clip.clip_id)
            samples.append((sample_key(clip.clip_id), preprocess(clip, plan.preprocess, plan.limits)))
        except ClipError as error:
            rejects.append(Reject(clip_id=clip.clip_id, source=clip.source_name, reason=str(error)))

    store.delete(index_name(plan.name))  # that of an earlier plan must not be taken for the new tar's
    with published(store, plan.name) as tar_path:
        content = write_tar(tar_path, samples)
    index = ShardIndex(
        schema_version=SCHEMA_VERSION,
        shard=plan.name,
        split=plan.split,
        plan_sha256=plan.sha256,
        rejects=tuple(rejects),
        **content._asdict(),
    )
    store.write(index_name(plan.name), index.to_bytes())
    return index


class TarContent(NamedTuple):
    """What an index says of its tar."""

    size_bytes: int
    sha256: str
    features: dict[str, tuple[int, ...]]
    samples: tuple[IndexedSample, ...]


def write_tar(tar_path: Path, samples: Sequence[tuple[str, Sample]]) -> TarContent:
    """Write (key, sample) pairs as a WebDataset tar."""
    import webdataset  # here: `verify` needs this module's readers alone, and runs without it

    keys = Counter(key for key, _ in samples)
    assert len(keys) == len(samples), f"{tar_path}: two samples have the key {keys.most_common(1)}"
    # fixed owner, mode and mtime, and members in the plan's order: same input, same bytes
    tar_options = {"user": "rapt", "group": "rapt", "mode": 0o644, "mtime": 0, "encoder": False}
    with tar_path.open("wb") as file, webdataset.TarWriter(file, **tar_options) as writer:
        for key, sample in samples:
            writer.write({"__key__": key, **sample.members()})
    places = member_places(tar_path)
    return TarContent(
        size_bytes=tar_path.stat().st_size,
        sha256=file_sha256(tar_path),
        features=_feature_shapes([sample for _, sample in samples]),
        samples=tuple(_indexed(key, sample, places) for key, sample in samples),
    )


def _feature_shapes(samples: Sequence[Sample]) -> dict[str, tuple[int, ...]]:
    names = sorted({name for sample in samples for name in sample.features})
    return {
        name: common_shape([np.shape(sample.features[name]) for sample in samples if name in sample.features]) for name in names
    }


def _indexed(key: str, sample: Sample, places: dict[str, tuple[int, int]]) -> IndexedSample:
    return IndexedSample(
        key=key,
        clip_id=sample.meta.clip_id,
        subject=sample.meta.subject,
        session=sample.meta.session,
        labels=sample.meta.labels,
        members={extension: places[f"{key}.{extension}"] for extension in sample.members()},
    )


def member_places(tar_path: Path) -> dict[str, tuple[int, int]]:
    """Member name to (offset, size) of its bytes in the tar."""
    with tarfile.open(tar_path, mode="r:") as tar:
        return {member.name: (member.offset_data, member.size) for member in tar}
