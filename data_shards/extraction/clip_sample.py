"""One video file to what a model reads of it, frames and features, as the shards that trained the model were made."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_shards.decode import DecodeLimits, check_container
from data_shards.errors import ClipError
from data_shards.extraction.contract import ClipMaterial, Extractor
from data_shards.extraction.extract import extract_features
from data_shards.extraction.look import Look, look_at_clip, look_at_windows
from data_shards.extraction.recorded import extractor_of
from data_shards.listing import Extractors
from data_shards.preprocess import PreprocessConfig, preprocess_file, preprocess_windows
from data_shards.sample import Sample, SampleMeta
from data_shards.storage.store import file_sha256

__all__ = [
    "LONGEST_TIMELINE_S",
    "TIMELINE",
    "ClipRecipe",
    "ClipSample",
    "WindowSample",
    "clip_sample",
    "load_extractors",
    "window_spans_s",
]

TIMELINE = "timeline"  # among what a clip lacks: why it has none
_ONE_WINDOW = 1.5  # windows that a clip may be long and still be one
LONGEST_TIMELINE_S = 600.0  # 60 windows of 50 frames of 224 pixels are 50 MB of JPEGs; what is longer is a recording, not a clip


@dataclass(frozen=True)
class ClipRecipe:
    """How a video becomes a sample: its frames by `preprocess`, unless None, and features by the extractors of a manifest's
    records. Plain values, so that it can be sent to a process.

    window_s: how long a window of a longer clip's timeline is, 0 for none. [choice] 10: DAiSEE's clips, which models learn
    from, are of 10 s, CMOSE's of 13.7 on average.
    """

    preprocess: PreprocessConfig | None
    extractors: Extractors = field(default_factory=dict)
    window_s: float = 10.0


class WindowSample(NamedTuple):
    """A part of a longer clip, from start_s to end_s: its own sample, and what a look at it has shown."""

    start_s: float
    end_s: float
    sample: Sample
    look: Look


class ClipSample(NamedTuple):
    """A sample, and why it lacks those features that it lacks, or its TIMELINE.

    look: what a look at the video has shown, None where there was only a stored sample. windows: of a clip of more than one
    and a half windows, in order and without gaps; none where the model reads features, see `clip_sample`.
    """

    sample: Sample
    lacking: dict[str, str]
    look: Look | None = None
    windows: tuple[WindowSample, ...] = ()


def clip_sample(
    path: Path, recipe: ClipRecipe, limits: DecodeLimits | None = None, *, transcript: Path | None = None
) -> ClipSample:
    """The sample of a video file, a look at it, and its windows. ClipError where its pictures cannot be used.

    [choice] A model that reads features gets no windows: I3D of each would take several seconds, and speech is of the whole.
    """
    sample = _with_frames(path, recipe.preprocess, limits)
    clip = _with_features(path, sample, recipe, limits, transcript) if recipe.extractors else ClipSample(sample, {})
    windows, missing = _timeline(path, clip.sample, recipe, limits)
    lacking = {**clip.lacking, **({TIMELINE: missing} if missing else {})}
    return clip._replace(
        look=_look_of(windows) if windows else _look(path, clip.sample, limits), windows=windows, lacking=lacking
    )


def window_spans_s(duration_s: float, window_s: float) -> list[tuple[float, float]]:
    """(start, end) in seconds of a clip's windows: all window_s long but the last, which has half of that to one and a half.

    duration_s: more than one and a half windows.
    """
    num_windows = int(duration_s / window_s + 0.5)
    return [(k * window_s, (k + 1) * window_s if k + 1 < num_windows else duration_s) for k in range(num_windows)]


def _timeline(
    path: Path, sample: Sample, recipe: ClipRecipe, limits: DecodeLimits | None
) -> tuple[tuple[WindowSample, ...], str]:
    """(the clip's windows, why it has none although it is long)."""
    duration_s = sample.meta.duration_s or 0.0
    if recipe.window_s <= 0 or duration_s <= _ONE_WINDOW * recipe.window_s:
        return (), ""
    if duration_s > LONGEST_TIMELINE_S:
        return (), f"only clips of up to {LONGEST_TIMELINE_S:.0f} s get one; send a recording as a job"
    if recipe.extractors or recipe.preprocess is None:
        return (), "the model reads features of the whole clip, which are not made window by window"
    spans_s = window_spans_s(duration_s, recipe.window_s)
    try:
        parts = list(zip(spans_s, preprocess_windows(path, recipe.preprocess, spans_s, limits), strict=True))
        looks = look_at_windows(path, parts, limits)
    except ClipError as error:  # the whole clip could be read: a damaged stretch costs the timeline alone
        return (), str(error)
    return tuple(WindowSample(*span_s, part, look) for (span_s, part), look in zip(parts, looks, strict=True)), ""


def _look(path: Path, sample: Sample, limits: DecodeLimits | None) -> Look | None:
    """A look at a clip without windows; None where its OpenFace rows show somebody, or its pictures cannot be looked at."""
    rows = sample.features.get("openface")
    if rows is not None and np.isfinite(rows).all(axis=1).any():
        return None
    try:
        return look_at_clip(path, sample, limits)
    except ClipError:  # what the model reads of it may be whole, and says itself what it lacks
        return None


def _look_of(windows: Sequence[WindowSample]) -> Look:
    """Of the whole clip: the mean of its windows' face shares, by time; off where the camera is off in all of them.

    [choice] A window in which the camera is off shows no face.
    """
    length_s = sum(window.end_s - window.start_s for window in windows)
    if all(window.look.camera_off for window in windows):
        return Look(None, camera_off=True)
    if any(window.look.face_share is None and not window.look.camera_off for window in windows):
        return Look(None, camera_off=False)
    seen_s = sum((window.look.face_share or 0.0) * (window.end_s - window.start_s) for window in windows)
    return Look(round(seen_s / length_s, 4), camera_off=False)


def _with_features(
    path: Path, sample: Sample, recipe: ClipRecipe, limits: DecodeLimits | None, transcript: Path | None
) -> ClipSample:
    material = ClipMaterial(name=path.name, video=path, transcript=transcript)
    found = extract_features(material, load_extractors(recipe), limits)
    meta = sample.meta
    if meta.duration_s is None:
        meta = meta.model_copy(update={"duration_s": found.video.duration_s if found.video else None})
    return ClipSample(replace(sample, meta=meta, features=found.features), found.lacking)


def load_extractors(recipe: ClipRecipe) -> dict[str, Extractor]:
    """The recipe's extractors, loaded once a process. ModelError where one is not what made the training data."""
    return {name: _loaded(json.dumps(record, sort_keys=True)) for name, record in recipe.extractors.items()}


@cache
def _loaded(record: str) -> Extractor:
    return extractor_of(json.loads(record))


def _with_frames(path: Path, config: PreprocessConfig | None, limits: DecodeLimits | None) -> Sample:
    if config is not None:
        return preprocess_file(path, config, limits)
    check_container(path)
    known = SampleMeta(clip_id=path.name, subject="", session="", split="", labels={}, source_sha256=file_sha256(path))
    return Sample(meta=known)
