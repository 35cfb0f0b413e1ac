"""Made-up features of CMOSE's kinds, tiny, as shards: OpenFace rows of different lengths, I3D, speech for half of the clips."""

from pathlib import Path

import numpy as np

from data_shards.building.build import build_shards
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing
from data_shards.manifest import Manifest
from data_shards.preprocess import PreprocessConfig

__all__ = ["TINY_CMOSE", "cmose_like_clip", "cmose_like_shards"]

TINY_CMOSE = (
    "model.openface_width=6",
    "model.i3d_width=8",
    "model.chunks=4",
    "model.min_rows=16",
    "model.hidden=8",
    "model.levels=1",
    "loss.pool=32",
    "loop.epochs=2",
    "loop.global_batch=8",
)
_COUNTS = {"train": 40, "validation": 16, "test": 16}


def cmose_like_clip(number: int, split: str, rng: np.random.Generator) -> ListedClip:
    """The level is in OpenFace's first column and in I3D's; every other clip has speech, every fifth frames without a face."""
    level = number % 4
    rows = rng.normal(size=(int(rng.integers(5, 40)), 6)) * np.logspace(0, 3, 6)
    rows[:, 0] += 3 * level
    if number % 5 == 0:
        rows[1:3] = np.nan
    features = {"openface": rows, "i3d": rng.uniform(size=8) + level}
    if number // 4 % 2 == 0:
        features |= {"speech": rng.normal(size=768) * 0.1 + level * 0.05, "acoustics": rng.normal(size=7) * 10}
    name = f"{split}-{number}"
    return ListedClip(
        clip_id=name,
        subject=name,
        split=split,
        labels={"engagement": level},
        features={key: values.astype(np.float32) for key, values in features.items()},
    )


def cmose_like_shards(folder: Path, *, lacking: tuple[str, ...] = ()) -> Manifest:
    """All clips of the three splits, as shards in `folder`; no clip has the features `lacking`."""
    rng = np.random.default_rng(0)
    clips = tuple(cmose_like_clip(number, split, rng) for split, count in _COUNTS.items() for number in range(count))
    for clip in clips:
        for name in lacking:
            clip.features.pop(name, None)
    listing = Listing(dataset="made up", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=clips)
    return build_shards(listing, folder, preprocess=PreprocessConfig(), num_workers=1)
