"""Softmax cross entropy, plain and weighted by class. Letters: B clips, K levels."""

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.contract import EngagementLoss, TrainingLevels, at_least_single
from training.models.contract import ModelOutput
from training.settings import Settings

__all__ = ["CrossEntropy", "CrossEntropySettings", "WeightedCrossEntropy", "WeightedCrossEntropySettings"]


class CrossEntropySettings(Settings):
    """Nothing to set."""

    name: Literal["cross_entropy"] = "cross_entropy"


class CrossEntropy(EngagementLoss):
    """Softmax cross entropy of logits_BK against labels_B int64 in [0, K). Returns a scalar."""

    settings_type: ClassVar[type[Settings]] = CrossEntropySettings

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(at_least_single(output.logits_BK), labels_B)


class WeightedCrossEntropySettings(Settings):
    """Nothing to set."""

    name: Literal["weighted_cross_entropy"] = "weighted_cross_entropy"


class WeightedCrossEntropy(EngagementLoss):
    """Cross entropy with weights from the class proportions of the training set (Abedi and Khan 2021, section III).

    [choice] the paper gives no formula: w_k = N / (K n_k), so a weight averages 1 over the training set; a class
    without samples weighs 0. The mean is over samples, not over weights, so that workers' means average to the
    global batch's loss; torch's own `weight=` divides by each worker's sum of weights.
    """

    settings_type: ClassVar[type[Settings]] = WeightedCrossEntropySettings

    def __init__(self, settings: Settings, levels: TrainingLevels) -> None:
        super().__init__(settings, levels)
        counts_K = torch.tensor(levels.counts_K, dtype=torch.float32)
        present = counts_K > 0
        weights_K = torch.zeros_like(counts_K)
        weights_K[present] = counts_K.sum() / (present.sum() * counts_K[present])
        self.weights_K: Tensor
        self.register_buffer("weights_K", weights_K, persistent=False)

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        losses_B = F.cross_entropy(at_least_single(output.logits_BK), labels_B, reduction="none")
        return (self.weights_K[labels_B] * losses_B).mean()
