"""The metrics against scikit-learn, and the evaluation protocol's honesty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from training.evaluate import Predictions, engagement_score, fit_temperature, probabilities
from training.metrics import confusion_matrix, evaluate_predictions, metrics_of

levels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=80)


@given(levels)
@settings(deadline=None)
def test_every_figure_equals_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    ours = metrics_of(confusion_matrix(labels, predicted, 4))
    assert ours.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    seen = sorted(set(labels))
    assert ours.balanced_accuracy == pytest.approx(reference.recall_score(labels, predicted, labels=seen, average="macro"))
    assert ours.macro_f1 == pytest.approx(reference.f1_score(labels, predicted, average="macro", zero_division=0))
    assert ours.mae == pytest.approx(reference.mean_absolute_error(labels, predicted))
    assert ours.mse == pytest.approx(reference.mean_squared_error(labels, predicted))
    if len(set(labels) | set(predicted)) > 1:
        kappa = reference.cohen_kappa_score(labels, predicted, weights="quadratic", labels=[0, 1, 2, 3])
        assert ours.qwk == pytest.approx(kappa)
    recalls = reference.recall_score(labels, predicted, labels=[0, 1, 2, 3], average=None, zero_division=0)
    for level, recall in enumerate(ours.per_class_recall):
        assert recall is None if level not in labels else recall == pytest.approx(recalls[level])


def evaluation(labels: list[int], predicted: list[int], subjects: list[str]):  # type: ignore[no-untyped-def]
    return evaluate_predictions(
        split="test",
        labels_N=np.array(labels),
        levels_N=np.array(predicted),
        subjects_N=subjects,
        num_levels=4,
        majority_level=2,
    )


def test_the_baseline_is_the_training_sets_majority() -> None:
    judged = evaluation([2, 2, 2, 1], [2, 1, 2, 1], ["a", "a", "b", "b"])
    assert judged.majority_baseline.accuracy == 0.75
    assert judged.majority_baseline.per_class_recall == (None, 0.0, 1.0, None)
    assert judged.confusion == ((0, 0, 0, 0), (0, 1, 0, 0), (0, 1, 2, 0), (0, 0, 0, 0))


def test_the_interval_is_over_people_not_over_clips() -> None:
    # two people, one always right and one always wrong: a thousand clips do not make that more certain
    labels = [0, 1] * 500
    predicted = [0, 1] * 250 + [1, 0] * 250
    judged = evaluation(labels, predicted, ["right"] * 500 + ["wrong"] * 500)
    assert judged.accuracy_interval.num_subjects == 2
    assert (judged.accuracy_interval.low, judged.accuracy_interval.high) == (0.0, 1.0)
    many = evaluation(labels, predicted, [str(i) for i in range(1000)])
    assert many.accuracy_interval.high - many.accuracy_interval.low < 0.1


def test_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample"):
        metrics_of(np.zeros((4, 4), dtype=np.int64))


def test_temperature_brings_overconfident_logits_back() -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(size=(4000, 4))
    chances = probabilities(true_logits, 1.0)
    labels = np.array([rng.choice(4, p=row) for row in chances])
    overconfident = Predictions(true_logits * 3.0, labels, ("p",) * 4000)
    assert fit_temperature(overconfident) == pytest.approx(3.0, rel=0.15)


def test_scores_run_from_minus_one_to_one() -> None:
    even = np.linspace(-1, 1, 4).tolist()
    assert engagement_score(np.eye(4), even).tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])
    assert engagement_score(np.full((1, 4), 0.25), even)[0] == pytest.approx(0)
    assert engagement_score(np.full((1, 3), 1 / 3), (-1, -1, 1))[0] == pytest.approx(-1 / 3)
