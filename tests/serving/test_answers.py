"""What an answer says: abstentions, intervals and timelines, alike from a file, over HTTP and from a stored sample."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from data_shards.errors import ClipError
from data_shards.extraction.clip_sample import LONGEST_TIMELINE_S, ClipRecipe, ClipSample, clip_sample, window_spans_s
from data_shards.extraction.look import Look
from data_shards.manifest import Manifest
from data_shards.preprocess import PreprocessConfig, preprocess_file, preprocess_windows
from data_shards.reading.reader import ShardSet
from serving.answer import Answer, AnyAnswer, CameraOff, NoFace, TooShort, Unsure, in_words, timeline_in_words
from serving.predictor import Predictor
from serving.timeline import interval_of
from tests.serving.endpoint import endpoint
from tests.tiles import plain, tile, write_clip
from training.bundle import BundleRecord, load_bundle, save_bundle
from training.calibration import Calibration
from training.registry import RegisteredModel


@pytest.fixture(scope="module", autouse=True)
def face_model(real_data: Path) -> Iterator[None]:
    """Named for the whole file, and for the decode children that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAPT_FACE_LANDMARKER", str(real_data / "models" / "face_landmarker.task"))
        yield


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path, face_model: None) -> Predictor:
    return Predictor(RegisteredModel(name="engagement", version="7", folder=tiny_bundle))


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with endpoint(predictor) as client:
        yield client


def calibrated(bundle: Path, folder: Path, threshold: float) -> Predictor:
    """The bundle's model with intervals of this threshold."""
    record, model = load_bundle(bundle)
    calibration = Calibration(coverage=0.9, threshold=threshold, num_clips=100, split="validation")
    save_bundle(folder, BundleRecord(**{**dict(record), "calibration": calibration}), model)
    return Predictor(RegisteredModel(name="engagement", version="8", folder=folder))


def said(answer: AnyAnswer) -> dict[str, object]:
    return answer.model_dump(mode="json", exclude={"timings"})


@pytest.mark.parametrize(
    ("clip", "kind"),
    [
        ("no_face.mp4", NoFace),
        ("noface_face.mov", Answer),
        ("5100462069.avi", Answer),
        ("crowd_1080p.mp4", Answer),
        ("rot_0.mov", TooShort),
        ("black.mp4", CameraOff),
        ("tile.mp4", CameraOff),
    ],
)
def test_the_answer_is_the_same_from_a_file_and_over_http(
    predictor: Predictor, client: TestClient, real_data: Path, tmp_path: Path, clip: str, kind: type[AnyAnswer]
) -> None:
    path = real_data / "videos" / clip
    if clip in ("black.mp4", "tile.mp4"):
        path = write_clip(tmp_path / clip, [plain((0, 0, 0)) if clip == "black.mp4" else tile()] * 20)
    answer = predictor.score_file(path)
    assert type(answer) is kind
    over_http = client.post("/v1/score", files={"clip": (clip, path.read_bytes())}).json()
    assert client.get("/v1/model").json()["looks_for_faces"] is True
    over_http.pop("timings", None)
    assert over_http == said(answer)
    if isinstance(answer, Answer):
        assert answer.face_share is not None
        assert (answer.face_share < 1) == (clip in ("noface_face.mov", "crowd_1080p.mp4", "5100462069.avi"))  # 32 pixels


def test_a_stored_sample_says_the_same(predictor: Predictor, real_data: Path, tmp_path: Path) -> None:
    model = Predictor(RegisteredModel(name="engagement", version="7", folder=wide_bundle(predictor, tmp_path)))
    black = write_clip(tmp_path / "black.mp4", [plain((0, 0, 0))] * 20)
    for path in (black, *(real_data / "videos" / name for name in ("no_face.mp4", "test1.avi", "rot_0.mov"))):
        stored = model.score(ClipSample(preprocess_file(path, model.recipe.preprocess), {}))
        assert said(stored) == said(model.score_file(path)), path.name


def wide_bundle(predictor: Predictor, folder: Path) -> Path:
    """The same model on frames of 64 pixels, which tell that nobody is there."""
    preprocess = PreprocessConfig(num_frames=6, size_px=64)
    record = BundleRecord(**{**dict(predictor.record), "preprocess": preprocess})
    save_bundle(folder / "wide", record, predictor.model)
    return folder / "wide"


