"""DAiSEE's official label files alone, without its videos: what they say, and where they disagree.

TrainLabels.csv, ValidationLabels.csv and TestLabels.csv are the official splits; AllLabels.csv claims to hold them all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from data_shards.datasets.daisee import LABEL_FILES, LABEL_NAMES
from data_shards.datasets.label_file import parse_level, read_label_rows
from data_shards.datasets.listing_draft import ListingDraft
from data_shards.datasets.video_files import stem_of
from data_shards.errors import DataError
from data_shards.listing import ListedClip, Listing, Reject
from data_shards.storage.source import Source

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
    draft = ListingDraft()
    for split, name in LABEL_FILES.items():
        found = source.named(name)
        if not found:
            raise DataError(f"{source.uri}: no {name} there or below; name the folder that holds DAiSEE's label files")
        _read(source, found[0], split, draft)
    listing = Listing(dataset="daisee", label_names=LABEL_NAMES, clips=tuple(draft.clips.values()), rejects=tuple(draft.rejects))
    everything = source.named(_ALL)
    return DaiseeLabels(listing, tuple(_mismatches(draft.clips, source, everything[0])) if everything else ())


def _read(source: Source, name: str, split: str, draft: ListingDraft) -> None:
    """Add a label file's clips to the draft; a line that cannot be used becomes a reject."""
    for number, row in read_label_rows(source, name, required=_COLUMNS):
        place = f"{PurePosixPath(name).name} line {number}"
        with draft.entry(row["ClipID"]):
            stem = stem_of(row["ClipID"], place=place)
            labels = {
                affect: parse_level(row[affect.capitalize()], num_levels=len(levels), place=place, column=affect.capitalize())
                for affect, levels in LABEL_NAMES.items()
            }
            # a clip id is the person's six digits, then the sitting's one, then the clip's
            clip = ListedClip(clip_id=stem, subject=stem[:6], session=stem[:7], split=split, labels=labels)
            draft.add(clip, place=place)


def _mismatches(clips: Mapping[str, ListedClip], source: Source, name: str) -> Iterator[Reject]:
    everything = ListingDraft()
    _read(source, name, "", everything)
    for stem in everything.clips:
        if stem not in clips:
            yield Reject(clip_id=stem, source=stem, reason=f"in {_ALL}, but in no split's file")
    for stem, clip in clips.items():
        file = LABEL_FILES[clip.split]
        if stem not in everything.clips:
            yield Reject(clip_id=stem, source=stem, reason=f"in {file}, but not in {_ALL}")
        elif everything.clips[stem].labels != clip.labels:
            yield Reject(clip_id=stem, source=stem, reason=f"labels in {file} differ from those in {_ALL}")
