"""What several test files share: a model, what decodes for it, a clip, recordings of lessons."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.lesson_recording import Scene, grid, write_gallery
from data_shards.face_model import FACE_MODEL_VARIABLE
from serving.confined.decode_child import DecodeChild
from serving.predictor import Predictor
from training.registry import RegisteredModel

SIZE = (640, 360)
SCENES = (  # windows of 5 s: 0 to 8
    Scene(0, 12, grid([0, 1, 2, 3], 2, SIZE)),
    Scene(12, 24, grid([0, 1, 2, 3], 2, SIZE), frozenset({2})),  # a camera is turned off, and on again
    Scene(24, 34, grid([3, 1, 2, 4, 0], 3, SIZE)),  # one joins, and everybody moves
    Scene(34, 42, grid([3, 1], 2, SIZE)),  # three leave
)


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor(RegisteredModel(name="engagement", version="1", folder=tiny_bundle))


@pytest.fixture(scope="module")
def child(predictor: Predictor) -> Iterator[DecodeChild]:
    """Started by the first clip."""
    child = DecodeChild(predictor.recipe)
    yield child
    child.close()


@pytest.fixture(scope="module")
def clip(simulated_folder: Path) -> bytes:
    """A drawn person's; files of tests that read it from its path have their own."""
    return min((simulated_folder / "clips").iterdir()).read_bytes()


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
