"""Faces in a frame, by MediaPipe's Face Landmarker; the operator names its model file."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from data_shards.errors import ConfigError

__all__ = ["FaceBox", "FaceFinder", "face_model_path"]


@dataclass(frozen=True)
class FaceBox:
    """The box around a face's landmarks, in pixels of the frame."""

    left_px: float
    top_px: float
    right_px: float
    bottom_px: float


class FaceFinder:
    """Finds faces in single frames; a context manager, because MediaPipe's objects must be closed."""

    def __init__(self, model_path: Path, *, max_faces: int = 1) -> None:
        self._model_path = model_path
        self._max_faces = max_faces
        self._landmarker: Any = None

    def __enter__(self) -> Self:
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions

        options = FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=self._model_path.read_bytes()), num_faces=self._max_faces
        )
        try:
            self._landmarker = FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{self._model_path}: not a Face Landmarker model ({str(error).splitlines()[0][:80]}); name face_landmarker.task"
            ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._landmarker.close()

    def find(self, frame_HWC: npt.NDArray[np.uint8]) -> list[FaceBox]:
        """The faces in one RGB frame, uint8."""
        import mediapipe

        height_px, width_px = frame_HWC.shape[:2]
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame_HWC))
        boxes = []
        for landmarks in self._landmarker.detect(image).face_landmarks:
            xs, ys = [mark.x * width_px for mark in landmarks], [mark.y * height_px for mark in landmarks]
            boxes.append(FaceBox(min(xs), min(ys), max(xs), max(ys)))
        return boxes


def face_model_path(option: str | Path | None) -> Path:
    """The model file: the option, or RAPT_FACE_LANDMARKER. ConfigError where neither names a file."""
    named = str(option or os.environ.get("RAPT_FACE_LANDMARKER", ""))
    if not named:
        raise ConfigError("no face model is named; name MediaPipe's face_landmarker.task in RAPT_FACE_LANDMARKER")
    if not Path(named).is_file():
        raise ConfigError(f"{named}: no such file; name MediaPipe's face_landmarker.task with --face-model")
    return Path(named)
