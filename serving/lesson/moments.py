"""The moments of a lesson in which the class's mean score stood out."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from serving.lesson.record import ClassWindow, Moment

__all__ = ["find_moments"]

Numbers = npt.NDArray[Any]

_FEWEST = 3  # windows: of less nothing stands out
_SMOOTHED_OVER = 3  # windows: one person's one odd window is no moment of the class
_STANDS_OUT = 1.0  # standard deviations from the lesson's mean
_AT_LEAST = 0.1  # of the score's scale from -1 to 1: a lesson that hardly changes has no moments
_MOST = 3  # of each kind, or they are no longer a few
_APART = 2  # windows between two of a kind, or they are one


def find_moments(timeline: Sequence[ClassWindow]) -> tuple[Moment, ...]:
    """The lowest and highest stretches, up to three of each kind, in order of time.

    [choice] The class's mean is smoothed over three windows, weighted by how many people were scored; a stretch stands out where
    it lies a standard deviation of the lesson, and 0.1 at least, from the lesson's mean. Stretches of a kind with less than two
    windows between them are one. None where fewer than three windows have a score.
    """
    scored = [(number, window) for number, window in enumerate(timeline) if window.mean_score is not None]
    if len(scored) < _FEWEST:
        return ()
    numbers_N = np.array([number for number, _ in scored])
    means_N = np.array([window.mean_score for _, window in scored], dtype=np.float64)
    weights_N = np.array([window.num_scored for _, window in scored], dtype=np.float64)
    smooth_N = _smoothed(numbers_N, means_N, weights_N)
    away_N = smooth_N - np.average(smooth_N, weights=weights_N)
    least = max(_AT_LEAST, _STANDS_OUT * float(np.sqrt(np.average(away_N**2, weights=weights_N))))
    found: list[Moment] = []
    kinds: tuple[tuple[Literal["low", "high"], float], ...] = (("low", -1.0), ("high", 1.0))
    for kind, sign in kinds:
        stretches = _stretches(numbers_N, np.flatnonzero(sign * away_N >= least))
        stretches.sort(key=lambda at: -float((sign * away_N[at]).max()))
        found += [_moment(kind, timeline, numbers_N[at], means_N[at], weights_N[at]) for at in stretches[:_MOST]]
    return tuple(sorted(found, key=lambda moment: (moment.start_s, moment.kind)))


def _smoothed(numbers_N: Numbers, means_N: Numbers, weights_N: Numbers) -> Numbers:
    """The mean over the windows at most one away, not over a gap of the timeline."""
    near_NN = np.abs(numbers_N[:, None] - numbers_N[None]) <= _SMOOTHED_OVER // 2
    weights_NN = near_NN * weights_N[None]
    smooth_N: Numbers = (weights_NN * means_N[None]).sum(axis=1) / weights_NN.sum(axis=1)
    return smooth_N


def _stretches(numbers_N: Numbers, standing_out: Numbers) -> list[Numbers]:
    """Places of scored windows in runs: two with less than _APART windows between them are in one, with what lies between."""
    if not len(standing_out):
        return []
    breaks = np.flatnonzero(np.diff(numbers_N[standing_out]) > _APART)
    return [np.arange(run[0], run[-1] + 1) for run in np.split(standing_out, breaks + 1)]


def _moment(
    kind: Literal["low", "high"],
    timeline: Sequence[ClassWindow],
    numbers_N: Numbers,
    means_N: Numbers,
    weights_N: Numbers,
) -> Moment:
    return Moment(
        kind=kind,
        start_s=timeline[numbers_N[0]].start_s,
        end_s=timeline[numbers_N[-1]].end_s,
        mean_score=round(float(np.average(means_N, weights=weights_N)), 6),
    )
