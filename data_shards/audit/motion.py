"""Whether two clips of one scene are the same moment: how well their movements agree.

A perceptual hash sees a room and who sits in it, not the moment: a person who looks at a screen has the same hash a
minute later. What differs is how they move. Letters: T frames, P pixels of a small grey picture.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Movement", "motion_agreement", "movement_of"]

_SIDE_PX = 32
_MIN_FRAMES = 8  # measured: with 6, two moments of a person agreed by chance in 6 pairs of 64 simulated clips
_MIN_OVERLAP = 0.4  # of the shorter clip: agreement of a few frames is chance

Movement = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]  # grey_TP, times_T in seconds


def movement_of(frames_THWC: npt.NDArray[np.uint8], times_s: Sequence[float], *, mirrored: bool = False) -> Movement:
    """The frames as small grey pictures with their times."""
    size = (_SIDE_PX, _SIDE_PX)
    small = [
        np.asarray(Image.fromarray(frame).convert("L").resize(size, Image.Resampling.LANCZOS), dtype=np.float32)
        for frame in frames_THWC
    ]
    grey_THW = np.stack(small)
    return (grey_THW[:, :, ::-1] if mirrored else grey_THW).reshape(len(small), -1), np.asarray(times_s, dtype=np.float64)


def motion_agreement(a: Movement, b: Movement) -> float | None:
    """In [-1, 1]: the highest correlation of the two clips' movements over all shifts in time.

    At a shift, each frame of `a` is put beside the frame of `b` nearest in time; each side's mean picture over the
    frames they share is taken off, so the room and the pose fall out and the movement remains. 0.0 where at no shift
    enough frames lie beside each other; None where a clip has too few to tell.
    """
    (a_TP, a_times), (b_TP, b_times) = a, b
    if min(len(a_times), len(b_times)) < _MIN_FRAMES:
        return None
    step_s = max(float(np.median(np.diff(a_times))), float(np.median(np.diff(b_times))), 1e-3)
    needed = max(_MIN_FRAMES, _MIN_OVERLAP * min(len(a_times), len(b_times)))
    best = 0.0
    for shift_s in np.arange(a_times[0] - b_times[-1], a_times[-1] - b_times[0] + step_s / 2, step_s / 2):
        apart_TT = np.abs(b_times + shift_s - a_times[:, None])
        beside = apart_TT.argmin(axis=1)
        shared = apart_TT.min(axis=1) <= step_s / 2 + 1e-6
        if shared.sum() >= needed:
            best = max(best, _correlation(a_TP[shared], b_TP[beside[shared]]))
    return best


def _correlation(a_TP: npt.NDArray[np.float32], b_TP: npt.NDArray[np.float32]) -> float:
    a_moved, b_moved = a_TP - a_TP.mean(axis=0), b_TP - b_TP.mean(axis=0)
    energy = float((a_moved**2).sum()) * float((b_moved**2).sum())
    return float((a_moved * b_moved).sum()) / energy**0.5 if energy > 0 else 0.0
