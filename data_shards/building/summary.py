"""What the manifest says of a set's shards, from their indexes."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from data_shards.errors import ShardError
from data_shards.listing import NO_LEVEL, SPLITS, Extractors
from data_shards.manifest import ShardEntry, ShardIndex, SplitSummary
from data_shards.sample import member_of

__all__ = ["common_shape", "feature_shapes", "lacking_jsonl", "made_by", "shard_entries", "split_summaries"]

LabelNames = Mapping[str, tuple[str, ...]]


def feature_shapes(indexes: Sequence[ShardIndex]) -> dict[str, tuple[int, ...]]:
    """Every feature that any sample has, and its shape."""
    names = sorted({name for index in indexes for name in index.features})
    return {name: common_shape([index.features[name] for index in indexes if name in index.features]) for name in names}


def common_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The one shape of arrays, with 0 for a length that is not the same in all; (0,) where even their layout differs."""
    if len({len(shape) for shape in shapes}) != 1:
        return (0,)
    return tuple(lengths[0] if len(set(lengths)) == 1 else 0 for lengths in zip(*shapes, strict=True))


def made_by(indexes: Sequence[ShardIndex]) -> Extractors:
    """Who made the features that were added to the shards. ShardError where two shards do not agree: never mixed silently."""
    makers: Extractors = {}
    for index in indexes:
        for name, maker in index.extractors.items():
            if makers.setdefault(name, maker) != maker:
                raise ShardError(
                    f"{index.shard}: its '{name}' was not made as in other shards ({_difference(makers[name], maker)}); "
                    f"run `rapt shards extract --with {name} --again` to make all anew"
                )
    return makers


def _difference(one: Mapping[str, object], other: Mapping[str, object]) -> str:
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(f"{name}: {one.get(name)} and {other.get(name)}" for name in names)[:200]


def lacking_jsonl(indexes: Sequence[ShardIndex]) -> bytes:
    """The content of lacking.jsonl."""
    return b"".join(entry.to_bytes() for index in indexes for entry in index.lacking)


def shard_entries(label_names: LabelNames, indexes: Sequence[ShardIndex]) -> tuple[ShardEntry, ...]:
    """The shards as the manifest names them."""
    features = sorted({name for index in indexes for name in index.features})
    return tuple(_entry(label_names, features, index) for index in indexes)


def _entry(label_names: LabelNames, features: Sequence[str], index: ShardIndex) -> ShardEntry:
    lacks = {
        name: places
        for name in features
        if (places := tuple(at for at, sample in enumerate(index.samples) if member_of(name) not in sample.members))
    }
    return ShardEntry(
        name=index.shard,
        split=index.split,
        num_samples=len(index.samples),
        size_bytes=index.size_bytes,
        sha256=index.sha256,
        index_sha256=hashlib.sha256(index.to_bytes()).hexdigest(),
        labels={name: tuple(sample.labels.get(name, NO_LEVEL) for sample in index.samples) for name in label_names},
        lacks=lacks,
    )


def split_summaries(label_names: LabelNames, indexes: Sequence[ShardIndex]) -> dict[str, SplitSummary]:
    """Split to its samples, its people and its labels."""
    by_split = {split: [index for index in indexes if index.split == split] for split in SPLITS}
    return {split: _summary(label_names, own) for split, own in by_split.items() if own}


def _summary(label_names: LabelNames, indexes: Sequence[ShardIndex]) -> SplitSummary:
    samples = [sample for index in indexes for sample in index.samples]
    histogram = {}
    for name, levels in label_names.items():
        counts = Counter(sample.labels.get(name, NO_LEVEL) for sample in samples)
        histogram[name] = tuple(counts[level] for level in range(len(levels)))
    return SplitSummary(
        num_samples=len(samples),
        subjects=tuple(sorted({sample.subject for sample in samples})),
        label_histogram=histogram,
    )
