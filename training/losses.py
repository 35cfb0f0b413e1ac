"""The losses. Each is a mean over samples, so the mean over workers of their means is the global batch's loss.

To add one: one class with `settings_type`, and one line in LOSSES. Letters: B clips, K levels.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.contract import ModelOutput
from training.settings import Settings

__all__ = ["LOSSES", "CrossEntropy", "EngagementLoss", "WeightedCrossEntropy"]


class EngagementLoss(nn.Module):
    """Base of the registry's losses, built from its Settings and the training set's number of samples a level."""

    settings_type: ClassVar[type[Settings]]

    def __init__(self, settings: Settings, class_counts: Sequence[int]) -> None:
        super().__init__()

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        raise AssertionError(f"{type(self).__name__} does not define forward")


class CrossEntropySettings(Settings):
    """Nothing to set."""

    name: Literal["cross_entropy"] = "cross_entropy"


class CrossEntropy(EngagementLoss):
    """Softmax cross entropy of logits_BK against labels_B int64 in [0, K). Returns a scalar."""

    settings_type: ClassVar[type[Settings]] = CrossEntropySettings

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(_at_least_single(output.logits_BK), labels_B)


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

    def __init__(self, settings: Settings, class_counts: Sequence[int]) -> None:
        super().__init__(settings, class_counts)
        counts_K = torch.tensor(list(class_counts), dtype=torch.float32)
        present = counts_K > 0
        weights_K = torch.zeros_like(counts_K)
        weights_K[present] = counts_K.sum() / (present.sum() * counts_K[present])
        self.weights_K: Tensor
        self.register_buffer("weights_K", weights_K, persistent=False)

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        losses_B = F.cross_entropy(_at_least_single(output.logits_BK), labels_B, reduction="none")
        return (self.weights_K[labels_B] * losses_B).mean()


def _at_least_single(logits_BK: Tensor) -> Tensor:
    """bfloat16 logits to float32: a log-softmax needs its digits."""
    return logits_BK.float() if logits_BK.dtype == torch.bfloat16 else logits_BK


LOSSES: dict[str, type[EngagementLoss]] = {
    "cross_entropy": CrossEntropy,
    "weighted_cross_entropy": WeightedCrossEntropy,
}
