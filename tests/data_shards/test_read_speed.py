"""The figures of `rapt shards bench` count what was read while the clock ran, and nothing else."""

import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_shards.building.build import build_shards
from data_shards.errors import ConfigError
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing
from data_shards.manifest import Manifest
from data_shards.preprocess import PreprocessConfig
from data_shards.reading.read_speed import ReadSpeed, measure_read_speed

Shards = tuple[Path, Manifest]


def measured(folder: Path, *, seconds: float) -> ReadSpeed:
    return measure_read_speed(folder, split="train", num_threads=2, seconds=seconds, cache=None)


def test_what_was_decoded_before_the_clock_started_is_not_counted(
    simulated_shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame_s, opened = 0.004, Image.open

    def slowly_opened(*arguments: Any, **options: Any) -> Image.Image:
        time.sleep(frame_s)  # never less: two threads cannot be faster than this, on any machine
        return opened(*arguments, **options)

    monkeypatch.setattr(Image, "open", slowly_opened)
    speed = measured(simulated_shards[0], seconds=0.6)
    assert 0 < speed.decoded_samples_per_s <= 2 / (6 * frame_s)
    assert speed.stored_samples_per_s > speed.decoded_samples_per_s


def test_a_set_of_which_no_batch_can_be_made_is_refused(tmp_path: Path) -> None:
    clips = tuple(
        ListedClip(
            clip_id=str(number),
            subject=str(number),
            split="train",
            labels={"engagement": number % 4},
            features={"gaze": np.ones((5, 3 + number), dtype=np.float32)},
        )
        for number in range(8)
    )
    listing = Listing(dataset="made up", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=clips)
    build_shards(listing, tmp_path / "set", preprocess=PreprocessConfig())
    with pytest.raises(ConfigError, match=r"has no frames, and the rows of its features \(gaze\) differ"):
        measured(tmp_path / "set", seconds=0.1)


def test_no_shard_stays_open(simulated_shards: Shards) -> None:
    gc.collect()
    gc.disable()  # which would hide what was left open
    try:
        measured(simulated_shards[0], seconds=0.1)
        assert str(simulated_shards[0]) not in Path("/proc/self/maps").read_text()
    finally:
        gc.enable()
