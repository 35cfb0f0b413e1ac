"""DAiSEE (Gupta et al. 2016) as published: `DataSet/{Train,Validation,Test}/SUBJECT/CLIP/CLIP.avi` and `Labels/*.csv`.

The three label files are found wherever they lie below SOURCE, and clips by their name. Quirks of the official files,
all met here: the last header ends in a space, ids mix .avi and .mp4, some ids have no clip and some clips no id. A clip
id's first six digits are its subject. Transcripts and OpenFace CSVs that somebody made are found by the clips' names too.
"""

from data_shards.datasets.label_file import parse_level, read_label_rows
from data_shards.datasets.listing_draft import ListingDraft
from data_shards.datasets.sidecar_files import SidecarFiles
from data_shards.datasets.video_files import VideoFiles, stem_of
from data_shards.errors import DataError
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing
from data_shards.storage.source import Source

__all__ = ["LABEL_FILES", "LABEL_NAMES", "list_clips"]

LABEL_NAMES: dict[str, tuple[str, ...]] = dict.fromkeys(("engagement", "boredom", "confusion", "frustration"), ENGAGEMENT_LEVELS)
LABEL_FILES = {"train": "TrainLabels.csv", "validation": "ValidationLabels.csv", "test": "TestLabels.csv"}


def list_clips(source: Source) -> Listing:
    """List every clip of the official splits below `source`; ids without clip and clips without id are rejects."""
    videos, sidecars = VideoFiles(source, within="DataSet"), SidecarFiles(source)
    draft = ListingDraft()
    labelled: set[str] = set()
    for split, label_file in LABEL_FILES.items():
        found = source.named(label_file)
        if not found:
            raise DataError(f"{source.uri}: no {label_file} there; name the folder that holds DAiSEE's DataSet and Labels")
        for number, row in read_label_rows(source, found[0], required=("ClipID", "Engagement")):
            place = f"{label_file} line {number}"
            with draft.entry(row["ClipID"]):
                stem = stem_of(row["ClipID"], place=place)
                labelled.add(stem)
                draft.add(_clip(stem, videos, sidecars, split, row, place), place=place)
    return Listing(
        dataset="daisee",
        label_names=LABEL_NAMES,
        clips=tuple(draft.clips.values()),
        rejects=(*draft.rejects, *videos.unlabelled(labelled)),
    )


def _clip(stem: str, videos: VideoFiles, sidecars: SidecarFiles, split: str, row: dict[str, str], place: str) -> ListedClip:
    video = videos.get(stem, place=place)
    videos.check_split(video, stem, split, place=place)
    labels = {
        affect: parse_level(row.get(affect.capitalize(), ""), num_levels=len(levels), place=place, column=affect)
        for affect, levels in LABEL_NAMES.items()
    }
    transcript, openface_csv, unclear = sidecars.of_stem(stem)
    return ListedClip(
        clip_id=stem,
        video=video,
        subject=stem[:6],
        session=stem[:7],
        split=split,
        labels=labels,
        transcript=transcript,
        openface_csv=openface_csv,
        unclear=unclear,
    )
