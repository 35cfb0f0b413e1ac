"""Evenly spread frames of MPEG program and transport streams, by PyAV, decoded from the first frame to the last.

These containers have no index. decord 0.6.0 (and decord2 3.4.0) seek in them by guess: measured on MPEG-1, its frames come
twelve late. Letters: T frames, H height and W width in pixels.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_shards.errors import ClipError

__all__ = ["PickedFrames", "decode_in_order", "frames_in_order", "starts_in_order"]


class PickedFrames(NamedTuple):
    """frames_THWC uint8 RGB; starts_N: every frame's start in seconds, and the end of the last; picked_T: which were taken."""

    frames_THWC: npt.NDArray[np.uint8]
    starts_N: npt.NDArray[np.float64]
    picked_T: npt.NDArray[np.int64]
    fps: float


def decode_in_order(
    path: Path,
    *,
    pick: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.int64]],
    size: tuple[int, int],
    max_frames: int,
) -> PickedFrames:
    """Decode twice: once for the frames' times, and once to keep those that `pick` chooses by them, scaled to `size`.

    pick: starts_N to frame numbers, not falling; size: (width, height) in pixels. ClipError where no frame, or more than
    max_frames, can be decoded.
    """
    starts_N, fps = starts_in_order(path, max_frames=max_frames)
    picked_T = pick(starts_N)
    kept = dict(frames_in_order(path, set(picked_T.tolist()), size=size))
    return PickedFrames(np.stack([kept[number] for number in picked_T.tolist()]), starts_N, picked_T, fps)


def starts_in_order(path: Path, *, max_frames: int) -> tuple[npt.NDArray[np.float64], float]:
    """(every frame's start in seconds, and the end of the last; frames a second). ClipError where there is none, or too many."""
    times: list[float] = []
    fps = 25.0
    for number, (time_s, _, rate) in enumerate(_frames(path)):
        fps = rate or fps
        times.append(time_s if time_s is not None else (times[-1] + 1 / fps if times else 0.0))
        if number >= max_frames:
            raise ClipError(f"{path.name}: more than {max_frames} frames; cut it")
    if not times:
        raise ClipError(f"{path.name}: no frame can be decoded; re-encode it")
    return np.array([*times, times[-1] + 1 / fps]), fps


def frames_in_order(path: Path, wanted: set[int], *, size: tuple[int, int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """(number, frame_HWC scaled to (width, height)) of each wanted frame. ClipError where one no longer comes."""
    missing = set(wanted)
    for number, (_, frame, _) in enumerate(_frames(path)):
        if number in missing:
            missing.remove(number)
            yield number, frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation="BILINEAR")
    if missing:
        raise ClipError(f"{path.name}: damaged, its frames cannot be decoded twice alike; re-encode it")


def _frames(path: Path) -> Iterator[tuple[float | None, Any, float]]:
    """(start in seconds where it is known, the frame, frames a second or 0) of each frame that can be decoded, in order."""
    import av

    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # one clip, one core: the build runs a process a core
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # a damaged stretch; what follows may be whole
                continue
            for frame in frames:
                yield frame.time, frame, rate
