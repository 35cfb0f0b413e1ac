"""CMOSE (Wu et al. 2023) as published: `final_data_1.json`, and one OpenFace CSV a clip under `secondFeature/`.

The JSON maps a clip id to {"split", "label", "agreement", "embeds"}; embeds are 1,024 numbers of I3D, or none. Splits are
train, unlabel (the validation set) and test. The id `video10_100_person0` is clip 100 of person 0 of coaching session 10,
so the subject is video10_person0: one who sat in two sessions counts as two. CSVs and, where somebody has them, videos and
transcripts are found by their stem wherever they lie below SOURCE.
"""

import json
import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.datasets.label_file import decode_text, parse_level_name
from data_shards.datasets.listing_draft import ListingDraft
from data_shards.datasets.sidecar_files import SidecarFiles
from data_shards.datasets.video_files import VideoFiles
from data_shards.errors import ClipError, DataError
from data_shards.listing import Extractors, FeatureFile, ListedClip, Listing, Reject
from data_shards.storage.source import Source, SourceFile

__all__ = ["LABEL_NAMES", "NOTICE", "list_clips"]

LABEL_NAMES: dict[str, tuple[str, ...]] = {
    "engagement": ("highly disengaged", "disengaged", "engaged", "highly engaged"),
}
NOTICE = (
    "CMOSE's published split is random by clip: the same people are in training, validation and test, so a figure on it "
    "overstates what a model does for somebody new; --splits person keeps people apart"
)
_LABEL_FILE = "final_data_1.json"
_LEVELS = {"highly disengage": 0, "disengage": 1, "engage": 2, "highly engage": 3}
_SPLITS = {"train": "train", "unlabel": "validation", "test": "test"}
_CLIP_ID = re.compile(r"(video\d+)_\d+_(person\d+)", re.ASCII)
_I3D_VALUES = 1024
_NO_EMBEDS = np.empty(0, dtype=np.float32)
_EXTRACTORS: Extractors = {
    "i3d": {"name": "I3D", "weights": "Kinetics-400, RGB", "by": "CMOSE"},
    "openface": {"name": "OpenFace", "version": "2.2", "by": "CMOSE"},
}


class _Fields(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that an id that stands there twice is seen."""


def list_clips(source: Source) -> Listing:
    """List every record of `final_data_1.json`; one that cannot be used is a reject. DataError where it is no such file."""
    videos, csvs, sidecars = VideoFiles(source), _csvs(source), SidecarFiles(source)
    draft = ListingDraft()
    for clip_id, record in _records(source):
        with draft.entry(clip_id):
            draft.add(_clip(clip_id, record, videos, csvs, sidecars), place=_LABEL_FILE)
    known = draft.clips.keys() | {reject.clip_id for reject in draft.rejects}
    unknown = [
        Reject(clip_id=stem, source=file.name, reason=f"clip {stem}: has no record in {_LABEL_FILE}")
        for stem, file in csvs.items()
        if stem not in known
    ]
    used = {name for clip in draft.clips.values() for name in clip.features}
    return Listing(
        dataset="cmose",
        label_names=LABEL_NAMES,
        clips=tuple(draft.clips.values()),
        rejects=(*draft.rejects, *unknown, *videos.unlabelled(known | csvs.keys())),
        notice=NOTICE,
        extractors={name: extractor for name, extractor in _EXTRACTORS.items() if name in used},
    )


def _records(source: Source) -> _Fields:
    """The (clip id, record) pairs of the JSON file, the embeds as float32 arrays."""
    found = source.named(_LABEL_FILE)
    if not found:
        raise DataError(f"{source.uri}: no {_LABEL_FILE} there; name the folder that holds it and secondFeature")
    place = f"{source.uri.rstrip('/')}/{found[0]}"
    text = decode_text(source.read(found[0]), place=place)
    try:
        # the hook runs at the end of each record, so at no time are there more than 1,024 floats as Python objects
        records = json.loads(text, object_pairs_hook=_packed)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not readable as JSON ({error}); download it again") from None
    if not isinstance(records, _Fields):
        raise DataError(f"{place}: holds no records by clip id; download it again")
    return records


def _packed(pairs: list[tuple[str, Any]]) -> _Fields:
    return _Fields((name, _as_array(value) if name == "embeds" else value) for name, value in pairs)


def _as_array(values: Any) -> npt.NDArray[np.float32] | None:
    """Embeds as float32, of whatever shape; None where they are not numbers of a float's range."""
    try:
        with np.errstate(over="ignore"):
            return _NO_EMBEDS if values is None else np.array(values, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        return None


def _csvs(source: Source) -> dict[str, SourceFile]:
    """Clip id to its OpenFace CSV; the one in a folder secondFeature where several have its name."""
    csvs: dict[str, SourceFile] = {}
    for path in sorted(map(PurePosixPath, source.files), key=lambda path: ("secondFeature" not in path.parts, path)):
        if path.suffix.lower() == ".csv" and _CLIP_ID.fullmatch(path.stem):
            csvs.setdefault(path.stem, source.files[path.as_posix()])
    return csvs


def _clip(clip_id: str, record: Any, videos: VideoFiles, csvs: dict[str, SourceFile], sidecars: SidecarFiles) -> ListedClip:
    place = f"{_LABEL_FILE}, clip {clip_id[:80]}"
    named = _CLIP_ID.fullmatch(clip_id)
    if named is None:
        raise ClipError(f"{place}: not an id like video10_100_person0; mend the file")
    if not isinstance(record, _Fields):
        raise ClipError(f"{place}: its record is no object; mend the file")
    fields = dict(record)
    if str(fields.get("split")) not in _SPLITS:
        raise ClipError(f"{place}: split is '{str(fields.get('split'))[:40]}', not one of {', '.join(_SPLITS)}; mend the file")
    level = parse_level_name(str(fields.get("label")), _LEVELS, place=place)
    features: dict[str, npt.NDArray[np.float32] | FeatureFile] = {}
    embeds = fields.get("embeds", _NO_EMBEDS)
    if embeds is None or embeds.shape not in ((0,), (_I3D_VALUES,)) or not np.isfinite(embeds).all():
        raise ClipError(f"{place}: embeds are not {_I3D_VALUES} finite numbers, nor empty; mend the file")
    if embeds.size:
        features["i3d"] = embeds
    if clip_id in csvs:
        features["openface"] = FeatureFile(file=csvs[clip_id], reader="openface_csv")
    video = videos.find(clip_id)
    if video is None and not features:
        raise ClipError(f"{place}: no I3D embeds, no OpenFace CSV and no video of that name; fetch secondFeature")
    beside = sidecars.of_stem(clip_id)
    return ListedClip(
        clip_id=clip_id,
        subject=f"{named[1]}_{named[2]}",
        session=named[1],
        split=_SPLITS[str(fields["split"])],
        labels={"engagement": level},
        video=video,
        features=features,
        extra={"agreement": str(fields["agreement"])} if "agreement" in fields else {},
        transcript=beside.transcript,
        unclear={kind: why for kind, why in beside.unclear.items() if kind == "transcript"},  # its CSVs are `csvs`
    )
