"""The feature `openface` from its three sources: by MediaPipe on real clips, from real CSVs, by a program that stands in."""

import math
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from data_shards.datasets.openface import ACTION_UNITS, GAZE, HEAD_POSE, OPENFACE_COLUMNS, read_openface
from data_shards.decode_stream import FrameStream
from data_shards.errors import ClipError, ConfigError
from data_shards.extraction import EXTRACTORS, ClipMaterial
from data_shards.extraction.extract import extract_features
from data_shards.extraction.face_columns import ACTION_UNIT_SHAPES, FACE_COLUMNS, face_row
from data_shards.extraction.face_track import FaceTrack, View
from data_shards.extraction.openface import OpenFace, OpenFaceSettings, face_present
from data_shards.extraction.openface_program import run_openface
from data_shards.face_landmarks import LandmarkedFace
from data_shards.face_model import FACE_MODEL_SHA256
from data_shards.gallery.faces import FaceFinder

PLACES = {column: place for place, column in enumerate(FACE_COLUMNS)}


@pytest.fixture(scope="module")
def named(real_data: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAPT_FACE_LANDMARKER", str(real_data / "models" / "face_landmarker.task"))
        yield


@pytest.fixture(scope="module")
def extractor(named: None) -> Iterator[OpenFace]:
    with OpenFace(OpenFaceSettings()) as extractor:
        yield extractor


def rows_of(extractor: OpenFace, path: Path) -> np.ndarray:
    found = extract_features(ClipMaterial(name=path.name, video=path), {"openface": extractor})
    assert found.lacking == {}
    return found.features["openface"]


def seen(extractor: OpenFace, path: Path, numbers_N: np.ndarray, *, mirrored: bool = False) -> tuple[np.ndarray, list[float]]:
    """(rows, their seconds) of some frames of a clip."""
    stream = FrameStream(path)
    reading = extractor.read(ClipMaterial(name=path.name, video=path), stream.info)
    times: list[float] = []
    for portion in stream.portions(numbers_N):
        reading.see(portion.frames_NHWC[:, :, ::-1] if mirrored else portion.frames_NHWC, portion.times_N)
        times += portion.times_N.tolist()
    rows = reading.finish()
    assert rows is not None
    return rows, times


@pytest.fixture(scope="module")
def test1_TD(extractor: OpenFace, real_data: Path) -> np.ndarray:
    """The first clip, ten rows a second."""
    return rows_of(extractor, real_data / "videos" / "test1.avi")


def test_columns_have_openfaces_names_and_order() -> None:
    assert (*GAZE, *HEAD_POSE, *ACTION_UNITS[:17]) == FACE_COLUMNS
    assert len(FACE_COLUMNS) == 31
    assert EXTRACTORS["openface"] is OpenFace


def test_a_real_clip_agrees_with_openface_where_the_head_moves(test1_TD: np.ndarray, real_data: Path) -> None:
    numbers_N = FrameStream(real_data / "videos" / "test1.avi").at_rate(10)
    theirs_TD = read_openface(real_data / "openface" / "test1.openface.csv", columns=FACE_COLUMNS)[numbers_N]
    assert test1_TD.shape == theirs_TD.shape == (100, 31)
    assert test1_TD.dtype == np.float32
    assert np.isfinite(test1_TD).all()
    for column, at_least, apart in (  # columns that move in this clip; the whole table is in docs/openface.md
        ("pose_Tx", 0.95, 5),
        ("pose_Ty", 0.98, 5),
        ("pose_Tz", 0.7, 20),
        ("pose_Rx", 0.98, 0.06),
        ("pose_Ry", 0.9, 0.06),
        ("pose_Rz", 0.9, 0.06),
        ("AU45_r", 0.8, 1),
    ):
        ours_T, theirs_T = test1_TD[:, PLACES[column]], theirs_TD[:, PLACES[column]]
        assert np.corrcoef(ours_T, theirs_T)[0, 1] > at_least, column
        assert np.median(np.abs(ours_T - theirs_T)) < apart, column
    for column in ("gaze_0_x", "gaze_1_x", "gaze_angle_y"):  # the signs, at least
        assert np.corrcoef(test1_TD[:, PLACES[column]], theirs_TD[:, PLACES[column]])[0, 1] > 0.3, column


def test_values_are_in_their_ranges(test1_TD: np.ndarray) -> None:
    for eye in (0, 1):
        np.testing.assert_allclose(np.linalg.norm(test1_TD[:, 3 * eye : 3 * eye + 3], axis=1), 1, atol=1e-5)
    assert (test1_TD[:, PLACES["gaze_0_z"]] < 0).all()  # towards the camera
    intensities_TU = test1_TD[:, 14:]
    assert intensities_TU.min() >= 0
    assert intensities_TU.max() <= 5
    assert intensities_TU[:, list(ACTION_UNIT_SHAPES).index("AU45_r")].max() > 2  # there are blinks


def test_a_mirrored_clip_changes_sign_where_it_should(extractor: OpenFace, real_data: Path) -> None:
    numbers_N = np.arange(0, 60, 3)
    path = real_data / "videos" / "test1.avi"
    plain_D = np.median(seen(extractor, path, numbers_N)[0], axis=0)
    mirrored_D = np.median(seen(extractor, path, numbers_N, mirrored=True)[0], axis=0)
    for column, sign, apart in (
        ("pose_Tx", -1, 5),
        ("pose_Ty", 1, 5),
        ("pose_Tz", 1, 20),
        ("pose_Rx", 1, 0.05),
        ("pose_Ry", -1, 0.05),
        ("pose_Rz", -1, 0.05),
        ("gaze_angle_x", -1, 0.1),
        ("gaze_angle_y", 1, 0.1),
    ):
        assert abs(mirrored_D[PLACES[column]] - sign * plain_D[PLACES[column]]) < apart, column
    assert abs(mirrored_D[PLACES["gaze_0_x"]] + plain_D[PLACES["gaze_1_x"]]) < 0.1  # eye 0 is the left one in the picture


def test_nobody_in_view_is_rows_of_nan(extractor: OpenFace, real_data: Path) -> None:
    rows_TD = rows_of(extractor, real_data / "videos" / "no_face.mp4")
    assert rows_TD.shape[0] > 20
    assert np.isnan(rows_TD).all()


def test_rows_begin_when_somebody_comes(extractor: OpenFace, real_data: Path) -> None:
    path = real_data / "videos" / "noface_face.mov"
    rows_TD, times = seen(extractor, path, FrameStream(path).at_rate(10))
    blank_T = np.isnan(rows_TD).all(axis=1)
    assert np.isnan(rows_TD).any(axis=1).tolist() == blank_T.tolist()  # whole rows, or none
    assert blank_T[:20].all()
    assert not blank_T[-20:-1].any()
    last = FrameStream(path).info.num_frames - 1
    assert np.isnan(seen(extractor, path, np.array([last]))[0]).all()  # this recording ends with a black frame
    assert face_present(rows_TD, times, (0.0, times[-1] / 4, times[-1] - 1, times[-1] + 0.01)) == (False, False, True, True)


def test_stored_frames_take_the_nearest_rows_word() -> None:
    rows_T2 = np.array([[1, 2], [np.nan, np.nan], [3, 4]], dtype=np.float32)
    assert face_present(rows_T2, (0.0, 0.1, 0.2), (0.0, 0.04, 0.06, 0.14, 0.16, 9.0)) == (True, True, False, False, True, True)
    assert face_present(rows_T2, (0.0, 0.1, 0.2), ()) == ()
    with pytest.raises(ValueError, match="3 rows with 2 times"):
        face_present(rows_T2, (0.0, 0.1), (0.0,))


def test_one_person_of_a_crowd_is_followed(named: None, real_data: Path) -> None:
    path = real_data / "videos" / "crowd_1080p.mp4"
    with OpenFace(OpenFaceSettings(zoom=4)) as extractor:
        rows_TD, _ = seen(extractor, path, np.arange(50, 100, 2))
    assert np.isfinite(rows_TD).all()
    steps_mm = np.linalg.norm(np.diff(rows_TD[:, 8:10], axis=0), axis=1)
    assert steps_mm.max() < 100  # several people stand farther apart


def test_the_largest_face_is_chosen_and_found_again_where_it_was(named: None, real_data: Path) -> None:
    def crop(finder: FaceFinder, name: str) -> Image.Image:
        """Somebody's face with half its size around it."""
        frame_HWC = next(FrameStream(real_data / "videos" / name).portions(np.arange(1))).frames_NHWC[0]
        box = finder.find(frame_HWC)[0]
        (x, y), side = box.centre, max(box.width, box.height)
        return Image.fromarray(frame_HWC).crop((int(x - side), int(y - side), int(x + side), int(y + side)))

    model = real_data / "models" / "face_landmarker.task"
    with FaceFinder(model, max_faces=5) as finder:
        people = [crop(finder, name) for name in ("test1.avi", "swiz3n.mpg")]

        def picture_of(*widths: int) -> np.ndarray:
            picture = Image.new("RGB", (800, 400), (90, 90, 90))
            for place, (person, width) in enumerate(zip(people, widths, strict=True)):
                picture.paste(person.resize((width, width)), (400 * place + 200 - width // 2, 200 - width // 2))
            return np.asarray(picture)

        def x_of(track: FaceTrack, picture_HWC: np.ndarray, time_s: float) -> float:
            face, view = track.see(picture_HWC, time_s) or pytest.fail("no face")
            assert view.width < 800  # nobody else is looked at
            return view.left + face.box.centre[0]

        with FaceTrack(model, finder.find) as track:
            assert abs(x_of(track, picture_of(360, 240), 0.0) - 200) < 60  # the larger
            assert track.see(np.zeros((400, 800, 3), np.uint8), 0.1) is None
            assert abs(x_of(track, picture_of(240, 360), 0.2) - 200) < 60  # not the one that is larger now
        with FaceTrack(model, finder.find) as track:
            assert abs(x_of(track, picture_of(240, 360), 0.0) - 600) < 60


def test_a_clip_gives_the_same_whatever_was_read_before_it(named: None, extractor: OpenFace, real_data: Path) -> None:
    path, other = real_data / "videos" / "swiz3n.mpg", real_data / "videos" / "bbaf2n.mpg"
    rows_of(extractor, other)
    once_TD = rows_of(extractor, path)
    reading = extractor.read(ClipMaterial(name="broken off", video=other), FrameStream(other).info)
    reading.see(next(FrameStream(other).portions(np.arange(9))).frames_NHWC, np.arange(9) / 25)
    np.testing.assert_array_equal(rows_of(extractor, path), once_TD)
    with OpenFace(OpenFaceSettings()) as fresh:
        np.testing.assert_array_equal(rows_of(fresh, path), once_TD)
    with OpenFace(OpenFaceSettings(fps=0)) as every:
        assert len(rows_of(every, path)) == FrameStream(path).info.num_frames


def test_a_damaged_clip_lacks_the_feature_and_the_next_one_has_it(extractor: OpenFace, real_data: Path) -> None:
    path = real_data / "videos" / "corrupted.mp4"
    found = extract_features(ClipMaterial(name="corrupted", video=path), {"openface": extractor})
    assert "corrupted.mp4" in found.lacking["openface"]
    assert extract_features(ClipMaterial(name="sound"), {"openface": extractor}).lacking == {"openface": "no video"}
    rows_TD, _ = seen(extractor, real_data / "videos" / "test2.avi", np.arange(5))
    assert np.isfinite(rows_TD).all()


def test_the_manifest_learns_what_the_columns_are(extractor: OpenFace) -> None:
    about = extractor.about
    assert about["source"] == "mediapipe"
    assert about["columns"] == list(FACE_COLUMNS)
    assert about["model_sha256"] == FACE_MODEL_SHA256
    assert about["mediapipe"] == "1.2.2"
    with OpenFace(OpenFaceSettings(source="csv")) as csv:
        assert csv.about["columns"] == list(OPENFACE_COLUMNS)
        assert csv.fps is None
    with pytest.raises(ValidationError):
        OpenFaceSettings(fps=-1)


# ---- geometry, against cases that are worked out by hand


def turned(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """R = Rx Ry Rz, as OpenFace composes its angles."""
    (sx, cx), (sy, cy), (sz, cz) = ((math.sin(angle), math.cos(angle)) for angle in (pitch, yaw, roll))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return x @ y @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])


def face_at(position_mm: tuple[float, float, float], rotation_33: np.ndarray, points_L2: np.ndarray) -> LandmarkedFace:
    """A face whose head point is at a place before MediaPipe's camera, given in OpenFace's axes."""
    flip_33 = np.diag([1.0, -1.0, -1.0])
    pose_44 = np.eye(4)
    pose_44[:3, :3] = flip_33 @ rotation_33 @ flip_33
    pose_44[:3, 3] = flip_33 @ np.array(position_mm) / 10 - pose_44[:3, :3] @ np.array([0.0, -1.22, 3.62])
    shapes = {name: 0.0 for weights in ACTION_UNIT_SHAPES.values() for name in weights}
    return LandmarkedFace(points_L2, shapes | {"jawOpen": 0.4, "mouthClose": 0.1, "eyeBlinkLeft": 1.0}, pose_44)


def eyes(*, iris_x_px: float = 0.0, iris_y_px: float = 0.0) -> np.ndarray:
    points_L2 = np.full((478, 2), 240.0)
    for x, corner, other, iris in ((290, 33, 133, 468), (350, 362, 263, 473)):
        points_L2[corner], points_L2[other] = (x - 10, 240), (x + 10, 240)
        points_L2[iris] = x + iris_x_px, 240 + iris_y_px
    return points_L2


def test_pose_is_that_of_openfaces_camera() -> None:
    mediapipe_focal_px = 240 / math.tan(math.radians(31.5))
    angles = (0.3, -0.2, 0.1)
    row_D = face_row(face_at((30, -60, 400), turned(*angles), eyes()), View(0, 0, 640, 480), width=640, height=480)
    np.testing.assert_allclose(row_D[11:14], angles, atol=1e-6)
    away_mm = 400 * 500 / mediapipe_focal_px  # as large in the picture, with the other focal length
    np.testing.assert_allclose(row_D[8:11], (30, -60, away_mm), rtol=1e-5)  # a size in the picture is the same size in mm
    # the same picture seen through a window of a quarter of it: half the focal length, another middle
    half = face_at((30 - 160 / mediapipe_focal_px * 400, -60 + 120 / mediapipe_focal_px * 400, 200), turned(0, 0, 0), eyes())
    row_D = face_row(half, View(320, 0, 320, 240), width=640, height=480)
    np.testing.assert_allclose(row_D[8:11], (30, -60, away_mm), rtol=1e-5)


def test_gaze_follows_the_iris() -> None:
    view = View(0, 0, 640, 480)
    away_mm = 400.0

    def angles(iris_mm: tuple[float, float], pose: np.ndarray, x_mm: float = 0.0) -> tuple[float, float]:
        px_per_mm = 240 / math.tan(math.radians(31.5)) / away_mm
        points_L2 = eyes(iris_x_px=iris_mm[0] * px_per_mm, iris_y_px=iris_mm[1] * px_per_mm)
        row_D = face_row(face_at((x_mm, 0, away_mm), pose, points_L2), view, width=640, height=480)
        return float(row_D[PLACES["gaze_angle_x"]]), float(row_D[PLACES["gaze_angle_y"]])

    ahead = turned(0, 0, 0)
    np.testing.assert_allclose(angles((0, 0), ahead), (0, 0), atol=1e-6)
    np.testing.assert_allclose(angles((6, 0), ahead), (math.asin(6 / 12), 0), atol=1e-6)  # to the picture's right
    np.testing.assert_allclose(angles((0, 6), ahead), (0, math.asin(6 / 12)), atol=1e-6)  # down
    np.testing.assert_allclose(angles((0, 0), turned(0.3, 0, 0)), (0, math.asin(math.sin(0.3) * 8.4 / 12)), atol=1e-6)
    assert angles((0, 0), ahead, x_mm=-100)[0] > 0.1  # who sits left in the picture and looks into the camera looks right
    x, y = angles((500, 0), ahead)  # an iris nowhere near the eye
    assert math.isfinite(x)
    assert math.isfinite(y)


def test_intensities_are_the_tables() -> None:
    row_D = face_row(face_at((0, 0, 400), turned(0, 0, 0), eyes()), View(0, 0, 640, 480), width=640, height=480)
    units = {unit: float(row_D[PLACES[unit]]) for unit in ACTION_UNIT_SHAPES}
    expected = dict.fromkeys(units, 0.0) | {"AU25_r": 5 * 0.3, "AU26_r": 5 * 0.4, "AU45_r": 5 * 0.5}
    assert units == pytest.approx(expected)


# ---- OpenFace's own files, and its program


@pytest.mark.parametrize(
    ("name", "num_rows"), [("test1.openface.csv", 300), ("test2.openface.csv", 300), ("variant_431_columns.csv", 100)]
)
def test_every_real_csv_goes_through(real_data: Path, name: str, num_rows: int) -> None:
    path = real_data / "openface" / name
    with OpenFace(OpenFaceSettings(source="csv")) as extractor:
        found = extract_features(ClipMaterial(name=name, openface_csv=path), {"openface": extractor})
    np.testing.assert_array_equal(found.features["openface"], read_openface(path))
    assert found.features["openface"].shape == (num_rows, 49)


def test_a_clip_whose_csv_does_not_do_lacks_the_feature(real_data: Path) -> None:
    with OpenFace(OpenFaceSettings(source="csv")) as extractor:
        clip = ClipMaterial(name="46", openface_csv=real_data / "openface" / "variant_46_columns.csv")
        lacking = extract_features(clip, {"openface": extractor}).lacking["openface"]
        assert "lacks the columns gaze_0_x" in lacking
        assert extract_features(ClipMaterial(name="none"), {"openface": extractor}).lacking == {"openface": "no OpenFace CSV"}


def stand_in(folder: Path, body: str) -> Path:
    """A script with FeatureExtraction's command line. OpenFace itself is not installed where these tests run: they show that
    Rapt calls a program as OpenFace 2.2 documents it and reads what it writes, not that OpenFace works."""
    path = folder / "FeatureExtraction"
    path.write_text(
        f"#!{sys.executable}\n"
        "import argparse, pathlib, shutil, sys, time\n"
        "options = argparse.ArgumentParser()\n"
        "for name in ('-f', '-out_dir', '-of'):\n"
        "    options.add_argument(name, required=True)\n"
        "for name in ('-gaze', '-pose', '-aus', '-q'):\n"
        "    options.add_argument(name, action='store_true', required=True)\n"
        "given = options.parse_args()\n"
        f"{body}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_program_is_run_and_its_csv_read(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv = real_data / "openface" / "test1.openface.csv"
    video = real_data / "videos" / "test1.avi"
    body = f"assert given.f == {str(video)!r}\nshutil.copy({str(csv)!r}, pathlib.Path(given.out_dir, given.of + '.csv'))"
    monkeypatch.setenv("RAPT_OPENFACE", str(stand_in(tmp_path, body)))
    with OpenFace(OpenFaceSettings(source="binary")) as extractor:
        found = extract_features(ClipMaterial(name="test1", video=video), {"openface": extractor})
        assert extractor.about["source"] == "binary"
        np.testing.assert_array_equal(found.features["openface"], read_openface(csv))
        assert extract_features(ClipMaterial(name="none"), {"openface": extractor}).lacking == {"openface": "no video"}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("print('Could not open the video'); sys.exit(0)", r"clip.mp4: OpenFace wrote no CSV of it \(Could not open the video\)"),
        ("sys.exit(3)", "clip.mp4: OpenFace ended with status 3"),
        ("pathlib.Path(given.out_dir, given.of + '.csv').write_text('frame, pose_Tx')", "lacks the columns AU01_c"),
    ],
)
def test_a_program_that_fails_costs_one_clip(tmp_path: Path, body: str, sentence: str) -> None:
    with pytest.raises(ClipError, match=sentence):
        run_openface(stand_in(tmp_path, body), tmp_path / "clip.mp4", limit_s=1)


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = stand_in(tmp_path, f"import os\npathlib.Path({str(note)!r}).write_text(str(os.getpid()))\ntime.sleep(60)")
    with pytest.raises(ClipError, match=r"clip\.mp4: OpenFace was not done after 2 s and was ended; cut the clip"):
        run_openface(program, tmp_path / "clip.mp4", limit_s=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a program with who started it")
def test_a_program_ends_with_who_started_it_and_what_it_wrote_lies_beside_the_upload(tmp_path: Path) -> None:
    note, upload = tmp_path / "note", tmp_path / "upload"
    upload.mkdir()
    body = (
        f"import os\npart = pathlib.Path({str(note)!r} + '.part')\n"
        f"part.write_text(str(os.getpid()) + ' ' + given.out_dir)\npart.rename({str(note)!r})\ntime.sleep(60)"
    )
    call = (
        "from pathlib import Path; from data_shards.extraction.openface_program import run_openface; "
        f"run_openface(Path({str(stand_in(tmp_path, body))!r}), Path({str(upload / 'clip')!r}), limit_s=50)"
    )
    root = Path(__file__).parents[2]
    starter = subprocess.Popen([sys.executable, "-c", call], cwd=root, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        until(note.exists)
    finally:
        starter.kill()
        starter.wait()
    pid, folder = note.read_text().split(" ", 1)
    assert Path(folder).parent == upload  # and goes when the upload is deleted
    until(lambda: not is_running(int(pid)))


def until(holds: Callable[[], bool]) -> None:
    """Wait, at most 20 s."""
    for _ in range(400):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("still not so after 20 s")


def is_running(pid: int) -> bool:
    """Whether a process is there that has not ended; one that nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_without_the_program_the_sentence_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPT_OPENFACE", raising=False)
    with pytest.raises(ConfigError, match="no OpenFace is named; set RAPT_OPENFACE"):
        OpenFace(OpenFaceSettings(source="binary"))
    monkeypatch.setenv("RAPT_OPENFACE", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="nothing: no program that can be run; set RAPT_OPENFACE"):
        OpenFace(OpenFaceSettings(source="binary"))
