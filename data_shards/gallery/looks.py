"""One picture of a recording to the regions in which a person may be, and what it costs to look often.

Letters: P pixels of a small picture, H height in pixels, W width in pixels, C = 3 RGB channels.

[choice] A face is looked for inside each tile, where it is large enough for a short-range detector even in a gallery of
49. [choice] Where the picture is not parted by plain lines, a tile is a box around each face, 3 times the face's height
and 4 times its width, which is about how a webcam shows a person (a DAiSEE face is a third of the picture's height).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_shards.gallery.faces import FaceBox, FindFaces
from data_shards.gallery.layout import Box, find_rectangles, overlap
from data_shards.gallery.recording import Picture
from data_shards.gallery.tracking import MOVED_LEVELS, SMALL_SIDE_PX, Region, SmallPicture, Track

__all__ = ["Between", "Looker", "LookerState", "is_off", "look_at_all"]

FACE_BOX_HEIGHT = 3.0  # times the face's height
FACE_BOX_WIDTH = 4.0  # times the face's width
_ZOOM_WITHOUT_TILES = 4
_ALONE_SHARE = 1 / 8  # of the picture's width: one face as wide as that fills the picture
_BETWEEN_STRIDE = 4  # every 4th pixel each way is enough to date a change
_MAX_REGIONS = 64
_SAME_TILE_OVERLAP = 0.85
_SAME_FACE_OVERLAP = 0.3
_TILE_FACE_EVERY_S = 2.0
_WHOLE_EVERY_S = (1.0, 8.0)
_DARK_LEVELS = 20.0
_FLAT_LEVELS = 8.0
_FLAT_SHARE = 0.8


def look_at_all(picture: Picture, find_faces: FindFaces) -> list[Region]:
    """The parts of a picture that may each hold a person; every face of it is looked for."""
    rgb_HWC = picture.rgb()
    rectangles, whole = _parts(picture)
    if rectangles:
        return [
            Region(box, has_face=bool(find_faces(_crop(rgb_HWC, box), 1)), picture_PC=_small(rgb_HWC, box)) for box in rectangles
        ]
    return _around_faces(rgb_HWC, whole, find_faces(_crop(rgb_HWC, whole), _ZOOM_WITHOUT_TILES))


@dataclass
class LookerState:
    """What a Looker remembers: tiles in which a face was looked for, and when the whole picture is searched next."""

    tiles: list[tuple[float, bool, Box, SmallPicture]] = field(default_factory=list)  # (when, whether there was one, ...)
    next_whole_s: float = 0.0
    whole_every_s: float = _WHOLE_EVERY_S[0]


class Looker:
    """Looks at one picture after another, for hours, and searches for faces no more than it must.

    [choice] In a tile that still shows the same a face is looked for every 2 s. Without tiles, where a search of the whole
    picture takes 59 windows, it is done after 1 s, and after twice as long as the time before, up to 8 s, while it finds
    nobody new; in between the boxes of the people who are there are searched. On the real crowd, where somebody new comes every
    second, that is half of the windows; in a room of people who stay, a tenth.
    """

    def __init__(self, find_faces: FindFaces, state: LookerState | None = None) -> None:
        self._find_faces = find_faces
        self.state = state or LookerState()

    def regions(self, picture: Picture, present: Sequence[Track]) -> list[Region]:
        """The parts of the picture that may each hold a person; present: the people who were there a look ago."""
        rgb_HWC = picture.rgb()
        rectangles, whole = _parts(picture)
        if rectangles:
            return [self._tile(picture.time_s, rgb_HWC, box) for box in rectangles]
        self.state.tiles = []
        alone = [track for track in present if track.is_tile and overlap(track.seen_box, whole) >= _SAME_TILE_OVERLAP]
        if picture.time_s < self.state.next_whole_s:
            faces = self._near(rgb_HWC, whole, present if not alone else [])
            faces += self._find_faces(_crop(rgb_HWC, whole), 1) if alone else []
        else:
            faces = self._everywhere(picture.time_s, rgb_HWC, whole, present)
        if alone and not faces:  # turned away, or the camera is off: the picture is still theirs
            small_PC = _small(rgb_HWC, whole)
            return [Region(whole, has_face=False, picture_PC=small_PC, is_off=is_off(small_PC))]
        return _around_faces(rgb_HWC, whole, faces)

    def _tile(self, time_s: float, rgb_HWC: npt.NDArray[np.uint8], box: Box) -> Region:
        small_PC = _small(rgb_HWC, box)
        for number, (looked_s, had_face, known, picture_PC) in enumerate(self.state.tiles):
            same = overlap(known, box) >= _SAME_TILE_OVERLAP and np.abs(picture_PC - small_PC).mean() <= MOVED_LEVELS
            if same and time_s - looked_s < _TILE_FACE_EVERY_S:
                return Region(box, had_face, small_PC, is_off=not had_face and is_off(small_PC))
            if overlap(known, box) >= _SAME_FACE_OVERLAP:
                del self.state.tiles[number]
                break
        off = is_off(small_PC)
        has_face = not off and bool(self._find_faces(_crop(rgb_HWC, box), 1))
        self.state.tiles = [*self.state.tiles[-_MAX_REGIONS:], (time_s, has_face, box, small_PC)]
        return Region(box, has_face, small_PC, is_off=off)

    def _everywhere(self, time_s: float, rgb_HWC: npt.NDArray[np.uint8], whole: Box, present: Sequence[Track]) -> list[FaceBox]:
        faces = self._find_faces(_crop(rgb_HWC, whole), _ZOOM_WITHOUT_TILES)
        known = [track.seen_box for track in present]
        is_news = len(faces) != len(known) or any(not _is_in(face, whole, known) for face in faces)
        shortest_s, longest_s = _WHOLE_EVERY_S
        self.state.whole_every_s = shortest_s if is_news else min(2 * self.state.whole_every_s, longest_s)
        self.state.next_whole_s = time_s + self.state.whole_every_s
        return faces

    def _near(self, rgb_HWC: npt.NDArray[np.uint8], whole: Box, present: Sequence[Track]) -> list[FaceBox]:
        """The faces in the boxes of those who are there, in pixels of `whole`; first in a box, then in the middle of it."""
        distinct: list[FaceBox] = []
        for track in present:
            for box in (track.seen_box, _middle(track.seen_box)):
                found = self._find_faces(_crop(rgb_HWC, box), 1)
                for face in found:
                    moved = FaceBox(face.x + box.x - whole.x, face.y + box.y - whole.y, face.width, face.height)
                    if all(overlap(_box_of(moved), _box_of(other)) < _SAME_FACE_OVERLAP for other in distinct):
                        distinct.append(moved)
                if found:
                    break
        return distinct


def is_off(picture_PC: SmallPicture) -> bool:
    """Whether a small picture is black, or one colour but for a name or initials on it: nobody's camera.

    [choice] A mean below 20 of 256 levels, or four fifths of it within 8 levels of its median: of the shared real clips'
    pictures at most three tenths are (measured), of a tile with initials nine tenths.
    """
    if float(picture_PC.mean()) < _DARK_LEVELS:
        return True
    median_C = np.median(picture_PC, axis=0)
    return bool((np.abs(picture_PC - median_C).max(axis=1) <= _FLAT_LEVELS).mean() >= _FLAT_SHARE)


class Between:
    """The pictures since the last look, small and grey, to date a change."""

    def __init__(self) -> None:
        self._pictures: list[tuple[float, npt.NDArray[np.int16]]] = []

    def add(self, picture: Picture) -> None:
        small_HW = picture.luma()[::_BETWEEN_STRIDE, ::_BETWEEN_STRIDE].astype(np.int16)
        self._pictures.append((picture.time_s, small_HW))

    def start_again(self) -> None:
        """The newest picture was looked at."""
        del self._pictures[:-1]

    def changed_at(self, box: Box) -> float:
        """When the picture inside `box` became more like the newest than like the last one looked at."""
        rows = slice(box.y // _BETWEEN_STRIDE, (box.y + box.height) // _BETWEEN_STRIDE)
        columns = slice(box.x // _BETWEEN_STRIDE, (box.x + box.width) // _BETWEEN_STRIDE)
        old_HW, new_HW = self._pictures[0][1][rows, columns], self._pictures[-1][1][rows, columns]
        for time_s, small_HW in self._pictures[1:]:
            now_HW = small_HW[rows, columns]
            if np.abs(now_HW - new_HW).sum() < np.abs(now_HW - old_HW).sum():
                return time_s
        return self._pictures[-1][0]


def _parts(picture: Picture) -> tuple[list[Box], Box]:
    """(the tiles of a gallery, none where there are not two; the part of the picture that is no plain ground)."""
    luma_HW = picture.luma()
    rectangles = find_rectangles(luma_HW)
    if len(rectangles) > 1:
        return rectangles[:_MAX_REGIONS], rectangles[0]
    height, width = luma_HW.shape
    return [], rectangles[0] if rectangles else Box(x=0, y=0, width=width, height=height)


def _around_faces(rgb_HWC: npt.NDArray[np.uint8], whole: Box, faces: Sequence[FaceBox]) -> list[Region]:
    if len(faces) == 1 and faces[0].width >= whole.width * _ALONE_SHARE:  # one person alone fills the picture
        return [Region(whole, has_face=True, picture_PC=_small(rgb_HWC, whole))]
    boxes = [_around(face, whole) for face in faces[:_MAX_REGIONS]]
    return [Region(box, has_face=True, picture_PC=_small(rgb_HWC, box), is_tile=False) for box in boxes]


def _around(face: FaceBox, whole: Box) -> Box:
    """A box around a face found in `whole`, moved inside it where it would reach out."""
    width = min(whole.width, int(face.width * FACE_BOX_WIDTH) // 2 * 2)
    height = min(whole.height, int(face.height * FACE_BOX_HEIGHT) // 2 * 2)
    x = min(max(0, int(face.centre[0] - width / 2)), whole.width - width) // 2 * 2
    y = min(max(0, int(face.centre[1] - height / 2)), whole.height - height) // 2 * 2
    return Box(x=whole.x + x, y=whole.y + y, width=max(2, width), height=max(2, height))


def _middle(box: Box) -> Box:
    return Box(
        x=box.x + box.width // 4, y=box.y + box.height // 6, width=max(2, box.width // 2), height=max(2, 2 * box.height // 3)
    )


def _box_of(face: FaceBox) -> Box:
    return Box(x=int(face.x), y=int(face.y), width=max(1, int(face.width)), height=max(1, int(face.height)))


def _is_in(face: FaceBox, whole: Box, boxes: Sequence[Box]) -> bool:
    return any(box.holds(whole.x + face.centre[0], whole.y + face.centre[1]) for box in boxes)


def _crop(rgb_HWC: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.uint8]:
    return rgb_HWC[box.y : box.y + box.height, box.x : box.x + box.width]


def _small(rgb_HWC: npt.NDArray[np.uint8], box: Box) -> SmallPicture:
    """The picture inside a box as 24x24 RGB, by which it is known again."""
    small = Image.fromarray(_crop(rgb_HWC, box)).resize((SMALL_SIDE_PX, SMALL_SIDE_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1, 3)
