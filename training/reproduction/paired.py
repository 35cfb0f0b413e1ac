"""Whether one row of a table is better than another: their difference, paired by seed and by clip, with two intervals.

Letters: R seeds, N clips, P people, K levels, D drawings of the bootstrap.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.reproduction.table import Figure, seeds_figure

__all__ = ["Difference", "balanced_difference", "in_words"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_DRAWINGS = 2000


class Difference(NamedTuple):
    """Of balanced accuracies, in [-1, 1]. over_seeds: the chance of training, on these clips; people_low, people_high: 95 %
    percentile bootstrap over people of the mean over seeds, the chance of whom the test split holds."""

    over_seeds: Figure
    people_low: float
    people_high: float
    num_people: int


def balanced_difference(ours_RN: Ints, theirs_RN: Ints, labels_N: Ints, subjects_N: Sequence[str]) -> Difference:
    """Balanced accuracy of the levels ours_RN less that of theirs_RN, both of the same seeds and clips."""
    names, person_N = np.unique(np.asarray(subjects_N), return_inverse=True)
    levels_K = np.unique(labels_N)
    once_P = np.ones((1, len(names)), dtype=np.int64)
    chances_P = np.full(len(names), 1 / len(names))
    drawn_DP = np.random.default_rng(0).multinomial(len(names), chances_P, size=_DRAWINGS)

    def differences(times_DP: Ints) -> Floats:
        ours_RD, theirs_RD = (_balanced(found, labels_N, person_N, levels_K, times_DP) for found in (ours_RN, theirs_RN))
        return ours_RD - theirs_RD

    low, high = np.percentile(differences(drawn_DP).mean(axis=0), [2.5, 97.5])
    return Difference(seeds_figure(differences(once_P)[:, 0]), float(low), float(high), len(names))


def _balanced(found_RN: Ints, labels_N: Ints, person_N: Ints, levels_K: Ints, times_DP: Ints) -> Floats:
    """balanced_RD: the mean recall of the levels drawn, where person p counts times_DP[:, p] times."""
    times_DN = times_DP[:, person_N]
    recalls_KRD = []
    for level in levels_K:
        of_level_N = labels_N == level
        hits_RD = (found_RN[:, of_level_N] == level).astype(np.float64) @ times_DN[:, of_level_N].T
        number_D = times_DN[:, of_level_N].sum(axis=1)
        recalls_KRD.append(np.divide(hits_RD, number_D, out=np.full_like(hits_RD, np.nan), where=number_D > 0))
    return np.asarray(np.nanmean(recalls_KRD, axis=0))


def in_words(ours: str, theirs: str, found: Difference, *, clips: str) -> str:
    """A sentence that says which is favoured, and says so too where neither is."""
    seeds = found.over_seeds
    told = f"{ours} minus {theirs}, balanced accuracy on {clips}, paired by seed: {seeds.mean:+.3f}"
    people = f"{found.people_low:+.3f} to {found.people_high:+.3f} over {found.num_people} people (bootstrap)"
    if seeds.low is None or seeds.high is None:
        return f"{told}; 95 %: {people}. A single seed does not tell them apart."
    return (
        f"{told}; 95 %: {seeds.low:+.3f} to {seeds.high:+.3f} over {len(seeds.seeds)} seeds (Student's t), {people}. "
        + _verdict(ours, theirs, {"seeds": (seeds.low, seeds.high), "people": (found.people_low, found.people_high)})
    )


def _verdict(ours: str, theirs: str, intervals: dict[str, tuple[float, float]]) -> str:
    if all(low > 0 for low, _ in intervals.values()):
        return f"This favours {ours}."
    if all(high < 0 for _, high in intervals.values()):
        return f"This speaks against {ours}: {theirs} is better."
    around_zero = [over for over, (low, high) in intervals.items() if low <= 0 <= high]
    return f"This does not favour {ours}, nor {theirs}: 0 lies in the interval over {' and that over '.join(around_zero)}."
