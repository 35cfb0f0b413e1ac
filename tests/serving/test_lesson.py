"""From a recording with many faces to a lesson's numbers: the right people, the right windows, and the same after any kill."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.lesson_recording import grid
from data_shards.decode import decode_clip
from data_shards.errors import ClipError, ServiceError
from data_shards.extraction.clip_sample import ClipRecipe, clip_sample
from data_shards.extraction.openface import OpenFace, OpenFaceSettings
from data_shards.extraction.recorded import described
from data_shards.gallery.clip_writer import ClipWriter
from data_shards.gallery.faces import FaceFinder
from data_shards.gallery.layout import overlap
from data_shards.gallery.plan import PlannedClip
from data_shards.gallery.recording import Picture, RecordingStream, open_recording
from data_shards.gallery.tracking import TileSpan
from data_shards.preprocess import PreprocessConfig
from data_shards.sample import Sample
from serving.lesson.child import WatchChild, WatchOrder
from serving.lesson.messages import Begun, Ended, Marked, Passed, WindowSeen, packed, unpacked
from serving.lesson.record import LessonResult
from serving.lesson.score import _clips, score_lesson
from serving.lesson.watch import LessonSettings, Told, Watch
from serving.lesson.watch_state import WatchState
from serving.lesson.window_clips import ClipsOfWindows
from tests.conftest import ROOT, TINY_PREPROCESS
from tests.serving.conftest import SCENES
from tests.serving.lesson_scoring import SETTINGS, local_scoring
from tests.serving.test_confine import gives_namespaces
from tests.tiles import tile, write_clip

RECIPE = ClipRecipe(TINY_PREPROCESS)


def scored(path: Path, bundle: Path, folder: Path, settings: LessonSettings = SETTINGS) -> LessonResult:
    return asyncio.run(score_lesson(path, local_scoring(bundle), folder, settings=settings))


def told(path: Path, face_model: Path, state: WatchState | None = None, recipe: ClipRecipe = RECIPE) -> list[Told]:
    with FaceFinder(face_model) as finder:
        return [*Watch(open_recording(path), recipe, finder.find, SETTINGS, state=state)]


@pytest.fixture(scope="module")
def result_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `result` was made."""
    return tmp_path_factory.mktemp("job")


@pytest.fixture(scope="module")
def result(lesson: Path, tiny_bundle: Path, real_data: Path, result_folder: Path) -> LessonResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAPT_FACE_LANDMARKER", str(real_data / "models" / "face_landmarker.task"))
        return scored(lesson, tiny_bundle, result_folder)


@pytest.fixture(scope="module")
def whole(lesson: Path, real_data: Path) -> list[Told]:
    """All that is told of the lesson."""
    return told(lesson, real_data / "models" / "face_landmarker.task")


def test_every_person_has_one_row_through_every_layout(result: LessonResult) -> None:
    assert [person.person for person in result.people] == [f"person{number}" for number in range(5)]
    starts = [[window.start_s for window in person.windows] for person in result.people]
    whole, until_34, joined = [0, 5, 10, 15, 20, 25, 30, 35, 40], [0, 5, 10, 15, 20, 25, 30], [25, 30]
    assert starts == [until_34, whole, until_34, whole, joined]
    for number, person in zip((0, 1, 2, 3, 4), result.people, strict=True):
        box = SCENES[0 if number < 4 else 2].tiles[number]
        tile = person.tiles[0]
        assert (tile.left * 640, tile.top * 360) == pytest.approx((box.x, box.y), abs=4)


def test_a_camera_that_is_off_is_the_same_person_and_has_no_score(result: LessonResult) -> None:
    statuses = [window.status for window in result.people[2].windows]
    assert statuses == ["scored", "scored", "camera_off", "camera_off", "camera_off", "scored", "scored"]
    for person in result.people:
        for window in person.windows:
            assert (window.status == "scored") == (window.score is not None) == (window.level_index is not None)


def test_the_class_is_the_mean_of_those_who_are_scored(result: LessonResult) -> None:
    assert [(w.num_present, w.num_scored) for w in result.class_timeline] == [
        (4, 4), (4, 4), (4, 3), (4, 3), (4, 3), (5, 5), (5, 5), (2, 2), (2, 2),
    ]  # fmt: skip
    for window in result.class_timeline:
        own = [w.score for person in result.people for w in person.windows if w.start_s == window.start_s and w.score is not None]
        assert window.mean_score == pytest.approx(np.mean(own), abs=1e-5)
        assert window.low is not None
        assert window.high is not None
        low, high = np.quantile(own, [0.25, 0.75]) if len(own) > 2 else (np.mean(own), np.mean(own))
        assert (window.low, window.high) == pytest.approx((low, high), abs=1e-5)
        assert sum(window.level_counts) == window.num_scored
    assert sum(result.level_shares) == pytest.approx(1, abs=1e-3)
    assert result.duration_s == pytest.approx(42, abs=0.2)
    assert (result.class_timeline[-1].start_s, result.class_timeline[-1].end_s) == (40, pytest.approx(42, abs=0.2))


