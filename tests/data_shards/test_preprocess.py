"""The one function that sharding and serving share: its resize rule and its JPEG round trip."""

from pathlib import Path

import numpy as np
import pytest

from data_shards.preprocess import PreprocessConfig, preprocess_file
from tests.data_shards.test_decode import write_video


def test_crop_keeps_the_centre_and_pad_keeps_the_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", [0.0, 0.1, 0.2, 0.3], size=(128, 64))
    cropped = preprocess_file(path, PreprocessConfig(num_frames=2, size_px=32, resize="crop")).decode_frames()
    padded = preprocess_file(path, PreprocessConfig(num_frames=2, size_px=32, resize="pad")).decode_frames()
    assert cropped.shape == padded.shape == (2, 32, 32, 3)
    assert cropped.min() > 8  # picture everywhere
    assert padded[:, :6].max() < 8  # black above the picture: 128x64 becomes 32x16 in the middle
    assert padded[:, -6:].max() < 8
    assert padded[:, 12:20].min() > 8


def test_stored_frames_are_close_to_the_decoded_ones(real_data: Path) -> None:
    config = PreprocessConfig(num_frames=4, size_px=224, jpeg_quality=90)
    sample = preprocess_file(real_data / "videos" / "5100462069.avi", config)
    lossless_like = preprocess_file(real_data / "videos" / "5100462069.avi", config.model_copy(update={"jpeg_quality": 95}))
    difference = np.abs(sample.decode_frames().astype(int) - lossless_like.decode_frames().astype(int))
    assert difference.mean() < 4
    assert sample.meta.num_source_frames == 300
    assert sample.meta.duration_s == pytest.approx(10.0)
    assert sample.meta.frame_times_s == pytest.approx([1.2667, 3.7667, 6.2667, 8.7667], abs=0.05)


@pytest.mark.parametrize("size_px", [16, 18, 24, 36, 48, 54, 72])
def test_the_widths_at_which_decord_fails_are_met(tmp_path: Path, size_px: int) -> None:
    # at 16, 24, 48 and 72 pixels of width decord 0.6.0 decodes to four channels and then refuses them
    path = write_video(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
    for resize in ("crop", "pad"):
        config = PreprocessConfig.model_validate({"num_frames": 2, "size_px": size_px, "resize": resize})
        assert preprocess_file(path, config).decode_frames().shape == (2, size_px, size_px, 3)


def test_the_same_file_gives_the_same_bytes(simulated_folder: Path) -> None:
    path = next((simulated_folder / "clips").iterdir())
    config = PreprocessConfig(num_frames=5, size_px=48)
    assert preprocess_file(path, config) == preprocess_file(path, config)
