"""The evaluation protocol: every figure from the confusion matrix, beside the majority baseline, with an interval over people.

Letters: N samples, K levels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_shards.schema import Stored

__all__ = ["Evaluation", "Interval", "Metrics", "confusion_matrix", "evaluate_predictions", "metrics_of"]

_RESAMPLES = 2000
Counts = npt.NDArray[np.int64]


class Metrics(Stored):
    """Figures of one confusion matrix. balanced_accuracy is the papers' average accuracy: mean recall of the classes present.

    qwk: quadratically weighted kappa (Cohen 1968). mae and mse are in levels. per_class_recall is None where a
    class has no sample.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    qwk: float
    mae: float
    mse: float
    per_class_recall: tuple[float | None, ...]


class Interval(Stored):
    """A 95 % bootstrap interval, people resampled with replacement (percentile method, Efron 1979)."""

    low: float
    high: float
    num_subjects: int


class Evaluation(Stored):
    """What a model does on a split: its metrics, the majority-class baseline's, and the confusion matrix (row: true level)."""

    split: str
    num_samples: int
    metrics: Metrics
    majority_baseline: Metrics
    accuracy_interval: Interval
    balanced_accuracy_interval: Interval
    confusion: tuple[tuple[int, ...], ...]


def confusion_matrix(labels_N: npt.NDArray[np.int64], levels_N: npt.NDArray[np.int64], num_levels: int) -> Counts:
    """counts_KK int64: row the true level, column the predicted one."""
    counts = np.zeros((num_levels, num_levels), dtype=np.int64)
    np.add.at(counts, (labels_N, levels_N), 1)
    return counts


def metrics_of(confusion_KK: Counts) -> Metrics:
    """Metrics from a confusion matrix with at least one sample."""
    confusion = confusion_KK.astype(np.float64)
    total = confusion.sum()
    if total == 0:
        raise ValueError("no sample to evaluate")
    true_K, predicted_K, hit_K = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    present = true_K > 0
    recall_K = np.divide(hit_K, true_K, out=np.zeros_like(hit_K), where=present)
    seen = (true_K + predicted_K) > 0
    f1_K = 2 * hit_K[seen] / (true_K + predicted_K)[seen]
    levels = np.arange(len(confusion))
    distance = np.abs(levels[:, None] - levels[None, :])
    expected = np.outer(true_K, predicted_K) / total
    disagreement = (distance**2 * expected).sum()
    return Metrics(
        accuracy=float(hit_K.sum() / total),
        balanced_accuracy=float(recall_K[present].mean()),
        macro_f1=float(f1_K.mean()),
        qwk=float(1 - (distance**2 * confusion).sum() / disagreement) if disagreement > 0 else 0.0,
        mae=float((distance * confusion).sum() / total),
        mse=float((distance**2 * confusion).sum() / total),
        per_class_recall=tuple(float(r) if p else None for r, p in zip(recall_K, present, strict=True)),
    )


def evaluate_predictions(
    *,
    split: str,
    labels_N: npt.NDArray[np.int64],
    levels_N: npt.NDArray[np.int64],
    subjects_N: Sequence[str],
    num_levels: int,
    majority_level: int,
    seed: int = 0,
) -> Evaluation:
    """Evaluate predicted levels_N against labels_N. majority_level: the most frequent level of the TRAINING set."""
    confusion = confusion_matrix(labels_N, levels_N, num_levels)
    names, person_N = np.unique(np.asarray(subjects_N), return_inverse=True)
    per_person = np.stack(
        [confusion_matrix(labels_N[person_N == p], levels_N[person_N == p], num_levels) for p in range(len(names))]
    )
    baseline = confusion_matrix(labels_N, np.full_like(labels_N, majority_level), num_levels)
    accuracy, balanced_accuracy = _bootstrap(per_person, seed)
    return Evaluation(
        split=split,
        num_samples=len(labels_N),
        metrics=metrics_of(confusion),
        majority_baseline=metrics_of(baseline),
        accuracy_interval=accuracy,
        balanced_accuracy_interval=balanced_accuracy,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
    )


def _bootstrap(per_person_PKK: Counts, seed: int) -> tuple[Interval, Interval]:
    """Percentile intervals of accuracy and balanced accuracy over R resamplings of P people."""
    rng = np.random.default_rng(seed)
    num_people = len(per_person_PKK)
    times_drawn_RP = rng.multinomial(num_people, np.full(num_people, 1 / num_people), size=_RESAMPLES)
    confusion_RKK = np.einsum("rp,pij->rij", times_drawn_RP, per_person_PKK).astype(np.float64)
    hit_RK = np.diagonal(confusion_RKK, axis1=1, axis2=2)
    true_RK = confusion_RKK.sum(axis=2)
    recall_RK = np.divide(hit_RK, true_RK, out=np.full_like(true_RK, np.nan), where=true_RK > 0)
    figures = (hit_RK.sum(axis=1) / true_RK.sum(axis=1), np.nanmean(recall_RK, axis=1))
    bounds = [np.percentile(figure_R, [2.5, 97.5]) for figure_R in figures]
    accuracy, balanced = (Interval(low=float(low), high=float(high), num_subjects=num_people) for low, high in bounds)
    return accuracy, balanced
