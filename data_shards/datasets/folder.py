"""A folder of clips with a `labels.csv`: clip, label, subject, split; further columns are kept as text.

clip     the video's path below the folder
label    engagement level 0 to 3, from very low to very high; empty: not labelled yet
subject  who is in it
split    train, validation or test
session  optional: the sitting it was cut from
simulated  optional: any text marks the whole folder as simulated
"""

from pathlib import Path, PurePosixPath

from data_shards.errors import ClipError, DataError
from data_shards.label_file import parse_level, read_label_rows
from data_shards.listing import ENGAGEMENT_LEVELS, SPLITS, ListedClip, Listing, Reject

__all__ = ["VIDEO_SUFFIXES", "list_clips"]

VIDEO_SUFFIXES = frozenset([".avi", ".mp4", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".ts", ".3gp"])
_COLUMNS = ("clip", "label", "subject", "split")


def list_clips(source: Path) -> Listing:
    """List `source/labels.csv`. A fault of the label file raises DataError; a missing or unlabelled clip is a reject."""
    path = source / "labels.csv"
    clips: dict[str, ListedClip] = {}
    rejects: list[Reject] = []
    simulated = False
    for number, row in read_label_rows(path, required=_COLUMNS):
        simulated = simulated or bool(row.get("simulated"))
        try:
            clip = _clip(source, row, place=f"{path} line {number}")
            if clip.clip_id in clips:
                raise ClipError(f"{path} line {number}: the clip '{clip.clip_id}' stands here a second time; keep one")
            clips[clip.clip_id] = clip
        except ClipError as error:
            rejects.append(Reject(clip_id=row["clip"], source=row["clip"], reason=str(error)))
    listed = {row.clip_id for row in clips.values()} | {reject.clip_id for reject in rejects}
    for video in sorted(p for p in source.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES):
        name = video.relative_to(source).as_posix()
        if name not in listed:
            rejects.append(Reject(clip_id=name, source=name, reason=f"{name}: no row in labels.csv, so no label"))
    return Listing(
        dataset="simulated" if simulated else "folder",
        label_names={"engagement": ENGAGEMENT_LEVELS},
        clips=tuple(clips.values()),
        rejects=tuple(rejects),
        simulated=simulated,
    )


def _clip(source: Path, row: dict[str, str], *, place: str) -> ListedClip:
    if not row["label"]:
        raise ClipError(f"{place}: not labelled yet")
    video = source / row["clip"]
    level = parse_level(row["label"], num_levels=len(ENGAGEMENT_LEVELS), place=place, column="label")
    if row["split"] not in SPLITS:
        raise DataError(f"{place}: split is '{row['split']}', it must be one of {', '.join(SPLITS)}; mend the label file")
    if not row["subject"]:
        raise DataError(f"{place}: no subject, so nobody can keep the splits apart by person; name the person")
    try:
        inside, is_file = video.resolve().is_relative_to(source.resolve()), video.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a NUL in it, a link to itself
        raise ClipError(f"{place}: clip '{row['clip'][:80]}' cannot be looked up ({error}); mend the name") from None
    if not inside:
        raise ClipError(f"{place}: clip '{row['clip']}' lies outside the folder; move it inside")
    if not is_file:
        raise ClipError(f"{place}: no file '{row['clip']}' in {source}; copy it there or remove the row")
    return ListedClip(
        clip_id=PurePosixPath(row["clip"]).as_posix(),
        path=video,
        subject=row["subject"],
        session=row.get("session", ""),
        split=row["split"],
        labels={"engagement": level},
        extra={name: value for name, value in row.items() if name not in (*_COLUMNS, "session") and value},
    )
