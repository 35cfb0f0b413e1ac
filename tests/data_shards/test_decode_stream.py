"""A pass over a video's frames: the right ones, upright, in order; extractors that share a pass do not disturb each other."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from data_shards.decode import DecodeLimits, decode_clip
from data_shards.decode_stream import FrameStream, StreamInfo
from data_shards.errors import ClipError, ConfigError
from data_shards.extraction import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.extract import extract_features
from tests.data_shards.test_decode import write_video


def frames_of(stream: FrameStream, numbers_N: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    portions = list(stream.portions(numbers_N))
    assert np.concatenate([portion.numbers_N for portion in portions]).tolist() == numbers_N.tolist()
    assert all(len(portion.frames_NHWC) <= 16 for portion in portions)
    return np.concatenate([portion.frames_NHWC for portion in portions])


@pytest.mark.parametrize("name", ["test1.avi", "swiz3n.mpg", "rot_90.mov"])
def test_the_frames_are_those_that_sharding_decodes(name: str, real_data: Path) -> None:
    path = real_data / "videos" / name
    stream = FrameStream(path)
    num_frames = min(20, stream.info.num_frames)
    numbers_N = stream.at_rate(num_frames / stream.info.duration_s)
    size = (stream.info.width_px, stream.info.height_px)
    decoded = decode_clip(path, num_frames=num_frames, frame_size=lambda width, height: size)
    assert len(numbers_N) == num_frames
    np.testing.assert_array_equal(frames_of(stream, numbers_N), decoded.frames_THWC)


def test_a_rate_gives_equal_parts_of_time_and_one_frame_at_least(tmp_path: Path) -> None:
    even = FrameStream(write_video(tmp_path / "even.mp4", [i / 10 for i in range(30)]))
    assert even.at_rate(10).tolist() == list(range(30))
    assert even.at_rate(1).tolist() == [5, 15, 25]
    assert even.at_rate(0.01).tolist() == [15]
    uneven = FrameStream(write_video(tmp_path / "uneven.mp4", [0.0, 0.1, 0.2, 3.0, 3.1, 3.2]))
    assert set(uneven.at_rate(1).tolist()) <= {2, 5}  # what is on screen at the seconds' middles


def test_a_large_video_is_scaled_down_and_a_bomb_is_refused(real_data: Path) -> None:
    info = FrameStream(real_data / "videos" / "crowd_1080p.mp4").info
    assert (info.width_px, info.height_px) == (1280, 720)
    with pytest.raises(ClipError, match="pixels a frame, over the limit"):
        FrameStream(real_data / "videos" / "crowd_1080p.mp4", DecodeLimits(max_pixels=1000 * 1000))
    damaged = FrameStream(real_data / "videos" / "corrupted.mp4")
    with pytest.raises(ClipError, match="damaged"):
        frames_of(damaged, np.arange(damaged.info.num_frames))


class Brightness(Extractor):
    """The mean of each frame it sees; it fails where it is told to."""

    settings_type = ExtractorSettings

    def __init__(self, fps: float, failure: Exception | None = None) -> None:
        super().__init__(ExtractorSettings())
        self.fps = fps
        self.failure = failure

    def read(self, clip: ClipMaterial, stream: StreamInfo | None) -> Reading:
        return BrightnessReading(self.failure)


class BrightnessReading(Reading):
    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure
        self.rows: list[list[float]] = []

    def see(self, frames_NHWC: npt.NDArray[np.uint8], times_N: npt.NDArray[np.float64]) -> None:
        if self.failure:
            raise self.failure
        self.rows += [[frame.mean(), time_s] for frame, time_s in zip(frames_NHWC, times_N.tolist(), strict=True)]

    def finish(self) -> npt.NDArray[np.float32]:
        return np.array(self.rows, dtype=np.float32)


def test_an_extractor_sees_the_same_whoever_runs_beside_it(real_data: Path) -> None:
    clip = ClipMaterial(name="clip", video=real_data / "videos" / "noface_face.mov")
    alone = {fps: extract_features(clip, {"one": Brightness(fps)}).features["one"] for fps in (3.0, 7.0)}
    beside = extract_features(clip, {"slow": Brightness(3.0), "fast": Brightness(7.0), "all": Brightness(1000.0)}).features
    np.testing.assert_array_equal(beside["slow"], alone[3.0])
    np.testing.assert_array_equal(beside["fast"], alone[7.0])
    assert len(beside["all"]) == 169


def test_what_fails_in_one_extractor_is_its_own_reason_and_a_fault_of_ours_is_raised(real_data: Path) -> None:
    clip = ClipMaterial(name="clip", video=real_data / "videos" / "test1.avi")
    found = extract_features(
        clip,
        {"good": Brightness(2.0), "bad": Brightness(2.0, ClipError("no such thing")), "worse": Brightness(2.0, KeyError("x"))},
    )
    assert found.features.keys() == {"good"}
    assert found.lacking["bad"] == "no such thing"
    assert found.lacking["worse"].startswith("worse cannot be made of it (KeyError")
    with pytest.raises(ConfigError):
        extract_features(clip, {"ours": Brightness(2.0, ConfigError("no weights"))})
