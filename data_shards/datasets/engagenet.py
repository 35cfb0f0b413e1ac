"""EngageNet (Singh et al. 2023, EmotiW 2023) as published: `{Train,Validation,Test}/CLIP.mp4` and a label file a split.

The label files are `train_engagement_labels`, `validation_engagement_labels` and `test_engagement_labels`, with the
columns `chunk` (the video's name) and `label`; they are found wherever they lie below SOURCE. The first two are published
as .xlsx and have to be saved as CSV. A clip `subject_7_as2uk9lhe2_vid_0_3.mp4` is the fourth of video 0 of subject_7. Train,
validation and test hold 90, 11 and 26 people, and none of them twice.

Four levels of engagement, and 'SNP(Subject Not Present)': nobody is in view, so engagement has no level and `presence` is 0.
"""

import re
from pathlib import PurePosixPath

from data_shards.datasets.label_file import parse_level_name, read_label_rows
from data_shards.datasets.listing_draft import ListingDraft
from data_shards.datasets.video_files import VideoFiles, stem_of
from data_shards.errors import ClipError, DataError
from data_shards.listing import NO_LEVEL, SPLITS, ListedClip, Listing
from data_shards.storage.source import Source

__all__ = ["LABEL_NAMES", "list_clips"]

LABEL_NAMES: dict[str, tuple[str, ...]] = {
    "engagement": ("not engaged", "barely engaged", "engaged", "highly engaged"),
    "presence": ("subject not present", "present"),
}
_NOT_PRESENT = ("snp subject not present", "snp", "subject not present")
_LEVELS = {name: level for level, name in enumerate(LABEL_NAMES["engagement"])} | dict.fromkeys(_NOT_PRESENT, NO_LEVEL)
_CLIP_NAME = re.compile(r"(subject_[^_]+)_.+", re.IGNORECASE)


def list_clips(source: Source) -> Listing:
    """List every clip of the label files below `source`; rows without clip and clips without row are rejects.

    DataError where there is no label file, or one is a spreadsheet.
    """
    videos = VideoFiles(source)
    draft = ListingDraft()
    labelled: set[str] = set()
    for split, name in _label_files(source).items():
        for number, row in read_label_rows(source, name, required=("chunk", "label")):
            place = f"{PurePosixPath(name).name} line {number}"
            with draft.entry(row["chunk"]):
                stem = stem_of(row["chunk"], place=place)
                labelled.add(stem)
                draft.add(_clip(stem, videos, split, row, place), place=place)
    return Listing(
        dataset="engagenet",
        label_names=LABEL_NAMES,
        clips=tuple(draft.clips.values()),
        rejects=(*draft.rejects, *videos.unlabelled(labelled)),
    )


def _label_files(source: Source) -> dict[str, str]:
    """Split to the name of its label file; a split that has none is left out."""
    farthest_first = sorted(source.files, key=lambda name: (name.count("/"), name), reverse=True)
    files = {PurePosixPath(name).name.casefold(): name for name in farthest_first}
    found: dict[str, str] = {}
    for split in SPLITS:
        stem = f"{split}_engagement_labels"
        if f"{stem}.csv" in files:
            found[split] = files[f"{stem}.csv"]
        elif f"{stem}.xlsx" in files:
            raise DataError(f"{source.uri}/{files[f'{stem}.xlsx']}: a spreadsheet; save it as {stem}.csv beside it")
    if not found:
        raise DataError(
            f"{source.uri}: no train_engagement_labels.csv there; name the folder that holds EngageNet's Train, Validation "
            "and Test folders and its label files, saved as CSV"
        )
    return found


def _clip(stem: str, videos: VideoFiles, split: str, row: dict[str, str], place: str) -> ListedClip:
    named = _CLIP_NAME.fullmatch(stem)
    if named is None:
        raise ClipError(f"{place}: '{stem[:80]}' names no subject (as in subject_7_as2uk9lhe2_vid_0_3); mend the label file")
    video = videos.get(stem, place=place)
    videos.check_split(video, stem, split, place=place)
    level = parse_level_name(row["label"], _LEVELS, place=place)
    return ListedClip(
        clip_id=stem,
        video=video,
        subject=named[1].casefold(),
        session=stem.rpartition("_")[0],
        split=split,
        labels={"engagement": level, "presence": int(level != NO_LEVEL)},
    )
