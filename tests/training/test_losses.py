"""The losses equal their formulas written naively in numpy, and add up over workers."""

import numpy as np
import pytest
import torch

from training.losses import LOSSES, TrainingLevels
from training.models import ModelOutput

COUNTS = [34, 213, 2617, 2494]  # DAiSEE's training set
SCORES = (-1.0, -1 / 3, 1 / 3, 1.0)


def output(logits: np.ndarray) -> ModelOutput:
    return ModelOutput(torch.tensor(logits), torch.zeros(len(logits), 2))


def make(name: str, counts: list[int] = COUNTS):  # type: ignore[no-untyped-def]
    return LOSSES[name](LOSSES[name].settings_type.model_validate({"name": name}), TrainingLevels(tuple(counts), SCORES))


def naive(logits: np.ndarray, labels: np.ndarray, weights: list[float]) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        chance = np.exp(row[label]) / sum(np.exp(value) for value in row)
        total += -weights[label] * np.log(chance)
    return total / len(labels)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_equals_its_formula(name: str) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(12, 4)), rng.integers(0, 4, 12)
    weights = {"cross_entropy": [1.0] * 4, "weighted_cross_entropy": [sum(COUNTS) / (4 * n) for n in COUNTS]}[name]
    assert float(make(name)(output(logits), torch.tensor(labels))) == pytest.approx(naive(logits, labels, weights), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_workers_means_average_to_the_global_batchs_loss(name: str) -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(8, 4)), rng.integers(0, 4, 8)
    loss = make(name)
    parts = [float(loss(output(logits[i : i + 4]), torch.tensor(labels[i : i + 4]))) for i in (0, 4)]
    assert float(loss(output(logits), torch.tensor(labels))) == pytest.approx(sum(parts) / 2, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_finite_differences(name: str) -> None:
    loss = make(name, [3, 1, 2, 5])
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    loss.double()
    labels = torch.tensor([0, 1, 2, 3, 1])
    assert torch.autograd.gradcheck(lambda x: loss(ModelOutput(x, x), labels), logits)


def test_a_class_without_samples_weighs_nothing_and_the_mean_weight_is_one() -> None:
    weights = make("weighted_cross_entropy", [10, 0, 30, 40]).weights_K
    assert weights[1] == 0
    assert float((weights * torch.tensor([10, 0, 30, 40])).sum() / 80) == pytest.approx(1.0)
