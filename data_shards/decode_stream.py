"""A video's frames in order, portion by portion, for what looks at many of them: one decode, bounded memory.

Letters: N frames, H height in pixels, W width in pixels, C = 3 RGB channels.
"""

from collections.abc import Callable, Iterator
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
    on_screen,
    open_indexed,
    open_reader,
)
from data_shards.decode_in_order import frames_in_order, starts_in_order

__all__ = ["FrameStream", "Portion", "StreamInfo"]

_PORTION = 16  # frames; 79 MB at the largest size
_LONGEST_SIDE_PX = 1280  # what looks at frames finds nothing more in larger ones, and takes several times as long
_LONG_GAP = 1.5  # times the usual time from frame to frame


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
    """A video opened for a pass over its frames, scaled down to 1280 pixels on the longer side where it is larger, or to the
    (width, height) that `frame_size` says of the upright (width, height).

    Raises ClipError as `decode_clip` does: missing, empty, no video, too large, too long, or damaged.
    """

    def __init__(
        self, path: Path, limits: DecodeLimits | None = None, *, frame_size: Callable[[int, int], tuple[int, int]] | None = None
    ) -> None:
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
        if frame_size is not None:
            size = frame_size(width_px, height_px)
        with decoding(path):
            if self._in_order:
                self.starts_N, fps = starts_in_order(path, max_frames=limits.max_frames)
            else:
                self._reader, self.starts_N, fps = open_indexed(path, size=size, max_frames=limits.max_frames)
        self._size = size
        self._max_frames = limits.max_frames
        self.info = StreamInfo(
            fps=round(fps, 4),
            duration_s=round(float(self.starts_N[-1] - self.starts_N[0]), 4),
            num_frames=len(self.starts_N) - 1,
            width_px=size[0],
            height_px=size[1],
        )

    def at_rate(self, fps: float) -> npt.NDArray[np.int64]:
        """The numbers of the frames on screen at the centres of equal parts of about 1 / fps seconds, one at least.

        A frame that stays longer comes as often as it is on screen, so that what comes is even in time where the video's own
        rate varies. A video that has fewer frames a second than fps is looked at in its own rate, the one it has but for its
        gaps: at a constant rate that is every frame once.
        """
        duration_s = float(self.starts_N[-1] - self.starts_N[0])
        parts = max(1, round(min(fps, self._own_fps()) * duration_s))
        return on_screen(self.starts_N, min(parts, self._max_frames))

    def within(self, start_s: float, end_s: float, num_parts: int) -> npt.NDArray[np.int64]:
        """The numbers, not falling, of the frames on screen at the centres of equal parts of a span of the video."""
        return on_screen(self.starts_N, num_parts, (start_s, end_s))

    def _own_fps(self) -> float:
        """Frames a second where they follow each other as they usually do."""
        steps_N = np.diff(self.starts_N)
        usual_s = float(steps_N[steps_N <= _LONG_GAP * np.median(steps_N)].mean())
        return 1 / usual_s if usual_s > 0 else self.info.fps

    def portions(self, numbers_N: npt.NDArray[np.int64]) -> Iterator[Portion]:
        """The frames of these numbers, rising and none twice, in portions of up to 16."""
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
