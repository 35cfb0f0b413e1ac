"""One face through a clip: the largest where somebody is first seen, then the same one for as long as it is seen.

Letters: H height in pixels, W width in pixels, C = 3 RGB channels, L = 478 landmarks.
"""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from data_shards.face_landmarks import FaceBox, FaceLandmarker, LandmarkedFace
from data_shards.gallery.faces import FindFaces

__all__ = ["FaceTrack", "View"]

_WINDOW_FACES = 3.0  # sides of the window in sides of the face: MediaPipe finds it well, and it may move by its own width
_LARGE = 0.12  # of the picture's longer side: what MediaPipe always finds in the whole picture


class View(NamedTuple):
    """The part of the picture that is looked at, in pixels. MediaPipe takes it for a whole picture."""

    left: int
    top: int
    width: int
    height: int


class FaceTrack:
    """Follows one face through the pictures of one clip. A context manager: it holds a tracking landmarker.

    A face that is alone and large is followed in the whole picture; one among several, or a small one, in a window
    around it, so that the face followed is the one chosen. Where it is lost, or reaches the window's edge, a face is chosen
    anew: one where it was last seen, else the largest. Nobody is recognised: somebody else may sit down there.
    """

    def __init__(self, model_path: Path, find_faces: FindFaces, *, zoom: int = 1) -> None:
        self._model_path = model_path
        self._find_faces = find_faces
        self._zoom = zoom
        self._tracker: FaceLandmarker | None = None
        self._view = View(0, 0, 0, 0)
        self._last_seen: FaceBox | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the landmarker."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None

    def see(self, frame_HWC: npt.NDArray[np.uint8], time_s: float) -> tuple[LandmarkedFace, View] | None:
        """The face in the clip's next picture, its landmarks in pixels of the view; None where no face is found."""
        seen = self._follow(frame_HWC, time_s)
        if seen is None and (faces := self._find_faces(frame_HWC, self._zoom)):
            self.close()
            self._tracker = FaceLandmarker(self._model_path, max_faces=1, tracking=True, expressions=True)
            chosen = max(faces, key=lambda face: (self._was_there(face), face.width * face.height))
            self._view = _view_of(chosen, width=frame_HWC.shape[1], height=frame_HWC.shape[0], alone=len(faces) == 1)
            seen = self._follow(frame_HWC, time_s)
        if seen is None:
            self.close()
        return seen

    def _follow(self, frame_HWC: npt.NDArray[np.uint8], time_s: float) -> tuple[LandmarkedFace, View] | None:
        if self._tracker is None:
            return None
        left, top, width, height = self._view
        found = self._tracker.find(frame_HWC[top : top + height, left : left + width], time_s)
        if not found:
            return None
        box = found[0].box
        self._last_seen = FaceBox(box.x + left, box.y + top, box.width, box.height)
        if _is_leaving(box, self._view, frame_HWC.shape[1], frame_HWC.shape[0]):
            return None
        return found[0], self._view

    def _was_there(self, face: FaceBox) -> bool:
        last, (x, y) = self._last_seen, face.centre
        return last is not None and 0 <= x - last.x <= last.width and 0 <= y - last.y <= last.height


def _view_of(face: FaceBox, *, width: int, height: int, alone: bool) -> View:
    """Where to follow a face."""
    side = max(face.width, face.height)
    if alone and side >= _LARGE * max(width, height):
        return View(0, 0, width, height)
    x, y = face.centre
    reach = max(32.0, side * _WINDOW_FACES / 2)
    left, right = (round(min(max(edge, 0), width)) for edge in (x - reach, x + reach))
    top, bottom = (round(min(max(edge, 0), height)) for edge in (y - reach, y + reach))
    return View(left, top, right - left, bottom - top)


def _is_leaving(face: FaceBox, view: View, width: int, height: int) -> bool:
    """Whether the face crosses an edge of the view behind which the picture goes on."""
    return (
        (face.x < 0 < view.left)
        or (face.y < 0 < view.top)
        or (face.x + face.width > view.width and view.left + view.width < width)
        or (face.y + face.height > view.height and view.top + view.height < height)
    )
