"""DAiSEE (Gupta et al. 2016) as published: `DataSet/{Train,Validation,Test}/SUBJECT/CLIP/CLIP.avi` and `Labels/*.csv`.

Quirks of the official label files, all met here: the last header ends in a space, ids mix .avi and .mp4, some ids
have no clip and some clips no id. A clip id's first six digits are its subject.
"""

from pathlib import Path

from data_shards.errors import ClipError, DataError
from data_shards.label_file import parse_level, read_label_rows
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing, Reject

__all__ = ["LABEL_NAMES", "list_clips"]

LABEL_NAMES: dict[str, tuple[str, ...]] = dict.fromkeys(("engagement", "boredom", "confusion", "frustration"), ENGAGEMENT_LEVELS)
_SPLIT_FOLDERS = {"train": "Train", "validation": "Validation", "test": "Test"}


def list_clips(source: Path) -> Listing:
    """List every clip of the official splits below `source`; ids without clip and clips without id are rejects."""
    videos_root = source / "DataSet"
    if not videos_root.is_dir():
        raise DataError(f"{source}: no folder DataSet there; name the folder that holds DAiSEE's DataSet and Labels")
    clips: dict[str, ListedClip] = {}
    rejects: list[Reject] = []
    for split, folder in _SPLIT_FOLDERS.items():
        videos = {video.stem: video for video in sorted((videos_root / folder).glob("*/*/*")) if video.is_file()}
        label_path = source / "Labels" / f"{folder}Labels.csv"
        labelled = set()
        for number, row in read_label_rows(label_path, required=("ClipID", "Engagement")):
            stem = Path(row["ClipID"]).stem
            labelled.add(stem)
            place = f"{label_path} line {number}"
            try:
                if stem in clips:
                    raise ClipError(f"{place}: clip {stem} is labelled a second time; the first line counts")
                if stem not in videos:
                    raise ClipError(f"clip {stem}: labelled in {label_path.name}, but not below DataSet/{folder}")
                clips[stem] = _clip(stem, videos[stem], split, row, place)
            except ClipError as error:
                rejects.append(Reject(clip_id=stem, source=row["ClipID"], reason=str(error)))
        for stem in sorted(videos.keys() - labelled):
            reason = f"clip {stem}: lies below DataSet/{folder}, but has no line in {label_path.name}"
            rejects.append(Reject(clip_id=stem, source=videos[stem].name, reason=reason))
    return Listing(dataset="daisee", label_names=LABEL_NAMES, clips=tuple(clips.values()), rejects=tuple(rejects))


def _clip(stem: str, video: Path, split: str, row: dict[str, str], place: str) -> ListedClip:
    labels = {
        affect: parse_level(row.get(affect.capitalize(), ""), num_levels=len(levels), place=place, column=affect)
        for affect, levels in LABEL_NAMES.items()
    }
    return ListedClip(clip_id=stem, path=video, subject=stem[:6], session=stem[:7], split=split, labels=labels)