def test_a_killed_job_goes_on_and_ends_with_the_same_numbers(
    lesson: Path, tiny_bundle: Path, result: LessonResult, face_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    command = [sys.executable, "-m", "tests.serving.lesson_scoring", str(tiny_bundle), str(lesson), str(folder)]
    seen_windows: list[int] = []
    for least in (1, 4, 7):  # windows on disk when it is killed: before the first mark, between two, near the end
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and num_lines(folder) < least:
            time.sleep(0.02)
        children = own_children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen_windows.append(num_lines(folder))
        assert all(is_gone(child) for child in children)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    again = LessonResult.model_validate_json(done.stdout)
    assert again.model_copy(update={"took_s": 0.0}) == result.model_copy(update={"took_s": 0.0})
    assert again.took_s > 0
    assert seen_windows[-1] >= 7  # it did go on


def num_lines(folder: Path) -> int:
    path = folder / "windows.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def own_children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_gone(pid: int) -> bool:
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
            return True
        time.sleep(0.02)
    return False


def test_a_watch_that_goes_on_says_what_the_whole_one_says(whole: list[Told], lesson: Path, face_model: Path) -> None:
    marks = [at for at, (message, _) in enumerate(whole) if isinstance(message, Marked)]
    assert len(marks) == 4
    for at in marks:
        state = WatchState.from_bytes(whole[at][1][0], origin="a mark")
        rest = told(lesson, face_model, state)
        assert [pair for pair in rest[1:] if not isinstance(pair[0], Passed)] == [
            pair for pair in whole[at + 1 :] if not isinstance(pair[0], Passed)
        ]


def test_another_recording_or_setting_does_not_go_on_with_what_is_there(
    lesson: Path, tiny_bundle: Path, result: LessonResult, result_folder: Path, face_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(result_folder, tmp_path / "job"))
    assert num_lines(folder) == len(result.class_timeline)
    other = scored(lesson, tiny_bundle, folder, LessonSettings(window_s=10, stretch_s=10))
    assert [window.end_s for window in result.class_timeline][:2] == [5, 10]
    assert [window.end_s for window in other.class_timeline][:2] == [10, 20]


def test_a_window_is_made_as_the_training_clips_are(lesson: Path, face_model: Path, tmp_path: Path) -> None:
    config = PreprocessConfig(num_frames=10, size_px=64)
    window, blobs = next(pair for pair in told(lesson, face_model, recipe=ClipRecipe(config)) if isinstance(pair[0], WindowSeen))
    assert isinstance(window, WindowSeen)
    recording = open_recording(lesson)
    at = 0
    for seen in window.people:
        sample = Sample.from_members(dict(zip(seen.members, blobs[at : at + len(seen.members)], strict=True)), origin="window")
        at += len(seen.members)
        box = max(SCENES[0].tiles.values(), key=lambda box: overlap_of(box, seen.tile))
        clip = PlannedClip(
            subject=f"person{seen.track}",
            start_s=0,
            end_s=5,
            speaker="",
            speech="",
            tiles=(TileSpan(start_s=0, end_s=5, box=box),),
        )
        writer = ClipWriter(tmp_path, clip, recording)
        for picture in RecordingStream(recording):
            assert isinstance(picture, Picture)
            if picture.time_s < 5:
                writer.show(picture, picture.time_s + 1 / 8)
        writer.finish()
        cut = clip_sample(tmp_path / clip.name, ClipRecipe(config)).sample
        assert sample.meta.duration_s == cut.meta.duration_s == 5
        assert sample.meta.frame_times_s == pytest.approx([0.25 + 0.5 * t for t in range(10)])
        ours_THWC, cut_THWC = sample.decode_frames().astype(int), cut.decode_frames().astype(int)
        assert ours_THWC.shape == cut_THWC.shape == (10, 64, 64, 3)
        same = np.abs(ours_THWC - cut_THWC).mean()
        assert same < 4  # of 256: once more through H.264
        assert np.abs(ours_THWC[1:] - cut_THWC[:-1]).mean() > same  # and no other moment is nearer
    assert at == len(blobs) > 0


def test_a_model_that_reads_more_than_frames_gets_each_window_as_a_clip(
    whole: list[Told], lesson: Path, face_model: Path, tmp_path: Path
) -> None:
    settings = OpenFaceSettings(fps=2)
    with OpenFace(settings) as extractor:
        recipe = ClipRecipe(TINY_PREPROCESS, {"openface": described("openface", extractor)})
    recording = open_recording(lesson)
    alone = [pair for pair in whole if isinstance(pair[0], WindowSeen)]
    with FaceFinder(face_model) as finder:
        clips = ClipsOfWindows(recording, recipe, tmp_path)
        as_clips = [*Watch(recording, recipe, finder.find, SETTINGS, clips=clips)]
    windows = [pair for pair in as_clips if isinstance(pair[0], WindowSeen)]
    assert len(windows) == len(alone) == 9
    for (message, blobs), (frames_only, frames_blobs) in zip(windows, alone, strict=True):
        found, expected = samples_of(message, blobs), samples_of(frames_only, frames_blobs)
        assert found.keys() == expected.keys()
        for track, sample in found.items():
            rows_TD = sample.features["openface"]
            assert len(rows_TD) == pytest.approx(2 * (sample.meta.duration_s or 0), abs=1)
            assert np.isfinite(rows_TD).all(axis=1).mean() > 0.5
            difference = np.abs(sample.decode_frames().astype(int) - expected[track].decode_frames().astype(int)).mean()
            assert difference < 12  # the same person at about the same moments; another one differs by 30 and more
    assert list(tmp_path.iterdir()) == []
    mark = next(at for at, (message, _) in enumerate(as_clips) if isinstance(message, Marked))
    state = WatchState.from_bytes(as_clips[mark][1][0], origin="a mark")
    with FaceFinder(face_model) as finder:
        clips = ClipsOfWindows(recording, recipe, tmp_path, state=state)
        rest = [*Watch(recording, recipe, finder.find, SETTINGS, state=state, clips=clips)]
    assert [pair for pair in rest if isinstance(pair[0], WindowSeen)] == windows[2:]


def test_a_large_still_photo_is_a_camera_that_is_off_as_it_is_in_a_clip(
    real_data: Path, face_model: Path, tmp_path: Path
) -> None:
    """Its disc is too large for the tile to be plain in one picture, and it has a face."""
    found = decode_clip(real_data / "videos" / "5100462069.avi", num_frames=48, frame_size=lambda *_: (640, 360))
    frames = list(found.frames_THWC)
    with FaceFinder(face_model) as finder:
        face = finder.find(frames[0])[0]
    x, y, side = int(face.centre[0]), int(face.centre[1]), int(0.9 * face.height)
    photo = tile(frames[0][max(0, y - side) : y + side, max(0, x - side) : x + side], side=250)
    boxes = grid([0, 1], 2, (640, 360))
    pictures = []
    for frame in frames:
        picture = np.full((360, 640, 3), 30, np.uint8)
        for box, shown in zip(boxes.values(), (photo, frame), strict=True):
            small = Image.fromarray(shown).resize((box.width, box.height))
            picture[box.y : box.y + box.height, box.x : box.x + box.width] = np.asarray(small)
        pictures.append(picture)
    recording = write_clip(tmp_path / "lesson.mp4", pictures, fps=8)
    window = next(message for message, _ in told(recording, face_model) if isinstance(message, WindowSeen))
    assert [(seen.seen, seen.tile.left < 0.5) for seen in window.people] == [("camera_off", True), ("face", False)]
    assert window.people[0].face_share > 0
    assert window.people[0].members == ()


def test_a_sample_of_another_size_than_was_asked_for_is_refused(lesson: Path, face_model: Path) -> None:
    """A child that was taken over may send anything: what is scored has the size that the model reads."""
    other = ClipRecipe(PreprocessConfig(num_frames=10, size_px=64))
    message, blobs = next(pair for pair in told(lesson, face_model, recipe=other) if isinstance(pair[0], WindowSeen))
    assert isinstance(message, WindowSeen)
    assert len(_clips(message, blobs, other)) == 4
    with pytest.raises(ClipError, match="it broke the decoder"):
        _clips(message, blobs, RECIPE)


def samples_of(message: object, blobs: tuple[bytes, ...]) -> dict[int, Sample]:
    assert isinstance(message, WindowSeen)
    left = list(blobs)
    return {
        seen.track: Sample.from_members({name: left.pop(0) for name in seen.members}, origin="window")
        for seen in message.people
        if seen.members
    }


def overlap_of(box, tile) -> float:  # type: ignore[no-untyped-def]
    seen = type(box)(
        x=round(tile.left * 640), y=round(tile.top * 360), width=round(tile.width * 640), height=round(tile.height * 360)
    )
    return overlap(box, seen)


def test_the_real_crowd_is_a_few_people(real_data: Path, tiny_bundle: Path, face_model: Path, tmp_path: Path) -> None:
    """Walking people, a moving camera, faces of 4 % of the picture: four of them are there for two seconds and more."""
    result = scored(real_data / "videos" / "crowd_1080p.mp4", tiny_bundle, tmp_path, LessonSettings())
    assert 3 <= len(result.people) <= 5
    assert all(0.05 < tile.width < 0.3 for person in result.people for tile in person.tiles)
    assert len(result.class_timeline) == 1
    assert result.class_timeline[0].num_scored == len(result.people)
    assert result.moments == ()


def test_where_nobody_is_seen_nobody_is(real_data: Path, tiny_bundle: Path, face_model: Path, tmp_path: Path) -> None:
    result = scored(real_data / "videos" / "no_face.mp4", tiny_bundle, tmp_path)
    assert result.people == ()
    assert all((window.num_present, window.mean_score) == (0, None) for window in result.class_timeline)
    assert result.level_shares == (0, 0, 0, 0)


def test_what_is_whole_in_a_damaged_recording_is_scored(
    lesson: Path, tiny_bundle: Path, face_model: Path, tmp_path: Path
) -> None:
    content = bytearray(lesson.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 10] = os.urandom(len(content) // 10)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    result = scored(damaged, tiny_bundle, tmp_path / "job")
    assert len(result.class_timeline) == 9
    assert any(window.mean_score is not None for window in result.class_timeline)
    assert any(re.match(r"\d+ damaged pieces of the recording were passed over", problem) for problem in result.problems)


def test_what_has_no_picture_is_refused(
    lesson: Path, real_data: Path, tiny_bundle: Path, face_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "short.mp4").write_bytes(lesson.read_bytes()[:3000])
    (tmp_path / "words.mp4").write_bytes(b"#EXTM3U\nfile:///etc/passwd")
    for name, reason in (("short.mp4", "damaged"), ("words.mp4", "not a video container"), ("none.mp4", "cannot be read")):
        with pytest.raises(ClipError, match=reason):
            scored(tmp_path / name, tiny_bundle, tmp_path / "job")


def test_a_child_that_dies_is_a_reason_and_not_a_hang(lesson: Path, face_model: Path, tmp_path: Path) -> None:
    child = WatchChild(WatchOrder(path=lesson, recipe=RECIPE, settings=SETTINGS, face_model=face_model, scratch=tmp_path))
    child.start()
    child.next()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ClipError, match="crashed the decoder"):
        _ = [child.next() for _ in range(1000)]
    child.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looked up where Linux shows it")
def test_what_watches_is_told_no_credential_and_is_held(
    lesson: Path, face_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wellkept")
    child = WatchChild(WatchOrder(path=lesson, recipe=RECIPE, settings=SETTINGS, face_model=face_model, scratch=tmp_path))
    child.start()
    try:
        assert isinstance(child.next()[0], Begun)
        held = Path(f"/proc/{child.pid}")
        status = dict(line.split(":\t") for line in (held / "status").read_text().splitlines() if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"], int(status["CapEff"], 16)) == ("2", "1", 0)
        try:
            environment, network = (held / "environ").read_bytes(), os.readlink(held / "ns" / "net")
        except PermissionError:
            pytest.skip("the kernel does not show another user namespace's environment")
        assert b"wellkept" not in environment
        assert b"PATH=" in environment
        if gives_namespaces():
            assert network != os.readlink("/proc/self/ns/net")
    finally:
        child.close()


def test_a_cancelled_lesson_ends_its_child(lesson: Path, tiny_bundle: Path, face_model: Path, tmp_path: Path) -> None:
    async def cancel() -> list[int]:
        begun = asyncio.Event()
        task = asyncio.create_task(
            score_lesson(lesson, local_scoring(tiny_bundle), tmp_path, settings=SETTINGS, progress=lambda *_: begun.set())
        )
        await begun.wait()
        children = own_children(os.getpid())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return children

    before = set(own_children(os.getpid()))
    children = set(asyncio.run(cancel())) - before
    assert children
    assert all(is_gone(child) or not is_watching(child) for child in children)


def is_watching(pid: int) -> bool:
    return b"watch_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_message_is_what_was_said_and_nothing_else_is_one() -> None:
    message = Ended(end_s=3, tracks=(1, 2), problems=("one",))
    assert unpacked(packed(message, (b"a", b"", b"bc"))) == (message, (b"a", b"", b"bc"))
    for content in (b"", b"\x00" * 4, packed(message) + b"x", packed(message)[:-1], b"\x80\x04."):
        with pytest.raises(ServiceError, match="no message"):
            unpacked(content)
