"""A recording to the people in it: looks at a few pictures a second, in one pass, holding one look's pictures.

Letters: H height in pixels, W width in pixels, C = 3 RGB channels.

[choice] Two looks a second: people join and move tiles seldom, and the moment of a change is then found among the
pictures between two looks, so a tile's span is exact to a picture. [choice] A face is looked for inside each tile, where
it is large enough for a short-range detector even in a gallery of 49. [choice] Where the picture is not parted by plain
lines, a tile is a box around each face, 3 times the face's height and 4 times its width, which is about how a webcam
shows a person (a DAiSEE face is a third of the picture's height).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_shards.errors import ClipError, DataError
from data_shards.gallery.faces import FaceBox, FindFaces
from data_shards.gallery.layout import Box, find_rectangles
from data_shards.gallery.recording import Picture, Recording, RecordingStream
from data_shards.gallery.tracking import Person, Region, Tracker
from data_shards.listing import Reject
from data_shards.schema import Stored

__all__ = ["People", "find_people"]

FACE_BOX_HEIGHT = 3.0  # times the face's height
FACE_BOX_WIDTH = 4.0  # times the face's width
_ZOOM_WITHOUT_TILES = 4
_SMALL_SIDE_PX = 24
_BETWEEN_STRIDE = 4  # every 4th pixel each way is enough to date a change
_MAX_REGIONS = 64


class People(Stored):
    """Everybody in a recording, until when it lasts, and what was odd about it."""

    end_s: float
    people: tuple[Person, ...]
    rejects: tuple[Reject, ...] = ()


def find_people(
    recording: Recording,
    find_faces: FindFaces,
    *,
    looks_per_s: float = 2.0,
    progress: Callable[[int, int], None] = lambda done_s, total_s: None,
) -> People:
    """Follow every person's tile through the recording. ClipError where nothing decodes, DataError where nobody is seen.

    progress(done, total) counts seconds of the recording.
    """
    tracker, between = Tracker(), _Between()
    stream = RecordingStream(recording)
    next_look_s, end_s, step_s = 0.0, 0.0, 0.0
    for picture in stream:
        assert isinstance(picture, Picture)
        step_s = min(picture.time_s - end_s, 1.0) if end_s else 1 / recording.fps
        end_s = picture.time_s
        between.add(picture)
        if picture.time_s < next_look_s:
            continue
        tracker.look(picture.time_s, _regions(picture, find_faces), between.changed_at)
        between.start_again()
        next_look_s = max(next_look_s + 1 / looks_per_s, picture.time_s)
        progress(round(picture.time_s), max(round(recording.duration_s), round(picture.time_s)))
    if not stream.num_pictures:
        raise ClipError(f"{recording.path.name}: damaged, no picture of it can be decoded; re-encode it")
    end_s += step_s
    people, num_dropped = tracker.people(end_s)
    if not people:
        damage = f" ({stream.num_damaged} damaged pieces were passed over)" if stream.num_damaged else ""
        raise DataError(
            f"{recording.path.name}: no face was seen in it for a second or more{damage}; is it a gallery-view recording?"
        )
    return People(end_s=round(end_s, 3), people=tuple(people), rejects=tuple(_oddities(recording, stream, end_s, num_dropped)))


def _oddities(recording: Recording, stream: RecordingStream, end_s: float, num_dropped: int) -> list[Reject]:
    name, reasons = recording.path.name, []
    if stream.num_damaged:
        reasons.append(f"{stream.num_damaged} damaged pieces were passed over; the clips there may be jerky")
    if end_s < recording.duration_s - max(1.0, 0.01 * recording.duration_s):
        reasons.append(f"its pictures end at {end_s:.1f} s although its header says {recording.duration_s:.1f} s")
    if num_dropped:
        reasons.append(f"{num_dropped} faces were seen for less than a second each and are nobody's")
    return [Reject(clip_id=name, source=name, reason=f"{name}: {reason}") for reason in reasons]


class _Between:
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


def _regions(picture: Picture, find_faces: FindFaces) -> list[Region]:
    """The parts of a picture that may each hold a person."""
    rgb_HWC = picture.rgb()
    height, width = rgb_HWC.shape[:2]
    rectangles = find_rectangles(picture.luma())
    if len(rectangles) > 1:
        return [
            Region(box, has_face=bool(find_faces(_crop(rgb_HWC, box), 1)), picture_PC=_small(rgb_HWC, box))
            for box in rectangles[:_MAX_REGIONS]
        ]
    whole = rectangles[0] if rectangles else Box(x=0, y=0, width=width, height=height)
    faces = find_faces(_crop(rgb_HWC, whole), _ZOOM_WITHOUT_TILES)
    if len(faces) == 1 and faces[0].width >= whole.width / 8:  # one person alone fills the picture
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


def _crop(rgb_HWC: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.uint8]:
    return rgb_HWC[box.y : box.y + box.height, box.x : box.x + box.width]


def _small(rgb_HWC: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.float32]:
    """The picture inside a box as 24x24 RGB, by which it is known again."""
    small = Image.fromarray(_crop(rgb_HWC, box)).resize((_SMALL_SIDE_PX, _SMALL_SIDE_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1, 3)