def test_where_no_face_model_is_at_hand_the_model_says_so(
    tiny_bundle: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAPT_FACE_LANDMARKER")
    model = Predictor(RegisteredModel(name="engagement", version="7", folder=tiny_bundle))
    answer = model.score_file(real_data / "videos" / "no_face.mp4")
    assert not model.info.looks_for_faces
    assert isinstance(answer, Answer)
    assert answer.face_share is None


def test_an_interval_holds_the_level_and_an_open_one_is_no_answer(
    tiny_bundle: Path, simulated_folder: Path, tmp_path: Path
) -> None:
    clip = sorted((simulated_folder / "clips").iterdir())[0]
    narrow = calibrated(tiny_bundle, tmp_path / "narrow", 0.0).score_file(clip)
    assert isinstance(narrow, Answer)
    assert narrow.interval is not None
    assert narrow.interval.levels == (narrow.level,)
    assert narrow.interval.low <= narrow.score <= narrow.interval.high
    assert f"90% interval {narrow.interval.low:+z.2f} to {narrow.interval.high:+z.2f}, {narrow.level} (" in in_words(narrow)
    wide = calibrated(tiny_bundle, tmp_path / "wide", 1.0).score_file(clip)
    assert isinstance(wide, Unsure)
    assert (wide.interval.low, wide.interval.high, len(wide.interval.levels)) == (-1, 1, 4)
    assert wide.probabilities == narrow.probabilities
    assert "the model is unsure, every level is open at 90%, so no score" in in_words(wide)
    assert "score" not in said(wide)


def test_nothing_is_minus_zero(tiny_bundle: Path, tmp_path: Path) -> None:
    record = calibrated(tiny_bundle, tmp_path, 0.0).record
    interval = interval_of(np.array([0.0, 0.0, 1.0, 0.0]), record)  # of the upper half, whose edge is -1e-16 or so
    assert interval is not None
    assert interval.low == 0
    assert "-0.0" not in interval.model_dump_json()


def test_eight_clips_at_once_are_answered_as_one_by_one(
    predictor: Predictor, simulated_shards: tuple[Path, Manifest], real_data: Path
) -> None:
    test = ShardSet(simulated_shards[0], splits=("train",))
    clips = [ClipSample(test.read(number), {}, Look(1.0, camera_off=False)) for number in range(8)]
    clips[3] = clips[3]._replace(look=Look(0.0, camera_off=False))
    together = predictor.score_many(clips)
    for clip, answer in zip(clips, together, strict=True):
        alone = predictor.score(clip)
        assert type(answer) is type(alone)
        if isinstance(alone, Answer) and isinstance(answer, Answer):
            assert list(answer.probabilities.values()) == pytest.approx(list(alone.probabilities.values()), abs=1e-5)
            assert answer.score == pytest.approx(alone.score, abs=1e-5)
    assert isinstance(together[3], NoFace)
    assert len({answer.score for answer in together if isinstance(answer, Answer)}) > 1
    assert predictor.score_many([]) == []


def test_clips_of_different_shapes_go_together_and_one_that_cannot_be_scored_is_named(
    predictor: Predictor, simulated_folder: Path
) -> None:
    paths = sorted((simulated_folder / "clips").iterdir())[:3]
    clips = [
        clip_sample(path, ClipRecipe(PreprocessConfig(num_frames=6 + number, size_px=32))) for number, path in enumerate(paths)
    ]
    for clip, answer in zip(clips, predictor.score_many(clips), strict=True):
        alone = predictor.score(clip)
        assert isinstance(alone, Answer)
        assert isinstance(answer, Answer)
        assert answer.score == pytest.approx(alone.score, abs=1e-5)
        assert answer.frames_used == len(clip.sample.meta.frame_times_s)


def test_several_threads_share_a_predictor(predictor: Predictor, simulated_shards: tuple[Path, Manifest]) -> None:
    shards = ShardSet(simulated_shards[0], splits=("train",))
    clips = [ClipSample(shards.read(number), {}) for number in range(6)]  # without a look: faces are looked for here
    alone = [said(predictor.score(clip)) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        assert [said(answer) for answer in pool.map(predictor.score, clips * 2)] == alone * 2


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [
        (15.1, [(0, 10), (10, 15.1)]),
        (19.69, [(0, 10), (10, 19.69)]),
        (24.9, [(0, 10), (10, 24.9)]),
        (25.0, [(0, 10), (10, 20), (20, 25.0)]),
        (600.0, [(10 * k, 10 * k + 10) for k in range(60)]),
    ],
)
def test_windows_cover_a_clip_without_gaps(duration_s: float, expected: list[tuple[float, float]]) -> None:
    assert window_spans_s(duration_s, 10.0) == expected


def test_a_window_is_scored_as_the_clip_that_it_is(tmp_path: Path, predictor: Predictor) -> None:
    """Half a minute whose parts differ in colour: each window's sample is that of a clip cut out there."""
    rng = np.random.default_rng(0)
    frames = [np.full((96, 128, 3), (20 + 8 * second, 90, 250 - 8 * second), np.uint8) for second in range(30) for _ in range(4)]
    frames = [np.clip(frame + rng.integers(-20, 20, frame.shape), 0, 255).astype(np.uint8) for frame in frames]
    whole = write_clip(tmp_path / "whole.mp4", frames, fps=4)
    config = PreprocessConfig(num_frames=6, size_px=32)
    windows = preprocess_windows(whole, config, [(0.0, 10.0), (10.0, 20.0), (20.0, 30.0)])
    assert [window.meta.frame_times_s[0] for window in windows] == pytest.approx([0.75, 10.75, 20.75])  # 10 / 12 s, 4 fps
    for number, window in enumerate(windows):
        part = write_clip(tmp_path / f"{number}.mp4", frames[40 * number : 40 * (number + 1)], fps=4)
        alone = preprocess_file(part, config)
        assert alone.meta.frame_times_s == pytest.approx(np.array(window.meta.frame_times_s) - 10 * number)
        difference = np.abs(alone.decode_frames().astype(int) - window.decode_frames().astype(int)).mean()
        assert difference < 3  # of 255: both were encoded anew. Two neighbouring windows differ by 25


def test_a_longer_clip_has_a_timeline_and_a_score_of_the_whole(predictor: Predictor, real_data: Path, tmp_path: Path) -> None:
    path = real_data / "videos" / "WolfgangLanger_Pexels.mp4"
    answer = predictor.score_file(path)
    assert isinstance(answer, Answer)
    assert [(window.start_s, window.status) for window in answer.timeline] == [(0, "scored"), (10, "scored")]
    assert answer.timeline[-1].end_s == answer.duration_s == pytest.approx(19.6863)
    assert answer.lacking == {}
    without = clip_sample(path, ClipRecipe(predictor.recipe.preprocess, window_s=0))
    assert without.windows == ()
    alone = predictor.score(without)
    assert isinstance(alone, Answer)
    assert answer.score == pytest.approx(alone.score, abs=1e-5)
    assert timeline_in_words(answer)[1].startswith("10 to 19.6863 s: ")


def test_a_window_in_which_nobody_is_seen_has_no_score(predictor: Predictor, real_data: Path) -> None:
    clip = clip_sample(real_data / "videos" / "WolfgangLanger_Pexels.mp4", predictor.recipe)
    first, second = clip.windows
    looks = [(Look(0.0, False), "no_face"), (Look(None, True), "camera_off"), (Look(None, False), "scored")]
    for look, status in looks:
        answer = predictor.score(clip._replace(windows=(first._replace(look=look), second)))
        assert isinstance(answer, Answer)
        window, other = answer.timeline
        assert (window.status, other.status) == (status, "scored")
        assert (window.score is None) == (window.level_index is None) == (status != "scored")


def test_a_clip_that_is_too_long_for_a_timeline_says_so(tmp_path: Path, predictor: Predictor, real_data: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    seconds = int(LONGEST_TIMELINE_S) + 2
    path = write_clip(tmp_path / "long.mp4", [np.roll(frame, second, axis=1) for second in range(seconds)], fps=1)
    clip = clip_sample(path, ClipRecipe(PreprocessConfig(num_frames=6, size_px=32)))
    assert clip.windows == ()
    assert clip.lacking == {"timeline": "only clips of up to 600 s get one; send a recording as a job"}
    answer = predictor.score(clip._replace(look=Look(1.0, camera_off=False)))
    assert isinstance(answer, Answer)
    assert answer.lacking == clip.lacking


def test_a_damaged_clip_is_still_an_error(predictor: Predictor, real_data: Path) -> None:
    with pytest.raises(ClipError, match="damaged"):
        predictor.score_file(real_data / "videos" / "corrupted.mp4")


def test_each_kind_of_answer_is_one_sentence(predictor: Predictor) -> None:
    about = {"duration_s": 0.1, "model": predictor.info}
    assert in_words(TooShort(min_duration_s=1.0, **about)) == "too short, 0.1 s of at least 1 s, so no score"
    assert in_words(CameraOff(**about)) == "the camera is off, so no score"
    assert in_words(NoFace(**about)) == "nobody's face is in view, so no score"
