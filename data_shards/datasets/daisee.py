"""DAiSEE (Gupta et al. 2016) as published: `DataSet/{Train,Validation,Test}/SUBJECT/CLIP/CLIP.avi` and `Labels/*.csv`.

The three label files are found wherever they lie below SOURCE, and clips by their name. Quirks of the official files,
all met here: the last header ends in a space, ids mix .avi and .mp4, some ids have no clip and some clips no id. A clip
id's first six digits are its subject.
"""

from pathlib import PurePosixPath

from data_shards.datasets.folder import VIDEO_SUFFIXES
from data_shards.errors import ClipError, DataError
from data_shards.label_file import parse_level, read_label_rows
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing, Reject
from data_shards.source import Source, SourceFile

__all__ = ["LABEL_FILES", "LABEL_NAMES", "list_clips"]

LABEL_NAMES: dict[str, tuple[str, ...]] = dict.fromkeys(("engagement", "boredom", "confusion", "frustration"), ENGAGEMENT_LEVELS)
LABEL_FILES = {"train": "TrainLabels.csv", "validation": "ValidationLabels.csv", "test": "TestLabels.csv"}
_SPLIT_FOLDERS = {"Train": "train", "Validation": "validation", "Test": "test"}


def list_clips(source: Source) -> Listing:
    """List every clip of the official splits below `source`; ids without clip and clips without id are rejects."""
    videos = _videos(source)
    clips: dict[str, ListedClip] = {}
    rejects: list[Reject] = []
    labelled: set[str] = set()
    for split, label_file in LABEL_FILES.items():
        found = source.named(label_file)
        if not found:
            raise DataError(f"{source.uri}: no {label_file} there; name the folder that holds DAiSEE's DataSet and Labels")
        for number, row in read_label_rows(source, found[0], required=("ClipID", "Engagement")):
            stem = PurePosixPath(row["ClipID"]).stem
            labelled.add(stem)
            try:
                if stem in clips:
                    raise ClipError(f"{label_file} line {number}: clip {stem} is labelled a second time; the first line counts")
                clips[stem] = _clip(stem, videos, split, row, f"{label_file} line {number}")
            except ClipError as error:
                rejects.append(Reject(clip_id=stem, source=row["ClipID"], reason=str(error)))
    for stem in sorted(videos.keys() - labelled):
        reason = f"clip {stem}: has no line in any label file"
        rejects.append(Reject(clip_id=stem, source=videos[stem].name, reason=reason))
    return Listing(dataset="daisee", label_names=LABEL_NAMES, clips=tuple(clips.values()), rejects=tuple(rejects))


def _videos(source: Source) -> dict[str, SourceFile]:
    """Clip id to its video. Where the official folder DataSet is there, nothing outside it is a clip."""
    named = [PurePosixPath(name) for name in source.files]
    if any("DataSet" in name.parts[:-1] for name in named):
        named = [name for name in named if "DataSet" in name.parts[:-1]]
    return {name.stem: source.files[name.as_posix()] for name in named if name.suffix.lower() in VIDEO_SUFFIXES}


def _clip(stem: str, videos: dict[str, SourceFile], split: str, row: dict[str, str], place: str) -> ListedClip:
    if stem not in videos:
        raise ClipError(f"clip {stem}: labelled in {place}, but no video of that name is there")
    published = [_SPLIT_FOLDERS[part] for part in PurePosixPath(videos[stem].name).parts[:-1] if part in _SPLIT_FOLDERS]
    if published and published[-1] != split:
        raise ClipError(f"clip {stem}: lies in the {published[-1]} folder, but {place} puts it into {split}")
    labels = {
        affect: parse_level(row.get(affect.capitalize(), ""), num_levels=len(levels), place=place, column=affect)
        for affect, levels in LABEL_NAMES.items()
    }
    return ListedClip(clip_id=stem, video=videos[stem], subject=stem[:6], session=stem[:7], split=split, labels=labels)
