"""Softmax cross entropy, plain and weighted by class. Letters: B clips, K levels."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from data_shards.reading.loader import ClipInputs
from training.losses.center import Centers
from training.losses.contract import EngagementLoss, TrainingLevels, at_least_single
from training.models.contract import EngagementModel, ModelOutput
from training.settings import Settings
from training.world import World

__all__ = ["CrossEntropy", "CrossEntropySettings", "WeightedCrossEntropy", "WeightedCrossEntropySettings"]


class CrossEntropySettings(Settings):
    """center: weight of the center loss on the embeddings, 0.2 as in Wu et al. 2023, Table 2; 0 is off."""

    name: Literal["cross_entropy"] = "cross_entropy"
    center: float = Field(default=0.0, ge=0)


class CrossEntropy(EngagementLoss):
    """Softmax cross entropy of logits_BK against labels_B int64 in [0, K), and center * center loss. Returns a scalar.

    [choice] the center loss reads embeddings as the model's head does (Centers).
    """

    settings_type: ClassVar[type[Settings]] = CrossEntropySettings

    def __init__(self, settings: CrossEntropySettings, levels: TrainingLevels) -> None:
        super().__init__(settings, levels)
        self.center = settings.center
        self.centers = Centers(len(levels.counts_K)) if settings.center else None

    def start(self, model: EngagementModel, world: World) -> None:
        super().start(model, world)
        if self.centers is not None:
            self.centers.follow(model)

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        loss = F.cross_entropy(at_least_single(output.logits_BK), labels_B)
        if self.centers is not None:
            loss = loss + self.center * self.centers(output.embedding_BE, labels_B)
        return loss

    def observe(self, inputs: ClipInputs, output: ModelOutput, labels_B: Tensor) -> None:
        if self.centers is not None:
            self.centers.observe(output.embedding_BE, labels_B)

    def after_step(self, model: EngagementModel) -> None:
        if self.centers is not None:
            self.centers.after_step(self.world)


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
