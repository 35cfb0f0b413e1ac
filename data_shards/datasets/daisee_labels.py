"""DAiSEE's official label files alone, without its videos: what they say, and where they disagree.

TrainLabels.csv, ValidationLabels.csv and TestLabels.csv are the official splits; AllLabels.csv claims to hold them all.
"""

from dataclasses import dataclass
from pathlib import Path

from data_shards.datasets.daisee import LABEL_NAMES
from data_shards.errors import DataError
from data_shards.label_file import parse_level, read_label_rows
from data_shards.listing import ListedClip, Listing, Reject

__all__ = ["DaiseeLabels", "list_labels"]

_SPLIT_FILES = {"train": "TrainLabels.csv", "validation": "ValidationLabels.csv", "test": "TestLabels.csv"}
_ALL = "AllLabels.csv"
_COLUMNS = ("ClipID", *(affect.capitalize() for affect in LABEL_NAMES))


@dataclass(frozen=True)
class DaiseeLabels:
    """listing: the official splits' clips, their paths not looked up. mismatches: where AllLabels.csv disagrees with them."""

    listing: Listing
    mismatches: tuple[Reject, ...]


def list_labels(source: Path) -> DaiseeLabels:
    """Read the label files in `source`, `source/Labels` or, failing these, the first folder below that holds them.

    DataError where a split's file is missing or wrong. AllLabels.csv may be missing: then nothing is compared.
    """
    folder = _label_folder(source)
    clips: dict[str, ListedClip] = {}
    rejects: list[Reject] = []
    for split, name in _SPLIT_FILES.items():
        for number, clip in _clips_of(folder / name, split):
            if clip.clip_id in clips:
                reason = f"{name} line {number}: labelled a second time; the first line counts"
                rejects.append(Reject(clip_id=clip.clip_id, source=clip.path.name, reason=reason))
            else:
                clips[clip.clip_id] = clip
    listing = Listing(dataset="daisee", label_names=LABEL_NAMES, clips=tuple(clips.values()), rejects=tuple(rejects))
    return DaiseeLabels(listing, tuple(_mismatches(clips, folder / _ALL)) if (folder / _ALL).exists() else ())


def _label_folder(source: Path) -> Path:
    name = _SPLIT_FILES["train"]
    places = [source, source / "Labels", *(path.parent for path in sorted(source.rglob(name)))]
    for folder in places:
        if (folder / name).is_file():
            return folder
    raise DataError(f"{source}: no {name} there or below; name the folder that holds DAiSEE's label files")


def _clips_of(path: Path, split: str) -> list[tuple[int, ListedClip]]:
    clips = []
    for number, row in read_label_rows(path, required=_COLUMNS):
        stem = Path(row["ClipID"]).stem
        labels = {
            affect: parse_level(
                row[affect.capitalize()], num_levels=len(levels), place=f"{path} line {number}", column=affect.capitalize()
            )
            for affect, levels in LABEL_NAMES.items()
        }
        # a clip id is the person's six digits, then the sitting's one, then the clip's
        clip = ListedClip(clip_id=stem, path=Path(row["ClipID"]), subject=stem[:6], session=stem[:7], split=split, labels=labels)
        clips.append((number, clip))
    return clips


def _mismatches(clips: dict[str, ListedClip], path: Path) -> list[Reject]:
    everything = {clip.clip_id: clip for _, clip in _clips_of(path, "")}
    found = [
        Reject(clip_id=stem, source=clip.path.name, reason=f"in {path.name}, but in no split's file")
        for stem, clip in everything.items()
        if stem not in clips
    ]
    for stem, clip in clips.items():
        if stem not in everything:
            reason = f"in {_SPLIT_FILES[clip.split]}, but not in {path.name}"
            found.append(Reject(clip_id=stem, source=clip.path.name, reason=reason))
        elif everything[stem].labels != clip.labels:
            reason = f"labels in {_SPLIT_FILES[clip.split]} differ from those in {path.name}"
            found.append(Reject(clip_id=stem, source=clip.path.name, reason=reason))
    return found
