"""Evenly spread frames of MPEG streams and of what browsers record, by PyAV, decoded from the first frame to the last.

MPEG program and transport streams have no index. decord 0.6.0 (and decord2 3.4.0) seek in them by guess: measured on MPEG-1,
its frames come twelve late. Letters: T frames, H height and W width in pixels.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_shards.errors import ClipError

__all__ = ["PickedFrames", "decode_in_order", "frames_in_order", "starts_by_packets", "starts_in_order"]

_USUAL_FPS = 25.0  # where neither the container nor its frames' times say any


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
    """Decode from the first frame to the last, and keep the frames that `pick` chooses by all frames' times, scaled to `size`.

    Once, where the container's packets tell those times beforehand, as a browser's recording does; else a second time.
    pick: starts_N to frame numbers, not falling; size: (width, height) in pixels. ClipError where no frame, or more than
    max_frames, can be decoded.
    """
    told_N = starts_by_packets(path, max_frames=max_frames)
    wanted = set() if told_N is None else set(pick(told_N).tolist())
    starts_N, fps, kept = _read(path, wanted, size=size, max_frames=max_frames)
    picked_T = pick(starts_N)
    if told_N is None or not np.array_equal(starts_N, told_N):  # a packet that shows nothing, or a damaged stretch
        kept = dict(frames_in_order(path, set(picked_T.tolist()), size=size))
    return PickedFrames(np.stack([kept[number] for number in picked_T.tolist()]), starts_N, picked_T, fps)


def starts_in_order(path: Path, *, max_frames: int) -> tuple[npt.NDArray[np.float64], float]:
    """(every frame's start in seconds, and the end of the last; frames a second). ClipError where there is none, or too many."""
    starts_N, fps, _ = _read(path, set(), size=(0, 0), max_frames=max_frames)
    return starts_N, fps


def starts_by_packets(path: Path, *, max_frames: int) -> npt.NDArray[np.float64] | None:
    """What `starts_in_order` finds if every packet is a frame, without decoding one; None where the packets do not tell."""
    import av

    times: list[float] = []
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.pts is None or len(times) == max_frames:
                return None
            # as PyAV makes a frame's: the very same numbers
            times.append(float(packet.pts) * float(packet.time_base.numerator) / float(packet.time_base.denominator))
    return _with_end(sorted(times), rate)[0] if times else None


def _read(
    path: Path, wanted: set[int], *, size: tuple[int, int], max_frames: int
) -> tuple[npt.NDArray[np.float64], float, dict[int, npt.NDArray[np.uint8]]]:
    """(`starts_in_order`, and those frames of these numbers that there are, scaled)."""
    times: list[float] = []
    known_fps = 0.0
    kept: dict[int, npt.NDArray[np.uint8]] = {}
    for number, (time_s, frame, rate) in enumerate(_frames(path)):
        known_fps = rate or known_fps
        times.append(time_s if time_s is not None else (times[-1] + 1 / (known_fps or _USUAL_FPS) if times else 0.0))
        if number >= max_frames:
            raise ClipError(f"{path.name}: more than {max_frames} frames; cut it")
        if number in wanted:
            kept[number] = _scaled(frame, size)
    if not times:
        raise ClipError(f"{path.name}: no frame can be decoded; re-encode it")
    return *_with_end(times, known_fps), kept


def _with_end(times: list[float], known_fps: float) -> tuple[npt.NDArray[np.float64], float]:
    fps = known_fps or _mean_fps(times)
    return np.array([*times, times[-1] + 1 / fps]), fps


def _mean_fps(times: list[float]) -> float:
    """Of frames at uneven times, for which ffmpeg's own guess is the clock of the container: 1000 a second in a WebM."""
    length_s = times[-1] - times[0]
    return (len(times) - 1) / length_s if length_s > 0 else _USUAL_FPS


def frames_in_order(path: Path, wanted: set[int], *, size: tuple[int, int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """(number, frame_HWC scaled to (width, height)) of each wanted frame. ClipError where one no longer comes."""
    missing = set(wanted)
    for number, (_, frame, _) in enumerate(_frames(path)):
        if number in missing:
            missing.remove(number)
            yield number, _scaled(frame, size)
    if missing:
        raise ClipError(f"{path.name}: damaged, its frames cannot be decoded twice alike; re-encode it")


def _scaled(frame: Any, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    scaled: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation="BILINEAR")
    return scaled


def _frames(path: Path) -> Iterator[tuple[float | None, Any, float]]:
    """(start in seconds where it is known, the frame, frames a second where they are even, or 0) of each frame that can be
    decoded, in order."""
    import av

    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # one clip, one core: the build runs a process a core
        rate = float(stream.average_rate or 0)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # a damaged stretch; what follows may be whole
                continue
            for frame in frames:
                yield frame.time, frame, rate
