"""A video's frames in order, portion by portion, for what looks at many of them: one decode, bounded memory.

Letters: N frames, H height in pixels, W width in pixels, C = 3 RGB channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_shards.decode import (
    DecodeLimits,
    check_container,
    check_header,
    decodable_width,
    decoding,
    has_no_index,
    open_reader,
)
from data_shards.decode_in_order import frames_in_order, starts_in_order
from data_shards.errors import ClipError

__all__ = ["FrameStream", "Portion", "StreamInfo"]

_PORTION = 16  # frames; 44 MB at the largest size
_LONGEST_SIDE_PX = 1280  # what looks at frames finds nothing more in larger ones, and takes several times as long
_TIE_S = 0.001


@dataclass(frozen=True)
class StreamInfo:
    """What is known of a video before its frames are looked at. The size is that of the frames that come."""

    fps: float
    duration_s: float
    num_frames: int
    width_px: int
    height_px: int


class Portion(NamedTuple):
    """numbers_N of the frames in the video, their times_N in seconds from its start, and frames_NHWC uint8 RGB, upright."""

    numbers_N: npt.NDArray[np.int64]
    times_N: npt.NDArray[np.float64]
    frames_NHWC: npt.NDArray[np.uint8]


class FrameStream:
    """A video opened for a pass over its frames, scaled down to 1280 pixels on the longer side where it is larger.

    Raises ClipError as `decode_clip` does: missing, empty, no video, too large, too long, or damaged.
    """

    def __init__(self, path: Path, limits: DecodeLimits | None = None) -> None:
        limits = limits or DecodeLimits()
        check_container(path)
        width_px, height_px, may_be_rotated = check_header(path, limits)
        self._path = path
        self._in_order = has_no_index(path)
        if may_be_rotated and not self._in_order:  # only a decoded frame tells which way up it is
            with decoding(path):
                height_px, width_px = (int(side) for side in open_reader(path)[0].shape[:2])
        scale = min(1.0, _LONGEST_SIDE_PX / max(width_px, height_px))
        size = (decodable_width(max(2, round(width_px * scale))), max(2, round(height_px * scale)))
        with decoding(path):
            if self._in_order:
                self.starts_N, fps = starts_in_order(path, max_frames=limits.max_frames)
            else:
                self._reader = open_reader(path, width=size[0], height=size[1])
                if not 0 < len(self._reader) <= limits.max_frames:
                    raise ClipError(f"{path.name}: {len(self._reader)} frames where 1 to {limits.max_frames} can be used")
                spans_N2 = np.asarray(self._reader.get_frame_timestamp(range(len(self._reader))), dtype=np.float64)
                self.starts_N, fps = np.append(spans_N2[:, 0], spans_N2[-1, 1]), float(self._reader.get_avg_fps())
        self._size = size
        self.info = StreamInfo(
            fps=round(fps, 4),
            duration_s=round(float(self.starts_N[-1] - self.starts_N[0]), 4),
            num_frames=len(self.starts_N) - 1,
            width_px=size[0],
            height_px=size[1],
        )

    def at_rate(self, fps: float) -> npt.NDArray[np.int64]:
        """The frames on screen at the centres of equal parts of about 1 / fps seconds, one at least; all of them where the
        video has fewer."""
        begin_s, end_s = self.starts_N[0], self.starts_N[-1]
        parts = max(1, round(fps * (end_s - begin_s)))
        if self.info.num_frames <= parts:
            return np.arange(self.info.num_frames)
        centres = begin_s + (np.arange(parts) + 0.5) * (end_s - begin_s) / parts
        shown = np.searchsorted(self.starts_N[:-1], centres + _TIE_S, side="right") - 1
        return np.unique(np.clip(shown, 0, self.info.num_frames - 1)).astype(np.int64)

    def portions(self, numbers_N: npt.NDArray[np.int64]) -> Iterator[Portion]:
        """The frames of these numbers, rising, in portions of up to 16."""
        with decoding(self._path):
            if not self._in_order:
                for begin in range(0, len(numbers_N), _PORTION):
                    part = numbers_N[begin : begin + _PORTION]
                    yield self._portion(part, self._reader.get_batch(part.tolist()).asnumpy())
                return
            numbers: list[int] = []
            frames: list[npt.NDArray[np.uint8]] = []
            for number, frame_HWC in frames_in_order(self._path, set(numbers_N.tolist()), size=self._size):
                numbers.append(number)
                frames.append(frame_HWC)
                if len(frames) == _PORTION:
                    yield self._portion(np.array(numbers), np.stack(frames))
                    numbers, frames = [], []
            if frames:
                yield self._portion(np.array(numbers), np.stack(frames))

    def _portion(self, numbers_N: npt.NDArray[np.int64], frames_NHWC: npt.NDArray[np.uint8]) -> Portion:
        return Portion(numbers_N, self.starts_N[numbers_N] - self.starts_N[0], frames_NHWC)
