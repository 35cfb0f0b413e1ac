"""A folder of clips with a `labels.csv`: clip, label, subject, split; further columns are kept as text.

clip     the video's path below the folder
label    engagement level 0 to 3, from very low to very high
subject  who is in it
split    train, validation or test
session  optional: the sitting it was cut from
simulated  optional: any text marks the whole folder as simulated
text     optional: what is said in the clip, for extractors

Extractors also take a clip's transcript (.vtt, .srt, or .json in a folder `transcripts`) and its OpenFace .csv, wherever in
the folder a file of the video's stem lies.
"""

from pathlib import PurePosixPath

from data_shards.datasets.label_file import parse_level, read_label_rows
from data_shards.datasets.sidecar_files import SidecarFiles
from data_shards.datasets.video_files import VIDEO_SUFFIXES
from data_shards.errors import ClipError
from data_shards.listing import ENGAGEMENT_LEVELS, SPLITS, ListedClip, Listing, Reject
from data_shards.storage.source import Source

__all__ = ["list_clips"]

_COLUMNS = ("clip", "label", "subject", "split")


def list_clips(source: Source) -> Listing:
    """List `labels.csv`. A file that is no CSV of these columns raises DataError; a row that cannot be used is a reject."""
    place = f"{source.uri.rstrip('/')}/labels.csv"
    sidecars = SidecarFiles(source)
    clips: dict[str, ListedClip] = {}
    rejects: list[Reject] = []
    simulated = False
    for number, row in read_label_rows(source, "labels.csv", required=_COLUMNS):
        simulated = simulated or bool(row.get("simulated"))
        try:
            clip = _clip(source, sidecars, row, place=f"{place} line {number}")
            if clip.clip_id in clips:
                raise ClipError(f"{place} line {number}: the clip '{clip.clip_id}' stands here a second time; keep one")
            clips[clip.clip_id] = clip
        except ClipError as error:
            rejects.append(Reject(clip_id=row["clip"], source=row["clip"], reason=str(error)))
    listed = clips.keys() | {reject.clip_id for reject in rejects}
    for name in source.files:
        if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES and name not in listed:
            rejects.append(Reject(clip_id=name, source=name, reason=f"{name}: no row in labels.csv, so no label"))
    return Listing(
        dataset="simulated" if simulated else "folder",
        label_names={"engagement": ENGAGEMENT_LEVELS},
        clips=tuple(clips.values()),
        rejects=tuple(rejects),
        simulated=simulated,
    )


def _clip(source: Source, sidecars: SidecarFiles, row: dict[str, str], *, place: str) -> ListedClip:
    level = parse_level(row["label"], num_levels=len(ENGAGEMENT_LEVELS), place=place, column="label")
    if row["split"] not in SPLITS:
        raise ClipError(f"{place}: split is '{row['split'][:40]}', it must be one of {', '.join(SPLITS)}; mend the label file")
    if not row["subject"]:
        raise ClipError(f"{place}: no subject, so nobody can keep the splits apart by person; name the person")
    name = PurePosixPath(row["clip"]).as_posix()
    if name.startswith(("/", "../")) or "/../" in name:
        raise ClipError(f"{place}: clip '{row['clip'][:80]}' lies outside the folder; move it inside")
    if name not in source.files:
        raise ClipError(f"{place}: no file '{row['clip'][:80]}' in {source.uri}; copy it there or remove the row")
    transcript, openface_csv, unclear = sidecars.of(source.files[name])
    return ListedClip(
        clip_id=name,
        video=source.files[name],
        subject=row["subject"],
        session=row.get("session", ""),
        split=row["split"],
        labels={"engagement": level},
        extra={column: value for column, value in row.items() if column not in (*_COLUMNS, "session") and value},
        transcript=transcript,
        openface_csv=openface_csv,
        unclear=unclear,
    )
