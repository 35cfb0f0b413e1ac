"""A look at a clip before it is scored: whether the camera is off, and whether anybody's face is in view.

Letters: N frames that are looked at, H height, W width, C = 3 RGB channels.

Faces are first looked for in the model's own small frames, which are there already. Measured on the shared real clips (8 frames
each), a crop of 64 pixels shows a face in 5 to 8 of 8 frames wherever one person sits before a camera, but a crop of 32 or
a padded 64 shows none in one of them, and no size shows the small faces of a crowd. So where fewer than half of the small
frames show one, as many larger frames are decoded and looked at. In these, 640 pixels wide, every person is found, also the
crowd's (in windows of half the picture), and nobody in the clip that shows nobody.
"""

import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_shards.decode import DecodeLimits
from data_shards.decode_stream import FrameStream
from data_shards.face_model import FACE_MODEL_VARIABLE, face_model_at_hand
from data_shards.gallery.faces import FaceFinder
from data_shards.sample import Sample

__all__ = [
    "Look",
    "is_camera_off",
    "look_at_clip",
    "look_at_sample",
    "look_at_windows",
    "prepare_look",
    "shows_camera_off",
]

Frames = npt.NDArray[np.uint8]

_MOST_FRAMES = 8
_WINDOW_FRAMES = 4  # of a window: there may be 60
_LARGER_SIDE_PX = 640
_ENOUGH = 0.5  # of the small frames: one frame in eight may show a face where there is none (224 pixels, no_face.mp4)
_TELLING_CROP_PX = 64  # a crop of at least this size in which nobody is seen shows nobody
# Of a tile with a name or a picture of somebody: its ground, the pixels that hardly change and are of the usual colour in every
# frame. Measured in crops of 32, 64 and 224 pixels: real clips have 0 to 0.18 of it, a frozen picture of a person 0.15,
# made tiles 0.44 and more where nothing moves, 0.5 to 0.65 where a ring says who speaks.
_ENOUGH_PX = 96  # of the shorter side: larger pictures are reduced, and noise with them
_CALM_LEVELS = 4  # of 255, from a pixel's least value to its largest; the JPEGs alone make 2
_NEAR_LEVELS = 12
_STILL_SHARE = 0.9  # of pixels that hardly change, where nothing moves: real clips 0.46 and less
_GROUND_OF_STILL = 0.35
_GROUND = 0.6
_ONE_COLOUR_LEVELS = 16  # from the 1st to the 99th percentile of brightness: dark noise 6 and less, real clips 110 and more
_BAR_LEVELS = 8  # what is darker in a whole row or column at the edge was added around the picture

_lock = threading.Lock()  # MediaPipe's detectors take one picture at a time


class Look(NamedTuple):
    """face_share: the share of looked-at frames that show a face, from 0 to 1, None where nobody looked or nothing can be told.

    camera_off: the picture is black, of one colour, or a still and nearly flat tile.
    """

    face_share: float | None
    camera_off: bool


def prepare_look() -> bool:
    """Load the face model, where one is at hand, so that the first clip does not wait; False where nobody looks for faces.

    ConfigError where a file is named that is not there or no face model.
    """
    with _lock:
        return _finder() is not None


def look_at_sample(sample: Sample) -> Look:
    """A look at a stored sample's own frames. Where they are too small to tell that nobody is there, the share is None."""
    if not sample.has_frames:
        return Look(None, camera_off=False)
    look = _small_look(sample, _MOST_FRAMES)
    return look._replace(face_share=None) if look.face_share == 0 and not _tells_absence(sample) else look


def shows_camera_off(sample: Sample) -> bool:
    """Whether the sample's own frames show a camera that is off, where faces were looked for elsewhere."""
    return sample.has_frames and is_camera_off(sample.some_frames(_MOST_FRAMES))


def look_at_clip(path: Path, sample: Sample, limits: DecodeLimits | None = None) -> Look:
    """A look at a video's `sample`, and at larger frames of it where that does not show enough.

    A sample without frames, of a model that reads features alone, is looked at in larger frames at once.
    """
    span_s = (0.0, sample.meta.duration_s or 0.0)
    return _looks(path, [(span_s, sample)], _MOST_FRAMES, limits)[0]


def look_at_windows(
    path: Path, windows: Sequence[tuple[tuple[float, float], Sample]], limits: DecodeLimits | None = None
) -> list[Look]:
    """A look at each window of a video: its (start, end) in seconds, and the sample made of it."""
    return _looks(path, windows, _WINDOW_FRAMES, limits)


def is_camera_off(frames_NHWC: Frames) -> bool:
    """Whether all frames are of one colour, or are a tile with a name: a plain ground on which little or nothing moves.

    frames_NHWC: uint8 RGB; black bars around the picture are ignored. [choice] A frozen picture of a person is no camera that is
    off: it has no plain ground, and is scored.
    """
    inside_NHWC = _without_bars(frames_NHWC)
    if inside_NHWC.size == 0:
        return True  # black
    picture = _reduced(inside_NHWC)
    low_N, high_N = np.percentile(picture.mean(axis=3).reshape(len(picture), -1), [1, 99], axis=1)
    if bool((high_N - low_N).max() <= _ONE_COLOUR_LEVELS):
        return True
    if len(picture) < 2:
        return False
    calm_HW = (picture.max(axis=0) - picture.min(axis=0)).max(axis=2) <= _CALM_LEVELS
    usual_N11C = np.median(picture.reshape(len(picture), -1, 3), axis=1)[:, None, None]
    plain_HW = (np.abs(picture - usual_N11C).max(axis=3) <= _NEAR_LEVELS).all(axis=0)
    ground = float((calm_HW & plain_HW).mean())
    is_still = float(calm_HW.mean()) >= _STILL_SHARE
    return ground >= (_GROUND_OF_STILL if is_still else _GROUND)


