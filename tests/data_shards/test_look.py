"""A look at a clip: cameras that are off, faces in small and in larger frames, and nobody who looks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_shards.decode import decode_clip
from data_shards.errors import ConfigError
from data_shards.extraction.look import Look, look_at_clip, look_at_sample, look_at_windows, prepare_look
from data_shards.preprocess import PreprocessConfig, preprocess_file, preprocess_windows
from data_shards.sample import Sample, SampleMeta
from tests.tiles import HEIGHT_PX, WIDTH_PX, Frame, dark_noise, plain, tile, write_clip

SIZES = [PreprocessConfig(num_frames=8, size_px=size, resize=rule) for size, rule in ((32, "crop"), (64, "crop"), (64, "pad"))]
LARGE = PreprocessConfig(num_frames=8, size_px=224)
NO_MODEL = Look(None, camera_off=False)


@pytest.fixture
def face_model(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPT_FACE_LANDMARKER", str(real_data / "models" / "face_landmarker.task"))


def real_frame(real_data: Path) -> Frame:
    found = decode_clip(real_data / "videos" / "5100462069.avi", num_frames=1, frame_size=lambda *_: (WIDTH_PX, HEIGHT_PX))
    return found.frames_THWC[0]


TILES: dict[str, Callable[[Path], list[Frame]]] = {
    "black": lambda _: [plain((0, 0, 0))] * 15,
    "grey": lambda _: [plain((128, 128, 128))] * 15,
    "one colour": lambda _: [plain((20, 60, 160))] * 15,
    "dark noise": lambda _: [dark_noise(8, seed) for seed in range(15)],
    "initials": lambda _: [tile()] * 15,
    "photo": lambda real: [tile(real_frame(real))] * 15,
    "who speaks has a ring": lambda _: [tile(ring=second % 2 == 1) for second in range(5) for _ in range(3)],
}


@pytest.mark.parametrize("name", TILES)
def test_a_camera_that_is_off_is_told_from_its_picture(real_data: Path, tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / "tile.mp4", TILES[name](real_data))
    for config in (*SIZES, LARGE) if name != "who speaks has a ring" else (LARGE,):
        sample = preprocess_file(path, config)
        assert look_at_sample(sample).camera_off, config
        assert look_at_clip(path, sample) == Look(None, camera_off=True)
    without_frames = Sample(meta=SampleMeta(**{**sample.meta.model_dump(), "jpeg_offsets": (), "frame_times_s": ()}))
    assert look_at_clip(path, without_frames).camera_off  # of a model that reads features alone


def test_a_frozen_picture_of_a_person_and_real_clips_are_no_camera_that_is_off(real_data: Path, tmp_path: Path) -> None:
    frozen = write_clip(tmp_path / "frozen.mp4", [real_frame(real_data)] * 15)
    videos = [path for path in (real_data / "videos").iterdir() if path.name != "corrupted.mp4"]
    for path in (frozen, *videos):
        for config in SIZES if path.suffix != ".mov" and "1080p" not in path.name else SIZES[:1]:
            assert not look_at_sample(preprocess_file(path, config)).camera_off, (path.name, config)


@pytest.mark.parametrize(
    ("clip", "lowest", "highest"),
    [
        ("5100462069.avi", 0.5, 1.0),
        ("test2.avi", 0.5, 1.0),  # not seen at all in 32 pixels, nor in a padded 64
        ("crowd_1080p.mp4", 0.1, 1.0),  # faces of a twelfth of the picture, seen in larger frames alone
        ("noface_face.mov", 0.2, 0.6),
        ("no_face.mp4", 0.0, 0.0),  # in 224 pixels one of 8 frames seems to show a face
    ],
)
def test_faces_are_found_whatever_the_model_reads(
    real_data: Path, face_model: None, clip: str, lowest: float, highest: float
) -> None:
    path = real_data / "videos" / clip
    for config in (SIZES[0], LARGE) if clip.startswith(("crowd", "noface")) else (*SIZES, LARGE):
        look = look_at_clip(path, preprocess_file(path, config))
        assert look.face_share is not None
        assert lowest <= look.face_share <= highest, config


def test_a_stored_sample_tells_that_nobody_is_there_only_where_its_frames_are_large_enough(
    real_data: Path, face_model: None
) -> None:
    nobody, somebody = real_data / "videos" / "no_face.mp4", real_data / "videos" / "test2.avi"
    small, crop, pad = SIZES
    assert [look_at_sample(preprocess_file(nobody, config)).face_share for config in (small, crop, pad)] == [None, 0.0, None]
    assert [look_at_sample(preprocess_file(somebody, config)).face_share for config in (small, pad)] == [None, None]


def test_each_window_has_a_look_of_its_own(real_data: Path, face_model: None) -> None:
    path, spans_s = real_data / "videos" / "noface_face.mov", [(0.0, 2.0), (5.0, 6.3)]
    samples = preprocess_windows(path, LARGE, spans_s)
    before, after = look_at_windows(path, list(zip(spans_s, samples, strict=True)))
    assert before == Look(0.0, camera_off=False)
    assert after.face_share is not None
    assert after.face_share >= 0.5


def test_without_a_face_model_nobody_looks_and_nothing_is_fetched(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPT_FACE_LANDMARKER", raising=False)
    path = real_data / "videos" / "no_face.mp4"
    assert not prepare_look()
    assert look_at_clip(path, preprocess_file(path, SIZES[1])) == NO_MODEL


def test_a_named_model_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPT_FACE_LANDMARKER", str(tmp_path / "none.task"))
    with pytest.raises(ConfigError, match="no such face model file"):
        prepare_look()


def test_black_bars_are_no_part_of_the_picture(tmp_path: Path) -> None:
    busy = np.random.default_rng(0).integers(0, 255, (HEIGHT_PX, WIDTH_PX, 3)).astype(np.uint8)
    busy[: HEIGHT_PX // 3] = busy[-HEIGHT_PX // 3 :] = 0  # two thirds are bars
    path = write_clip(tmp_path / "bars.mp4", [np.roll(busy, 20 * second, axis=1) for second in range(15)])
    assert not look_at_sample(preprocess_file(path, LARGE)).camera_off
