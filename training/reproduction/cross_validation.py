"""Choosing a setting inside the training split: folds, out-of-fold predictions, the candidate of least error.

Nothing here ever sees another split: `choose` is given training clips alone, and what predicts is given features alone.
Letters: N clips, S segments, F values, K levels, D folds, G groups of clips.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_shards.features import Floats
from data_shards.hashing import mix64, seed_of
from training.reproduction.split_arrays import Features, SplitArrays, Values

__all__ = ["NUM_FOLDS", "Choice", "Fit", "Ints", "Predict", "choose", "look_alikes", "mean_squared_error", "stratified_folds"]

NUM_FOLDS = 5
_STREAM_FOLDS = 11

Ints = npt.NDArray[np.int64]
Predict = Callable[[Features], Values]  # clips without their labels to their values in [0, 1]
Fit = Callable[[SplitArrays, int], Predict]  # training clips and a seed to what predicts


class Choice(NamedTuple):
    """The candidate of least cross-validated error, its error, and each training clip's prediction by the fit without it."""

    name: str
    cv_mse: float
    out_of_fold_N: Values


def mean_squared_error(predicted_N: Values, values_N: Values) -> float:
    """The table's figure: mean squared error in the official values."""
    return float(((predicted_N - values_N) ** 2).mean())


def choose(candidates: Mapping[str, Fit], train: SplitArrays, groups_N: Ints, *, seed: int) -> Choice:
    """Cross-validate every candidate on the same folds; the first of those that tie wins.

    groups_N: clips of one number are never in two folds. The folds follow from the seed, so a table's seeds are also
    repetitions of the cross-validation.
    """
    folds_N = stratified_folds(train.levels_N, groups_N, num_folds=NUM_FOLDS, seed=seed_of(seed, _STREAM_FOLDS))
    best: Choice | None = None
    for name, fit in candidates.items():
        predicted_N = _out_of_fold(fit, train, folds_N, seed)
        cv_mse = mean_squared_error(predicted_N, train.values)
        if best is None or cv_mse < best.cv_mse:
            best = Choice(name, cv_mse, predicted_N)
    assert best is not None, "a row has at least one candidate"
    return best


def _out_of_fold(fit: Fit, train: SplitArrays, folds_N: Ints, seed: int) -> Values:
    """Each clip's prediction by the fit that has not seen its fold."""
    predicted_N = np.empty(len(train))
    for fold in np.unique(folds_N):
        held_out = np.flatnonzero(folds_N == fold)
        predict = fit(train.take(np.flatnonzero(folds_N != fold)), seed)
        predicted_N[held_out] = predict(train.take(held_out).features)
    return predicted_N


def stratified_folds(levels_N: Ints, groups_N: Ints, *, num_folds: int, seed: int) -> Ints:
    """folds_N in [0, num_folds): groups whole, sizes and levels as even as that allows. A pure function of its arguments.

    Greedy: groups in order of their size (those alike in an order drawn from the seed), each into the fold where the counts
    of levels then stray least from an even share (chi-square).
    """
    levels_K = np.unique(levels_N)
    wanted_K = np.array([(levels_N == level).sum() for level in levels_K]) / num_folds
    held_DK = np.zeros((num_folds, len(levels_K)))
    folds_N = np.empty(len(levels_N), dtype=np.int64)
    names_G, sizes_G = np.unique(groups_N, return_counts=True)
    for group in names_G[np.lexsort((mix64(seed, names_G.astype(np.int64)), -sizes_G))]:
        members = np.flatnonzero(groups_N == group)
        counts_K = (levels_N[members][:, None] == levels_K).sum(axis=0)
        added_D = (((held_DK + counts_K - wanted_K) ** 2 - (held_DK - wanted_K) ** 2) / wanted_K).sum(axis=1)
        fold = int(added_D.argmin())
        held_DK[fold] += counts_K
        folds_N[members] = fold
    return folds_N


def look_alikes(face_NSF: Floats, *, cosine: float) -> Ints:
    """groups_N: clips whose mean face descriptions are alike, directly or over others, share a number.

    EngageWild's arrays name no people, but its splits share none, so folds that do would promise too much. Nothing of
    this is stored or leaves the choice of folds.
    """
    mean_NF = face_NSF.mean(axis=1, dtype=np.float64)
    mean_NF /= np.linalg.norm(mean_NF, axis=1, keepdims=True)
    alike_NN = mean_NF @ mean_NF.T > cosine
    groups_N = np.arange(len(mean_NF), dtype=np.int64)
    for clip in range(len(mean_NF)):
        for joined in np.unique(groups_N[alike_NN[clip]]):
            groups_N[groups_N == joined] = groups_N[clip]
    return groups_N
