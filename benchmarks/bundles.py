"""Bundles with random weights: a model takes as long as a trained one."""

from pathlib import Path

import numpy as np

from data_shards.listing import ENGAGEMENT_LEVELS
from data_shards.preprocess import PreprocessConfig
from training.bundle import BUNDLE_VERSION, BundleRecord, save_bundle
from training.config import RunConfig
from training.models import MODELS

__all__ = ["random_bundle"]


def random_bundle(folder: Path, run: RunConfig, preprocess: PreprocessConfig) -> Path:
    """A bundle of the recipe's model with random weights: it takes as long as a trained one."""
    scores = tuple(float(score) for score in np.linspace(-1, 1, len(ENGAGEMENT_LEVELS)))
    record = BundleRecord(
        schema_version=BUNDLE_VERSION,
        run_id="benchmark",
        run=run,
        label="engagement",
        level_names=tuple(ENGAGEMENT_LEVELS),
        level_scores=scores,
        temperature=1.0,
        preprocess=preprocess,
        dataset="none",
        simulated=True,
        notice="random weights",
        data_digest="",
        commit="",
        best_epoch=0,
        validation=None,
        test=None,
    )
    folder.mkdir()
    settings = run.model.model_copy(update={"weights": "none"} if "weights" in type(run.model).model_fields else {})
    save_bundle(folder, record, MODELS[settings.name](settings, len(ENGAGEMENT_LEVELS)))
    return folder
