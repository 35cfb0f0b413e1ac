"""Faces in pictures by MediaPipe's Face Landmarker: landmarks, expression, pose. The only module that imports mediapipe.

Letters: H height in pixels, W width in pixels, C = 3 RGB channels, L = 478 landmarks.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from data_shards.errors import ConfigError

__all__ = ["FaceBox", "FaceLandmarker", "LandmarkedFace", "mediapipe_version"]


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


@dataclass(frozen=True)
class LandmarkedFace:
    """points_L2: landmarks in pixels of the picture, numbered as MediaPipe's face mesh; 468 and 473 are the irises.

    Only with expressions: blendshapes, 52 scores in [0, 1] by name, and pose_44, which takes MediaPipe's canonical face
    (cm, x right, y up, z to the camera) into its camera, which has a vertical field of view of 63 degrees.
    """

    points_L2: npt.NDArray[np.float64]
    blendshapes: Mapping[str, float] = field(default_factory=dict)
    pose_44: npt.NDArray[np.float64] = field(default_factory=lambda: np.eye(4))

    @property
    def box(self) -> FaceBox:
        """The bounding box of all landmarks."""
        (left, top), (right, bottom) = self.points_L2.min(axis=0), self.points_L2.max(axis=0)
        return FaceBox(float(left), float(top), float(right - left), float(bottom - top))


class FaceLandmarker:
    """One Face Landmarker. A context manager: MediaPipe's objects must be closed explicitly.

    tracking: pictures are those of one video in order, and a face found is followed and its landmarks smoothed; without
    it each picture is looked at alone. expressions: blendshapes and the pose as well. Both are deterministic on a machine
    (measured on five real clips: the same pictures give the same values to the last bit), but what a tracking landmarker has
    seen shows in what it says next: each clip needs one of its own, which takes 20 ms to make.
    Raises ConfigError where the model file is none of MediaPipe's.
    """

    def __init__(self, model_path: Path, *, max_faces: int, tracking: bool = False, expressions: bool = False) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model_path)),
            running_mode=vision.RunningMode.VIDEO if tracking else vision.RunningMode.IMAGE,
            num_faces=max_faces,
            output_face_blendshapes=expressions,
            output_facial_transformation_matrixes=expressions,
        )
        self._tracking = tracking
        self._time_ms = -1
        try:
            with _silent_stderr():
                self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
                self.find(np.zeros((64, 64, 3), np.uint8))  # its threads have said what they had to say
        except (RuntimeError, ValueError, OSError):
            raise ConfigError(f"{model_path}: not a model of MediaPipe's Face Landmarker; fetch the .task file again") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; the landmarker cannot be used afterwards."""
        self._landmarker.close()

    def find(self, frame_HWC: npt.NDArray[np.uint8], time_s: float = 0.0) -> list[LandmarkedFace]:
        """The faces in an upright uint8 RGB picture, in no order. time_s, rising, counts where faces are tracked."""
        import mediapipe

        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame_HWC))
        if self._tracking:
            self._time_ms = max(self._time_ms + 1, round(time_s * 1000))  # MediaPipe refuses a time that does not rise
            found = self._landmarker.detect_for_video(image, self._time_ms)
        else:
            found = self._landmarker.detect(image)
        size_2 = np.array(frame_HWC.shape[1::-1])
        faces = []
        for number, landmarks in enumerate(found.face_landmarks):
            points_L2 = np.array([(point.x, point.y) for point in landmarks], dtype=np.float64) * size_2
            if not found.face_blendshapes:
                faces.append(LandmarkedFace(points_L2))
                continue
            blendshapes = {shape.category_name: float(shape.score) for shape in found.face_blendshapes[number]}
            faces.append(
                LandmarkedFace(points_L2, blendshapes, np.asarray(found.facial_transformation_matrixes[number], np.float64))
            )
        return faces


def mediapipe_version() -> str:
    """The installed MediaPipe's version."""
    return version("mediapipe")


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
