"""Shards of features, without a frame, that several test files train on."""

from pathlib import Path

import numpy as np
import pytest

from data_shards.building.build import build_shards
from data_shards.listing import ENGAGEMENT_LEVELS, NO_LEVEL, ListedClip, Listing
from data_shards.manifest import Manifest
from data_shards.preprocess import PreprocessConfig


def clip(number: int, split: str, rng: np.random.Generator) -> ListedClip:
    """Noise of OpenFace's scales; the level is in the trend over time of one column in sixty."""
    level = number % 4
    values = rng.normal(size=(15, 60)) * np.logspace(0, 6, 60)
    values[:, 3] = np.linspace(0, (level - 1.5) * 4, 15) + rng.normal(size=15) * 0.2
    labels = {"engagement": NO_LEVEL if number % 13 == 5 else level}
    name = f"{split}-{number}"
    features = {"openface_15": values.astype(np.float32)}
    return ListedClip(clip_id=name, subject=name, split=split, labels=labels, features=features)


@pytest.fixture(scope="session")
def feature_shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    rng = np.random.default_rng(0)
    counts = {"train": 96, "validation": 32, "test": 32}
    clips = tuple(clip(number, split, rng) for split, count in counts.items() for number in range(count))
    listing = Listing(dataset="made up", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=clips)
    folder = tmp_path_factory.mktemp("features")
    return folder, build_shards(listing, folder, preprocess=PreprocessConfig(), num_workers=2)
