"""From probabilities to what is said of them: an interval of levels, and the windows of a longer clip.

Letters: K levels.
"""

import numpy as np
import numpy.typing as npt

from data_shards.extraction.clip_sample import WindowSample
from serving.answer import Interval, Window
from training.bundle import BundleRecord
from training.calibration import level_sets, score_span
from training.evaluate import engagement_score

__all__ = ["interval_of", "is_wide_open", "needs_score", "score_of", "window_of"]

Floats = npt.NDArray[np.float64]


def score_of(chances_K: Floats, record: BundleRecord) -> float:
    """The score in [-1, 1], rounded as answers have it."""
    return _rounded(float(np.clip(engagement_score(chances_K[None], record.level_scores)[0], -1, 1)))


def interval_of(chances_K: Floats, record: BundleRecord) -> Interval | None:
    """The calibrated interval; None where the bundle has no calibration."""
    if record.calibration is None:
        return None
    in_K = level_sets(chances_K[None], record.level_scores, record.calibration)[0]
    low, high = score_span(in_K, record.level_scores)
    score = score_of(chances_K, record)
    by_score = np.argsort(record.level_scores, kind="stable")
    return Interval(
        low=_rounded(min(low, score)),
        high=_rounded(max(high, score)),
        levels=tuple(record.level_names[level] for level in by_score if in_K[level]),
        coverage=record.calibration.coverage,
    )


def is_wide_open(interval: Interval | None, record: BundleRecord) -> bool:
    """Whether the interval leaves every level open, so that there is nothing to say."""
    return interval is not None and len(interval.levels) == len(record.level_names)


def needs_score(window: WindowSample) -> bool:
    """Whether there is somebody to score in it, as far as is known."""
    return not window.look.camera_off and window.look.face_share != 0


def window_of(window: WindowSample, chances_K: Floats | None, record: BundleRecord) -> Window:
    """A window of a timeline; chances_K None where `needs_score` says that it was not scored."""
    about = {"start_s": round(window.start_s, 4), "end_s": round(window.end_s, 4), "face_share": window.look.face_share}
    if chances_K is None:
        return Window(status="camera_off" if window.look.camera_off else "no_face", **about)
    if is_wide_open(interval_of(chances_K, record), record):
        return Window(status="unsure", **about)
    return Window(status="scored", score=score_of(chances_K, record), level_index=int(np.argmax(chances_K)), **about)


def _rounded(score: float) -> float:
    return round(score, 6) + 0.0  # a reader would wonder about -0.0
