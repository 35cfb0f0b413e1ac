"""DAiSEE's official label files alone, without its videos: what they say, and where they disagree.

TrainLabels.csv, ValidationLabels.csv and TestLabels.csv are the official splits; AllLabels.csv claims to hold them all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from data_shards.datasets.daisee import LABEL_FILES, LABEL_NAMES
from data_shards.errors import ClipError, DataError
from data_shards.label_file import parse_level, read_label_rows
from data_shards.listing import ListedClip, Listing, Reject
from data_shards.source import Source

__all__ = ["DaiseeLabels", "list_labels"]

_ALL = "AllLabels.csv"
_COLUMNS = ("ClipID", *(affect.capitalize() for affect in LABEL_NAMES))


@dataclass(frozen=True)
class DaiseeLabels:
    """listing: the official splits' clips, their videos not looked for. mismatches: where AllLabels.csv disagrees with them."""

    listing: Listing
    mismatches: tuple[Reject, ...]


def list_labels(source: Source) -> DaiseeLabels:
    """Read the label files, wherever they lie below the source.

    DataError where a split's file is missing. AllLabels.csv may be missing: then nothing is compared.
    """
    clips: dict[str, ListedClip] = {}
    rejects: list[Reject] = []
    for split, name in LABEL_FILES.items():
        found = source.named(name)
        if not found:
            raise DataError(f"{source.uri}: no {name} there or below; name the folder that holds DAiSEE's label files")
        for entry in _entries(source, found[0], split):
            if isinstance(entry, Reject):
                rejects.append(entry)
            elif entry.clip_id in clips:
                reason = f"{name}: labelled a second time; the first line counts"
                rejects.append(Reject(clip_id=entry.clip_id, source=entry.clip_id, reason=reason))
            else:
                clips[entry.clip_id] = entry
    listing = Listing(dataset="daisee", label_names=LABEL_NAMES, clips=tuple(clips.values()), rejects=tuple(rejects))
    everything = source.named(_ALL)
    return DaiseeLabels(listing, tuple(_mismatches(clips, source, everything[0])) if everything else ())


def _entries(source: Source, name: str, split: str) -> Iterator[ListedClip | Reject]:
    """The clips of a label file; a line with a level out of range is a reject."""
    for number, row in read_label_rows(source, name, required=_COLUMNS):
        stem = PurePosixPath(row["ClipID"]).stem
        place = f"{name} line {number}"
        try:
            labels = {
                affect: parse_level(row[column], num_levels=len(levels), place=place, column=column)
                for affect, levels in LABEL_NAMES.items()
                for column in (affect.capitalize(),)
            }
        except ClipError as error:
            yield Reject(clip_id=stem, source=row["ClipID"], reason=str(error))
            continue
        # a clip id is the person's six digits, then the sitting's one, then the clip's
        yield ListedClip(clip_id=stem, subject=stem[:6], session=stem[:7], split=split, labels=labels)


def _mismatches(clips: dict[str, ListedClip], source: Source, name: str) -> Iterator[Reject]:
    everything = {entry.clip_id: entry.labels for entry in _entries(source, name, "") if isinstance(entry, ListedClip)}
    for stem in (stem for stem in everything if stem not in clips):
        yield Reject(clip_id=stem, source=stem, reason=f"in {_ALL}, but in no split's file")
    for stem, clip in clips.items():
        file = LABEL_FILES[clip.split]
        if stem not in everything:
            yield Reject(clip_id=stem, source=stem, reason=f"in {file}, but not in {_ALL}")
        elif everything[stem] != clip.labels:
            yield Reject(clip_id=stem, source=stem, reason=f"labels in {file} differ from those in {_ALL}")
