"""The records beside the tars: one index a shard, one manifest a set. Only the manifest crosses from shards to training.

A set of shards is a folder:
    train-000000.tar              a plain WebDataset tar: KEY.json, KEY.frames.mjpeg and KEY.FEATURE.npy of each sample
    train-000000.index.json       where each member lies in the tar; written after it, so it marks the shard as whole
    manifest.json                 every shard, the splits, the preprocessing; written last. Its sha256 is the data version
    rejects.jsonl                 every clip left out, with its reason
    lacking.jsonl                 every feature that `rapt shards extract` could not make of a clip, with its reason
    source.json                   where the clips lay when the set was built; no part of the set, and not copied with it
"""

import hashlib
import re
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO

from pydantic import Field, model_validator

from data_shards.errors import ShardError
from data_shards.listing import NO_LEVEL, SPLITS, Extractors, Reject
from data_shards.preprocess import PreprocessConfig
from data_shards.schema import Stored
from data_shards.storage.store import Store, fetched, file_sha256, open_store

__all__ = [
    "EXTRACTING",
    "SCHEMA_VERSION",
    "SHARD_NAME",
    "SIMULATED_NOTICE",
    "IndexedSample",
    "Lacking",
    "Manifest",
    "ShardEntry",
    "ShardIndex",
    "SplitSummary",
    "current_index",
    "index_bytes",
    "index_name",
    "next_index_name",
    "read_index",
    "read_manifest",
]

SCHEMA_VERSION = 3
EXTRACTING = "extracting.json"  # the manifest as it was, while features are added to the shards
SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-\d{{6}}\.tar")
SIMULATED_NOTICE = "simulated clips of drawn people: no person was filmed, and no figure on these clips is a result on people"


class IndexedSample(Stored):
    """One sample of a shard: its labels, and the (offset, size) in bytes of each member in the tar."""

    key: str
    clip_id: str
    subject: str
    session: str
    labels: dict[str, int]
    members: dict[str, tuple[int, int]]

    def read(self, tar: BinaryIO) -> dict[str, bytes]:
        """Its members out of the open tar, extension to bytes."""
        content = {}
        for extension, (offset, size) in self.members.items():
            tar.seek(offset)
            content[extension] = tar.read(size)
        return content


class Lacking(Stored):
    """A feature that an extractor found no ground for in a clip, and why; one line of `lacking.jsonl`.

    final: it is of the clip itself, and would be the same another time; a clip that was gone or killed a process is not.
    """

    clip_id: str
    feature: str
    reason: str
    final: bool = True


class ShardIndex(Stored):
    """`NAME.index.json`. plan_sha256 says from which clips and settings the shard was made.

    features: the shape of each feature that any sample has, with 0 for a length that is not the same in all.
    extractors: who made the features that were added to the shard after it was built; lacking: where they made none.
    """

    schema_version: int
    shard: str
    split: str
    plan_sha256: str
    size_bytes: int
    sha256: str
    features: dict[str, tuple[int, ...]]
    extractors: Extractors = Field(default_factory=dict)
    lacking: tuple[Lacking, ...] = ()
    samples: tuple[IndexedSample, ...]
    rejects: tuple[Reject, ...]


