"""How sure an answer is: sets of neighbouring levels that hold the true one for a stated share of clips.

Ordinal adaptive prediction sets (Lu, Angelopoulos and Pomerantz 2022, of the sets of Romano, Sesia and Candes 2020) by split
conformal prediction (Vovk, Gammerman and Shafer 2005): fitted on the validation predictions beside the temperature.

What the coverage rests on, and where it falls short: it holds on average over clips that are exchangeable with those it was
fitted on. The same validation split also chose the epoch and the temperature, so the model is a little better there than
elsewhere; and clips of one person are like each other, so they count for less than their number. On other people, cameras
and rooms than the data's it is not known to hold. The share on the test split is reported beside it.
Letters: N clips, K levels.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_shards.schema import Stored
from training.evaluate import Predictions, probabilities

__all__ = ["COVERAGE", "Calibration", "CoverageReport", "coverage_on", "fit_calibration", "level_sets", "score_span"]

COVERAGE = 0.9
_ROUNDING = 1e-9  # sums of probabilities that are equal on paper

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Calibration(Stored):
    """threshold: a level is in the set where the mass of the levels added before it is no more than this.

    coverage: the share of clips whose set holds the true level; num_clips of `split` that it was fitted on.
    """

    method: Literal["ordinal_aps"] = "ordinal_aps"
    coverage: float = Field(gt=0, lt=1)
    threshold: float = Field(ge=0, le=1)
    num_clips: int = Field(ge=1)
    split: str


class CoverageReport(Stored):
    """What the sets are like on a split that was not fitted on: coverage, how many levels they hold on average, and the share
    of clips that leaves every level open. A report: nothing is decided by it."""

    split: str
    num_clips: int
    coverage: float
    mean_levels: float
    unsure_share: float


def fit_calibration(
    predictions: Predictions | None,
    temperature: float,
    scores_K: Sequence[float],
    *,
    split: str | None,
    coverage: float = COVERAGE,
) -> Calibration | None:
    """The smallest threshold whose sets hold the true level with at least this coverage, for clips exchangeable with these.

    It is the ceil((n + 1) coverage)-th smallest of the n masses that were added before the true levels (Romano et al. 2020,
    eq. 9). None where there are no predictions, or n is below coverage / (1 - coverage), 9 clips for 0.9: no threshold is
    high enough then.
    """
    if predictions is None or split is None:
        return None
    count = len(predictions.labels_N)
    rank = math.ceil((count + 1) * coverage - _ROUNDING)
    if rank > count:
        return None
    before_NK = _mass_before(probabilities(predictions.logits_NK, temperature), scores_K)
    masses_N = np.sort(before_NK[np.arange(count), predictions.labels_N])
    threshold = min(1.0, float(masses_N[rank - 1]))
    return Calibration(coverage=coverage, threshold=threshold, num_clips=count, split=split)


def level_sets(chances_NK: Floats, scores_K: Sequence[float], calibration: Calibration) -> Bools:
    """in_NK: which levels each clip's set holds. The most probable one always is, and its levels are neighbours."""
    return np.asarray(_mass_before(chances_NK, scores_K) <= calibration.threshold + _ROUNDING)


def coverage_on(
    predictions: Predictions | None,
    temperature: float,
    scores_K: Sequence[float],
    calibration: Calibration | None,
    *,
    split: str | None,
) -> CoverageReport | None:
    """What the calibrated sets are like on a split of at least one clip; None where there are no predictions or no sets."""
    if predictions is None or split is None or calibration is None:
        return None
    in_NK = level_sets(probabilities(predictions.logits_NK, temperature), scores_K, calibration)
    rows = np.arange(len(in_NK))
    return CoverageReport(
        split=split,
        num_clips=len(in_NK),
        coverage=float(in_NK[rows, predictions.labels_N].mean()),
        mean_levels=float(in_NK.sum(axis=1).mean()),
        unsure_share=float(in_NK.all(axis=1).mean()),
    )


def score_span(in_K: Bools, scores_K: Sequence[float]) -> tuple[float, float]:
    """(low, high) in [-1, 1]: the part of the score's scale that belongs to the levels of a set.

    [choice] A level owns what lies nearer to its own place than to another's: of four levels the lowest owns -1 to -2/3.
    """
    places = np.unique(np.asarray(scores_K, dtype=np.float64))
    edges = np.concatenate([[-1.0], (places[1:] + places[:-1]) / 2, [1.0]])
    owned = np.searchsorted(places, np.asarray(scores_K, dtype=np.float64)[in_K])
    return float(edges[owned.min()]), float(edges[owned.max() + 1])


def _mass_before(chances_NK: Floats, scores_K: Sequence[float]) -> Floats:
    """mass_NK: the probability of the levels that a clip's growing set holds before each level joins it.

    The set starts with the most probable level, where the mass is 0, and takes the more probable of its two neighbours in the
    order of scores_K, the lower one where they are equal (Lu et al. 2022, algorithm 1). [choice] The mass before a level
    and not with it: sets are then never empty, and of one level where the model is right nine times in ten; no level is drawn
    at random to make the coverage exact, so that a clip has one answer.
    """
    order_K = np.argsort(np.asarray(scores_K), kind="stable")
    ordered_NK = chances_NK[:, order_K]
    before_NK = np.zeros_like(chances_NK)
    for row, chances_K in enumerate(ordered_NK):
        low = high = int(chances_K.argmax())
        mass = float(chances_K[low])
        while high - low + 1 < len(chances_K):
            below = chances_K[low - 1] if low > 0 else -1.0
            above = chances_K[high + 1] if high + 1 < len(chances_K) else -1.0
            if below >= above:
                low -= 1
                joins = low
            else:
                high += 1
                joins = high
            before_NK[row, order_K[joins]] = mass
            mass += float(chances_K[joins])
    return before_NK
