"""Where the faces are in one picture, by MediaPipe's Face Landmarker. The only module that imports mediapipe.

Letters: H height in pixels, W width in pixels, C = 3 RGB channels.

The model's own detector is short range: measured on seven real clips, a face is always found where it is 12 % of the
picture's longer side or more, and never below 8 %, whatever its size in pixels (down to 10 pixels in a picture of its
own). `zoom` therefore also looks at overlapping windows: zoom 2 halves the smallest face, zoom 4 quarters it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from data_shards.errors import ConfigError

__all__ = ["FACE_MODEL_VARIABLE", "FaceBox", "FaceFinder", "FindFaces", "face_model_path"]

FACE_MODEL_VARIABLE = "RAPT_FACE_LANDMARKER"
_SAME_FACE_OVERLAP = 0.3  # two windows see one face a few pixels apart; two people's faces hardly overlap


@dataclass(frozen=True)
class FaceBox:
    """A face's bounding box in pixels of the picture it was found in; it may reach a little outside."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) in pixels."""
        return self.x + self.width / 2, self.y + self.height / 2


# Any detector: an upright RGB picture and the zoom (1 for the whole picture alone) to the faces in it, in no order.
FindFaces = Callable[[npt.NDArray[np.uint8], int], list[FaceBox]]


def face_model_path(option: str | Path | None) -> Path:
    """The Face Landmarker's model file: `option`, else the environment's RAPT_FACE_LANDMARKER.

    ConfigError where neither names one, or the file is not there. Rapt never fetches it by itself.
    """
    named = str(option or os.environ.get(FACE_MODEL_VARIABLE, ""))
    if not named:
        raise ConfigError(
            f"no face model is named: pass --face-model or set {FACE_MODEL_VARIABLE} to MediaPipe's face_landmarker.task, "
            "which Google offers at https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker; "
            "Rapt never fetches it by itself"
        )
    path = Path(named)
    if not path.is_file():
        raise ConfigError(f"{named}: no such face model file; name MediaPipe's face_landmarker.task (see --face-model)")
    return path


class FaceFinder:
    """Finds up to `max_faces` faces a window. A context manager: MediaPipe's objects must be closed explicitly.

    About 5 ms a window on one CPU core. Raises ConfigError where the model file is none of MediaPipe's.
    """

    def __init__(self, model_path: Path, *, max_faces: int = 25) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(model_path)), num_faces=max_faces)
        try:
            with _silent_stderr():
                self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
                self.find(np.zeros((64, 64, 3), np.uint8))  # its threads have said what they had to say
        except (RuntimeError, ValueError, OSError):
            raise ConfigError(f"{model_path}: not a model of MediaPipe's Face Landmarker; fetch the .task file again") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; the finder cannot be used afterwards."""
        self._landmarker.close()

    def find(self, frame_HWC: npt.NDArray[np.uint8], zoom: int = 1) -> list[FaceBox]:
        """The faces in an upright uint8 RGB picture, largest first.

        zoom: 1 looks at the whole picture; 2 and 4 also at windows of half and a quarter of it, half overlapping.
        """
        found: list[FaceBox] = []
        for left, top, width, height in _windows(frame_HWC.shape[1], frame_HWC.shape[0], zoom):
            for face in self._find_in(frame_HWC[top : top + height, left : left + width]):
                found.append(FaceBox(face.x + left, face.y + top, face.width, face.height))
        distinct: list[FaceBox] = []
        for face in sorted(found, key=lambda face: -face.width * face.height):
            if all(_overlap(face, other) < _SAME_FACE_OVERLAP for other in distinct):
                distinct.append(face)
        return distinct

    def _find_in(self, window_HWC: npt.NDArray[np.uint8]) -> Iterator[FaceBox]:
        import mediapipe

        height, width = window_HWC.shape[:2]
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(window_HWC))
        for landmarks in self._landmarker.detect(image).face_landmarks:
            xs, ys = [point.x * width for point in landmarks], [point.y * height for point in landmarks]
            yield FaceBox(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """MediaPipe writes its start to file descriptor 2 at length, with no switch; its failures come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _windows(width: int, height: int, zoom: int) -> Iterator[tuple[int, int, int, int]]:
    """(left, top, width, height) of the whole picture, then of each zoom level's windows."""
    yield 0, 0, width, height
    level = 2
    while level <= zoom:
        w, h = width // level, height // level
        if min(w, h) < 32:
            return
        for row in range(2 * level - 1):
            for column in range(2 * level - 1):
                yield column * w // 2, row * h // 2, w, h
        level *= 2


def _overlap(a: FaceBox, b: FaceBox) -> float:
    """Shared area over the smaller one's: a window's edge cuts a face, so the smaller may lie inside the larger."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(0.0, width) * max(0.0, height) / max(1.0, min(a.width * a.height, b.width * b.height))
