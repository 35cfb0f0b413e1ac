"""`rapt report`: a recording to a file that a teacher reads, with and without pictures, and refusals in one sentence."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.lesson_recording import Scene, grid, write_gallery
from cluster.command_line import rapt
from data_shards.errors import ClipError, ConfigError
from data_shards.face_model import FACE_MODEL_VARIABLE
from serving.lesson.record import LessonResult, Moment
from serving.report.pictures import moment_pictures

SIZE = (640, 360)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 s of three drawn people; one's camera is off in the last 3."""
    people = grid([0, 1, 2], 2, SIZE)
    scenes = (Scene(0, 6, people), Scene(6, 9, people, frozenset({1})))
    return write_gallery(tmp_path_factory.mktemp("recording") / "lesson.mp4", scenes, size=SIZE, fps=6)


@pytest.fixture
def face_model(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FACE_MODEL_VARIABLE, str(real_data / "models" / "face_landmarker.task"))


@pytest.mark.usefixtures("face_model")
def test_a_recording_becomes_a_report_a_table_and_numbers(recording: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out" / "monday.html", tmp_path / "monday.csv"
    arguments = ["report", str(tiny_bundle), str(recording), "--out", str(out), "--csv", str(table), "--window", "3s", "--json"]
    done = CliRunner().invoke(rapt, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    result = LessonResult.model_validate(json.loads(done.stdout))
    assert (len(result.people), result.window_s) == (3, 3.0)
    assert out.read_text().count('<svg class="row"') == 3
    assert "<img" not in out.read_text()
    assert str(recording) not in out.read_text() + table.read_text()
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert {row["person"] for row in rows} == {"person0", "person1", "person2"}
    assert [row["status"] for row in rows].count("camera_off") == 1


@pytest.mark.usefixtures("face_model")
def test_a_recording_whose_pictures_cannot_be_had_has_a_report_all_the_same(
    recording: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(recording: Path, moments: object) -> dict[int, bytes]:
        raise ClipError(f"{recording.name}: damaged")

    monkeypatch.setattr("serving.report.pictures.moment_pictures", damaged)
    out = tmp_path / "report.html"
    done = CliRunner().invoke(rapt, ["report", str(tiny_bundle), str(recording), "--out", str(out), "--pictures"])
    assert done.exit_code == 0
    assert "the report has no pictures: lesson.mp4: damaged" in done.stderr
    assert "This file holds numbers alone" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("--window", "soon"), ConfigError, "--window soon: not a length of time; e.g. --window 10s"),
        (("--window", "0.5s"), ConfigError, "--window 0.5s: window_s: Input should be greater than or equal to 2"),
        ((), ClipError, "not a video container"),
    ],
)
@pytest.mark.usefixtures("face_model")
def test_what_cannot_be_done_is_one_sentence_and_leaves_no_file(
    tiny_bundle: Path, tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], words: str
) -> None:
    lesson, out = tmp_path / "lesson.mp4", tmp_path / "report.html"
    lesson.write_bytes(b"no video" * 100)
    with pytest.raises(error, match=words.replace(".", r"\.")):
        CliRunner().invoke(rapt, ["report", str(tiny_bundle), str(lesson), "--out", str(out), *arguments], catch_exceptions=False)
    assert not out.exists()


def test_pictures_are_the_frames_in_the_middle_of_the_moments(tmp_path: Path) -> None:
    path = tmp_path / "grey.mp4"
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 960, 540, "yuv420p"
        for number in range(40):  # each frame as bright as its number says
            pixels = np.full((540, 960, 3), 10 + 6 * number, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    moments = [
        Moment(kind="high", start_s=3, end_s=3.1, mean_score=0.5),
        Moment(kind="low", start_s=0.5, end_s=1.6, mean_score=-0.5),
        Moment(kind="low", start_s=3, end_s=99, mean_score=-0.5),
    ]
    frames = {number: np.asarray(Image.open(io.BytesIO(jpeg))) for number, jpeg in moment_pictures(path, moments).items()}
    assert {number: round((frame.mean() - 10) / 6) for number, frame in frames.items()} == {0: 30, 1: 10, 2: 39}
    assert frames[0].shape == (270, 480, 3)
