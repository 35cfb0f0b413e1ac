"""Shards for the training benchmarks: simulated clips for models that see frames, random arrays for models that read features."""

import os
from pathlib import Path

import numpy as np

__all__ = ["feature_shards", "frame_shards"]


def frame_shards(num_clips: int, *, num_frames: int, size_px: int) -> Path:
    """Simulated clips as frames, below the state folder; made once."""
    from cluster.commands.shards import listing_of
    from cluster.home import home
    from data_shards.building.build import build_shards
    from data_shards.preprocess import PreprocessConfig

    folder = home() / "shards" / f"bench-{num_clips}-{num_frames}x{size_px}"
    cores = os.cpu_count() or 1
    listing = listing_of("simulated", str(num_clips), seed=0, balance="uniform", workers=cores)
    build_shards(listing, folder, preprocess=PreprocessConfig(num_frames=num_frames, size_px=size_px), num_workers=cores)
    return folder


def feature_shards(num_clips: int) -> Path:
    """Random arrays of the sizes of CMOSE's clips (13.72 s at 25 frames a second), below the state folder; made once."""
    from cluster.home import home
    from data_shards.building.build import build_shards
    from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing
    from data_shards.preprocess import PreprocessConfig

    folder = home() / "shards" / f"bench-features-{num_clips}"
    rng = np.random.default_rng(0)
    clips = tuple(
        ListedClip(
            clip_id=f"clip-{number:05d}",
            subject=f"person-{number % 50:02d}",
            split="train" if number % 10 else "validation",
            labels={"engagement": number % 4},
            features={
                "openface": rng.standard_normal((int(rng.integers(250, 344)), 49)).astype(np.float32),
                "i3d": rng.standard_normal(1024).astype(np.float32),
            },
        )
        for number in range(num_clips)
    )
    listing = Listing(
        dataset="made up",
        label_names={"engagement": ENGAGEMENT_LEVELS},
        clips=clips,
        extractors={"openface": {"numpy": "1"}, "i3d": {"numpy": "1"}},
    )
    build_shards(listing, folder, preprocess=PreprocessConfig())
    return folder
