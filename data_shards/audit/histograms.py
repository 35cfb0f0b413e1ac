"""How many clips of each level there are, by label, split and person."""

from collections.abc import Mapping, Sequence

from data_shards.audit.findings import Finding, finding
from data_shards.audit.records import AuditedClip
from data_shards.schema import Stored

__all__ = ["LabelHistogram", "SplitHistogram", "histograms", "missing_classes"]


class SplitHistogram(Stored):
    """One split: clips of each level, lowest first, in all and by person; not_labelled: clips without this label."""

    levels: tuple[int, ...]
    subjects: dict[str, tuple[int, ...]]
    not_labelled: int


class LabelHistogram(Stored):
    """One label: the names of its levels, lowest first, and its splits."""

    level_names: tuple[str, ...]
    splits: dict[str, SplitHistogram]


def histograms(clips: Sequence[AuditedClip], label_names: Mapping[str, tuple[str, ...]]) -> dict[str, LabelHistogram]:
    """By label, in the order in which the splits are met."""
    splits = list(dict.fromkeys(clip.split for clip in clips))
    return {
        label: LabelHistogram(
            level_names=names,
            splits={split: _of_split([c for c in clips if c.split == split], label, len(names)) for split in splits},
        )
        for label, names in label_names.items()
    }


def _of_split(clips: Sequence[AuditedClip], label: str, num_levels: int) -> SplitHistogram:
    counts: dict[str, list[int]] = {}
    not_labelled = 0
    for clip in clips:
        own = counts.setdefault(clip.subject, [0] * num_levels)
        level = clip.labels.get(label, -1)
        if level < 0:
            not_labelled += 1
        else:
            own[level] += 1
    totals = tuple(sum(own[level] for own in counts.values()) for level in range(num_levels))
    subjects = {subject: tuple(own) for subject, own in sorted(counts.items())}
    return SplitHistogram(levels=totals, subjects=subjects, not_labelled=not_labelled)


def missing_classes(found: Mapping[str, LabelHistogram]) -> list[Finding]:
    """A finding where a level that some split has is absent from another: its recall is then unknown, or never learnt."""
    cases = []
    for label, histogram in found.items():
        for level, name in enumerate(histogram.level_names):
            having = [split for split, counts in histogram.splits.items() if counts.levels[level]]
            lacking = [split for split, counts in histogram.splits.items() if not counts.levels[level] and any(counts.levels)]
            cases += [f"{split}: no clip of {label} {level} ({name}), {having[0]} has some" for split in lacking if having]
    return finding("missing_class", "warning", "levels of a label that a split has no clip of", cases)