class ShardEntry(Stored):
    """A shard as the manifest names it. labels: label name to one level a sample, in tar order; lacks: feature name to the
    places in that order of the samples without it, where some sample of the set has it."""

    name: str
    split: str
    num_samples: int
    size_bytes: int
    sha256: str
    index_sha256: str
    labels: dict[str, tuple[int, ...]]
    lacks: dict[str, tuple[int, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> "ShardEntry":
        if not SHARD_NAME.fullmatch(self.name):
            raise ValueError(f"'{self.name}' is no name of a shard")
        if any(len(levels) != self.num_samples for levels in self.labels.values()):
            raise ValueError(f"{self.name} has not one level a sample")
        if any(places and not 0 <= min(places) <= max(places) < self.num_samples for places in self.lacks.values()):
            raise ValueError(f"{self.name} has not so many samples as lack a feature")
        return self


class SplitSummary(Stored):
    """One split: its samples, its people, and how many samples have each level of each label."""

    num_samples: int
    subjects: tuple[str, ...]
    label_histogram: dict[str, tuple[int, ...]]


class Manifest(Stored):
    """`manifest.json`. label_names: label name to the names of its levels, lowest first; notice: what a reader must know.

    preprocess: how videos became frames, None where the set holds no frames. features: name to shape, with 0 for a
    length that differs from sample to sample. extractors: who made the frames and each feature.
    """

    format: str = "rapt-shards"
    schema_version: int
    dataset: str
    simulated: bool
    notice: str
    label_names: dict[str, tuple[str, ...]]
    preprocess: PreprocessConfig | None
    features: dict[str, tuple[int, ...]]
    extractors: Extractors
    splits: dict[str, SplitSummary]
    shards: tuple[ShardEntry, ...]
    num_rejected: int

    @model_validator(mode="after")
    def _fits(self) -> "Manifest":
        if not self.label_names:
            raise ValueError("no label is named")
        for shard in self.shards:
            for name, levels in shard.labels.items():
                if levels and not NO_LEVEL <= min(levels) <= max(levels) < len(self.label_names.get(name, ())):
                    raise ValueError(f"{shard.name} has a level of '{name}' that has no name")
        return self

    @property
    def digest(self) -> str:
        """sha256 of the manifest's bytes (`sha256sum manifest.json`): the data version that runs and bundles record."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def index_name(shard: str) -> str:
    """`train-000000.tar` -> `train-000000.index.json`."""
    return shard.removesuffix(".tar") + ".index.json"


def next_index_name(shard: str) -> str:
    """Where the index of a tar lies that is about to be replaced."""
    return shard.removesuffix(".tar") + ".next.json"


def current_index(store: Store, shard: str, *, there: Container[str] | None = None) -> ShardIndex:
    """The index that goes with a shard's tar as it lies there, whatever became of the process that replaced it.

    there: the names that the store holds, where they are known, so that it is not asked for what it has not.
    ShardError where there is none, or the tar is neither the old nor the new one.
    """
    index = _stored_index(store, index_name(shard))
    if index is None:
        raise ShardError(f"{store.uri}/{index_name(shard)}: missing; copy it again, or run the same `rapt shards build` again")
    may_come = there is None or next_index_name(shard) in there
    coming = _stored_index(store, next_index_name(shard)) if may_come else None
    if coming is None:
        return index
    with fetched(store, shard) as tar:
        found = file_sha256(tar)
    if found == coming.sha256:
        store.write(index_name(shard), coming.to_bytes())
        index = coming
    elif found != index.sha256:
        raise ShardError(f"{store.uri}/{shard}: its sha256 is not its index's; copy the set again, or build it again")
    store.delete(next_index_name(shard))
    return index


def _stored_index(store: Store, name: str) -> ShardIndex | None:
    try:
        return ShardIndex.from_bytes(store.read(name), origin=f"{store.uri}/{name}")
    except FileNotFoundError:
        return None


def read_manifest(store: Store | str | Path) -> Manifest:
    """Read `manifest.json` of a folder or a bucket. ShardError where it is missing, damaged or of another schema version."""
    if isinstance(store, str | Path):
        store = open_store(store)
    path = f"{store.uri}/manifest.json"
    try:
        content = store.read("manifest.json")
    except FileNotFoundError:
        if EXTRACTING in store.names():
            raise ShardError(
                f"{store.uri}: features are being added to its shards; wait, or run the same `rapt shards extract` again"
            ) from None
        raise ShardError(
            f"{store.uri}: no manifest.json there, so no whole set of shards; run `rapt shards build` with this as OUT"
        ) from None
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror}); check the folder and its permissions") from None
    manifest = Manifest.from_bytes(content, origin=path)
    if manifest.schema_version != SCHEMA_VERSION:
        raise ShardError(
            f"{path}: schema version {manifest.schema_version}, this Rapt reads {SCHEMA_VERSION}; build the shards again"
        )
    return manifest


def read_index(store: Store, entry: ShardEntry) -> ShardIndex:
    """A shard's index. ShardError where it is missing, damaged or not the one that the manifest names."""
    path = f"{store.uri}/{index_name(entry.name)}"
    index = ShardIndex.from_bytes(index_bytes(store, entry), origin=path)
    if len(index.samples) != entry.num_samples:
        raise ShardError(f"{path}: holds {len(index.samples)} samples, the manifest says {entry.num_samples}; build it again")
    return index


def index_bytes(store: Store, entry: ShardEntry) -> bytes:
    """The bytes of a shard's index, which have the sha256 that the manifest names; ShardError otherwise."""
    path = f"{store.uri}/{index_name(entry.name)}"
    try:
        content = store.read(index_name(entry.name))
    except OSError:
        raise ShardError(f"{path}: missing; copy it again, or run the same `rapt shards build` again") from None
    if hashlib.sha256(content).hexdigest() != entry.index_sha256:
        raise ShardError(f"{path}: not the index that the manifest names; copy the set again, or build it again")
    return content
