"""A pass over a video's frames: the right ones, upright, in order; extractors that share a pass do not disturb each other."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch

from data_shards.decode import DecodeLimits, decode_clip
from data_shards.decode_stream import FrameStream, StreamInfo
from data_shards.errors import ClipError, ConfigError
from data_shards.extraction import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.clip_sample import ClipRecipe, clip_sample
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
    assert uneven.at_rate(1).tolist() == [2, 2, 2]  # what is on screen at the seconds' middles


def test_a_frame_that_stays_longer_is_shown_again_so_that_rows_are_even_in_time(tmp_path: Path) -> None:
    """Ten frames in the first second, the last of which stays for two more, then ten more."""
    path = write_video(tmp_path / "a.mp4", [*(i / 10 for i in range(10)), *(3 + i / 10 for i in range(10))])
    stream = FrameStream(path)
    every = [*range(9), *[9] * 21, *range(10, 20)]
    assert stream.at_rate(1000).tolist() == stream.at_rate(10).tolist() == every
    found = extract_features(ClipMaterial(name="a", video=path), {"ten": Brightness(10.0), "five": Brightness(5.0)})
    for name, fps in (("ten", 10), ("five", 5)):
        means_T, times_T = found.features[name].T
        shown = stream.at_rate(fps).tolist()
        np.testing.assert_allclose(times_T, (np.arange(4 * fps) + 0.5) / fps, atol=0.01)
        assert [round((mean - 10) / 6) for mean in means_T.tolist()] == shown
    assert shown[5:15] == [9] * 10


def test_a_frame_that_stays_for_a_minute_comes_in_small_portions(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [*(i / 10 for i in range(10)), 60.0])
    sizes: list[int] = []

    class Counting(Brightness):
        def read(self, clip: ClipMaterial, stream: StreamInfo | None) -> Reading:
            return CountingReading(None)

    class CountingReading(BrightnessReading):
        def see(self, frames_NHWC: npt.NDArray[np.uint8], times_N: npt.NDArray[np.float64]) -> None:
            sizes.append(len(frames_NHWC))
            super().see(frames_NHWC, times_N)

    found = extract_features(ClipMaterial(name="a", video=path), {"count": Counting(10.0)})
    assert len(found.features["count"]) == pytest.approx(601, abs=1)
    assert max(sizes) <= 16


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
    for ours in (ConfigError("no weights"), MemoryError(), OSError("disk full")):
        with pytest.raises(type(ours)):
            extract_features(clip, {"ours": Brightness(2.0, ours)})
    for full in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(ConfigError, match=r"ours: the memory does not hold what it computes .*use fewer --workers"):
            extract_features(clip, {"ours": Brightness(2.0, full)})


@pytest.mark.parametrize("part", ["__init__", "portions"])
@pytest.mark.parametrize("fault", [ZeroDivisionError("0 pixels"), MemoryError("ours")])
def test_what_nobody_foresaw_of_a_decoder_is_a_lack_of_what_looks_at_pictures(
    fault: Exception, part: str, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise fault

    monkeypatch.setattr(FrameStream, part, fails)
    clip = ClipMaterial(name="clip", video=real_data / "videos" / "test1.avi")
    both = {"one": Brightness(2.0), "two": Brightness(3.0)}
    if isinstance(fault, MemoryError):
        with pytest.raises(MemoryError):
            extract_features(clip, both)
        return
    reason = "pictures cannot be made of it (ZeroDivisionError: 0 pixels)"
    assert extract_features(clip, both).lacking == {"one": reason, "two": reason}


def test_a_file_that_is_none_or_a_folder_is_a_sentence_for_a_model_of_features_alone(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(ClipError, match=r"cannot be read|not a plain file"):
            clip_sample(path, ClipRecipe(None))


def test_a_header_without_a_size_is_a_sentence(tmp_path: Path) -> None:
    """A transport stream of which nothing but the tables is there."""
    whole = tmp_path / "whole.ts"
    with av.open(str(whole), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    content = whole.read_bytes()
    tables = content[: 3 * 188]
    path = tmp_path / "tables.ts"
    path.write_bytes(tables * 4)
    with pytest.raises(ClipError, match=r"tables\.ts: its header says no size"):
        FrameStream(path)
