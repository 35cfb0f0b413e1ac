"""Where the faces are in one picture, by MediaPipe's Face Landmarker.

Letters: H height in pixels, W width in pixels, C = 3 RGB channels.

The model's own detector is short range: measured on seven real clips, a face is always found where it is 12 % of the
picture's longer side or more, and never below 8 %, whatever its size in pixels (down to 10 pixels in a picture of its
own). `zoom` therefore also looks at overlapping windows: zoom 2 halves the smallest face, zoom 4 quarters it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from data_shards.face_landmarks import FaceBox, FaceLandmarker

__all__ = ["FaceBox", "FaceFinder", "FindFaces"]

_SAME_FACE_OVERLAP = 0.3  # two windows see one face a few pixels apart; two people's faces hardly overlap

# Any detector: an upright RGB picture and the zoom (1 for the whole picture alone) to the faces in it, in no order.
FindFaces = Callable[[npt.NDArray[np.uint8], int], list[FaceBox]]


class FaceFinder:
    """Finds up to `max_faces` faces a window. A context manager: MediaPipe's objects must be closed explicitly.

    About 5 ms a window on one CPU core. Raises ConfigError where the model file is none of MediaPipe's.
    """

    def __init__(self, model_path: Path, *, max_faces: int = 25) -> None:
        self._landmarker = FaceLandmarker(model_path, max_faces=max_faces)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
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
            for seen in self._landmarker.find(frame_HWC[top : top + height, left : left + width]):
                face = seen.box
                found.append(FaceBox(face.x + left, face.y + top, face.width, face.height))
        distinct: list[FaceBox] = []
        for face in sorted(found, key=lambda face: -face.width * face.height):
            if all(_overlap(face, other) < _SAME_FACE_OVERLAP for other in distinct):
                distinct.append(face)
        return distinct


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
