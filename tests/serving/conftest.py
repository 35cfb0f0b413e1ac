"""Recordings of lessons that several test files share."""

from pathlib import Path

import pytest

from benchmarks.lesson_recording import Scene, grid, write_gallery
from data_shards.face_model import FACE_MODEL_VARIABLE

SIZE = (640, 360)
SCENES = (  # windows of 5 s: 0 to 8
    Scene(0, 12, grid([0, 1, 2, 3], 2, SIZE)),
    Scene(12, 24, grid([0, 1, 2, 3], 2, SIZE), frozenset({2})),  # a camera is turned off, and on again
    Scene(24, 34, grid([3, 1, 2, 4, 0], 3, SIZE)),  # one joins, and everybody moves
    Scene(34, 42, grid([3, 1], 2, SIZE)),  # three leave
)


@pytest.fixture(scope="session")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 s of a gallery of drawn people."""
    return write_gallery(tmp_path_factory.mktemp("lesson") / "lesson.mp4", SCENES, size=SIZE, fps=8)


@pytest.fixture
def face_model(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MediaPipe's model, found by name as an operator names it."""
    path = real_data / "models" / "face_landmarker.task"
    monkeypatch.setenv(FACE_MODEL_VARIABLE, str(path))
    return path
