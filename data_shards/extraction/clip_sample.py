"""One video file to what a model reads of it, frames and features, as the shards that trained the model were made."""

import json
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from data_shards.decode import DecodeLimits, check_container
from data_shards.extraction.contract import ClipMaterial, Extractor
from data_shards.extraction.extract import extract_features
from data_shards.extraction.recorded import extractor_of
from data_shards.listing import Extractors
from data_shards.preprocess import PreprocessConfig, preprocess_file
from data_shards.sample import Sample, SampleMeta
from data_shards.storage.store import file_sha256

__all__ = ["ClipRecipe", "ClipSample", "clip_sample", "load_extractors"]


@dataclass(frozen=True)
class ClipRecipe:
    """How a video becomes a sample: its frames by `preprocess`, unless None, and features by the extractors of a manifest's
    records. Plain values, so that it can be sent to a process."""

    preprocess: PreprocessConfig | None
    extractors: Extractors = field(default_factory=dict)


class ClipSample(NamedTuple):
    """A sample, and why it lacks those features that it lacks."""

    sample: Sample
    lacking: dict[str, str]


def clip_sample(
    path: Path, recipe: ClipRecipe, limits: DecodeLimits | None = None, *, transcript: Path | None = None
) -> ClipSample:
    """The sample of a video file. ClipError where its pictures cannot be used."""
    sample = _with_frames(path, recipe.preprocess, limits)
    if not recipe.extractors:
        return ClipSample(sample, {})
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
