"""Losses for levels of very different frequency. Letters: B clips, K levels."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from training.losses.contract import EngagementLoss, TrainingLevels, at_least_single
from training.models.contract import ModelOutput
from training.settings import Settings

__all__ = ["ClassBalancedFocal", "LabelDistributionMargin"]


class ClassBalancedFocalSettings(Settings):
    """beta: 0 weighs all levels alike, towards 1 by inverse frequency. gamma: 0 is plain cross entropy."""

    name: Literal["cb_focal"] = "cb_focal"
    beta: float = Field(default=0.999, ge=0, lt=1)
    gamma: float = Field(default=2.0, ge=0, le=10)


class ClassBalancedFocal(EngagementLoss):
    """Class-balanced focal loss (Cui et al. 2019, section 4.3) of logits_BK, labels_B int64 in [0, K). Returns a scalar.

    -w_y sum_k (1 - p_k)^gamma log p_k, with p_k = sigmoid(z_k) for the clip's level and sigmoid(-z_k) for the others (Lin et
    al. 2017, eq. 4), and w_y the inverse of the effective number of samples, (1 - beta) / (1 - beta^n_y), scaled to sum to the
    number of levels as the authors do. [choice] Wu et al. name no parameters: Cui et al.'s 0.999, Lin et al.'s gamma 2.
    A level without samples weighs 0. The K sigmoids are for logits of either sign, as linear heads give. The cosine and the
    ordinal head give logits of at most 0: their p_k of the clip's own level is then at most 1/2, so focus and gradient of clips
    that are right never fade. It still trains towards the right level; the loss is Cui et al.'s with model.head=linear.
    """

    settings_type: ClassVar[type[Settings]] = ClassBalancedFocalSettings

    def __init__(self, settings: ClassBalancedFocalSettings, levels: TrainingLevels) -> None:
        super().__init__(settings, levels)
        self.gamma = settings.gamma
        counts_K = torch.tensor(levels.counts_K, dtype=torch.float64)
        present = counts_K > 0
        weights_K = torch.zeros_like(counts_K)
        weights_K[present] = (1 - settings.beta) / (1 - settings.beta ** counts_K[present])
        self.weights_K: Tensor
        self.register_buffer("weights_K", weights_K * present.sum() / weights_K.sum(), persistent=False)

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        logits_BK = at_least_single(output.logits_BK)
        own_BK = F.one_hot(labels_B, logits_BK.shape[1]).bool()
        towards_BK = torch.where(own_BK, logits_BK, -logits_BK)
        focus_BK = torch.exp(self.gamma * F.logsigmoid(-towards_BK))  # (1 - p)^gamma, exact where p is close to 1
        losses_B = -(focus_BK * F.logsigmoid(towards_BK)).sum(dim=1)
        return (self.weights_K[labels_B].to(losses_B.dtype) * losses_B).mean()


class LabelDistributionMarginSettings(Settings):
    """max_margin: of the rarest level. scale: what the logits are multiplied with after the margin is taken off."""

    name: Literal["ldam"] = "ldam"
    max_margin: float = Field(default=0.5, ge=0, le=100)
    scale: float = Field(default=1.0, gt=0, le=1000)


class LabelDistributionMargin(EngagementLoss):
    """LDAM (Cao et al. 2019, eq. 13): cross entropy with the clip's own logit lowered by C / n_y^(1/4). Returns a scalar.

    labels_B int64 in [0, K). C makes the largest margin max_margin, 0.5 as the authors set it. Their scale of 30 belongs to
    logits that are cosines, in [-1, 1]; [choice] 1 here, eq. 13 as written, for no head of the registry gives such. A linear
    head's logits are unbounded, the ordinal and the cosine head's are log-probabilities (the latter's from -(2 K - 1)^2 / 2,
    -24.5 at four levels, to 0). Their deferred re-weighting is a schedule beside the loss and is left out.
    """

    settings_type: ClassVar[type[Settings]] = LabelDistributionMarginSettings

    def __init__(self, settings: LabelDistributionMarginSettings, levels: TrainingLevels) -> None:
        super().__init__(settings, levels)
        self.scale = settings.scale
        counts_K = torch.tensor(levels.counts_K, dtype=torch.float64)
        rarity_K = torch.where(counts_K > 0, counts_K.clamp(min=1) ** -0.25, 0.0)
        self.margins_K: Tensor
        self.register_buffer("margins_K", rarity_K * settings.max_margin / rarity_K.max(), persistent=False)

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        logits_BK = at_least_single(output.logits_BK)
        own_BK = F.one_hot(labels_B, logits_BK.shape[1])
        lowered_BK = logits_BK - (own_BK * self.margins_K).to(logits_BK.dtype)
        return F.cross_entropy(self.scale * lowered_BK, labels_B)