def _looks(path: Path, parts: Sequence[tuple[tuple[float, float], Sample]], most: int, limits: DecodeLimits | None) -> list[Look]:
    looks = [_small_look(sample, most) if sample.has_frames else Look(None, camera_off=False) for _, sample in parts]
    again = [number for number, (_, sample) in enumerate(parts) if _needs_larger(looks[number], sample)]
    if again:
        larger = _larger_frames(path, [parts[number][0] for number in again], most, limits)
        for number, frames_NHWC in zip(again, larger, strict=True):
            shown = is_camera_off(frames_NHWC) if not parts[number][1].has_frames else False
            looks[number] = Look(None if shown else _face_share(frames_NHWC, zoom=2), shown)
    return looks


def _needs_larger(look: Look, sample: Sample) -> bool:
    """Whether the small frames do not settle it: no picture was looked at, or fewer faces were seen than a person shows."""
    if look.camera_off:
        return False
    return not sample.has_frames or (look.face_share is not None and look.face_share < _ENOUGH)


def _small_look(sample: Sample, most: int) -> Look:
    frames_NHWC = sample.some_frames(most)
    if is_camera_off(frames_NHWC):
        return Look(None, camera_off=True)
    return Look(_face_share(frames_NHWC, zoom=1), camera_off=False)


def _tells_absence(sample: Sample) -> bool:
    return int(min(_without_bars(sample.some_frames(_MOST_FRAMES)).shape[1:3])) >= _TELLING_CROP_PX


def _larger_frames(path: Path, spans_s: Sequence[tuple[float, float]], most: int, limits: DecodeLimits | None) -> list[Frames]:
    """Up to `most` frames of each span, 640 pixels on the longer side, in one pass over the file."""
    stream = FrameStream(path, limits, frame_size=_larger_size)
    end_s = stream.info.duration_s
    picked = [np.unique(stream.within(start_s, stop_s or end_s, most)) for start_s, stop_s in spans_s]
    frames: dict[int, Frames] = {}
    for portion in stream.portions(np.unique(np.concatenate(picked))):
        frames.update(zip(portion.numbers_N.tolist(), portion.frames_NHWC, strict=True))
    return [np.stack([frames[number] for number in numbers_N.tolist()]) for numbers_N in picked]


def _larger_size(width_px: int, height_px: int) -> tuple[int, int]:
    scale = min(1.0, _LARGER_SIDE_PX / max(width_px, height_px))
    return max(2, 2 * round(width_px * scale / 2)), max(2, 2 * round(height_px * scale / 2))


def _face_share(frames_NHWC: Frames, *, zoom: int) -> float | None:
    """The share of frames with a face; zoom 2 looks closer where no frame shows one at once. None where nobody looks."""
    with _lock:
        finder = _finder()
        if finder is None:
            return None
        seen = [bool(finder.find(frame_HWC)) for frame_HWC in frames_NHWC]
        if zoom > 1 and not any(seen):
            seen = [bool(finder.find(frame_HWC, zoom)) for frame_HWC in frames_NHWC]
    return round(sum(seen) / len(seen), 4)


def _finder() -> FaceFinder | None:
    return _loaded(os.environ.get(FACE_MODEL_VARIABLE, ""), os.environ.get("RAPT_HOME", ""))


@cache
def _loaded(named: str, home: str) -> FaceFinder | None:
    """The finder of this environment, loaded once a process, and None once where nothing is at hand."""
    path = face_model_at_hand()
    if path is None:
        return None
    finder = FaceFinder(path, max_faces=1)
    # MediaPipe complains where it is freed with the interpreter, and closes by a thread pool: that ends before atexit's turn
    threading._register_atexit(finder.close)  # type: ignore[attr-defined]
    return finder


def _reduced(frames_NHWC: Frames) -> npt.NDArray[np.float32]:
    """The frames as means of equal squares of pixels, where they are large."""
    num, height_px, width_px, channels = frames_NHWC.shape
    step = max(1, min(height_px, width_px) // _ENOUGH_PX)
    rows, columns = height_px // step, width_px // step
    whole = frames_NHWC[:, : rows * step, : columns * step]
    means: npt.NDArray[np.float32] = whole.reshape(num, rows, step, columns, step, channels).mean(axis=(2, 4), dtype=np.float32)
    return means


def _without_bars(frames_NHWC: Frames) -> Frames:
    """The frames without black rows and columns at their edges."""
    bright_HW = frames_NHWC.max(axis=(0, 3)) > _BAR_LEVELS
    rows, columns = np.flatnonzero(bright_HW.any(axis=1)), np.flatnonzero(bright_HW.any(axis=0))
    if len(rows) == 0:
        return frames_NHWC[:, :0]
    return frames_NHWC[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
