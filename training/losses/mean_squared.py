"""Mean squared error of the score, alone and with Table 2's additions within the batch (Wu et al. 2023): rank, triplet.

Pairs and triplets are of the whole global microbatch: workers join their rows, so several workers have the loss of one whose
microbatch is as large as theirs together. Accumulated microbatches see no pairs across each other, by definition.
Letters: B clips of this worker, A clips of all workers, K levels, E embedding width.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from training.losses.contract import EngagementLoss, TrainingLevels, at_least_single, require_order, scores_of
from training.models.contract import EngagementModel, ModelOutput
from training.settings import Settings
from training.world import World

__all__ = ["MeanSquared", "MeanSquaredRank", "MeanSquaredTriplet"]


class MeanSquaredSettings(Settings):
    """Nothing to set."""

    name: Literal["mse"] = "mse"


class MeanSquared(EngagementLoss):
    """(s - p)^2 of scores_B in [-1, 1] against the place p of each clip's level on the engagement scale. Returns a scalar.

    labels_B int64 in [0, K). [choice] the paper names no targets. Where the model's head reads levels off the score, the
    centres of the equal parts of [-1, 1] that are its levels (-0.75, -0.25, 0.25, 0.75 for four): a score on its target is then
    farthest from every threshold. Elsewhere the score is a mean of the levels' places (-1, -1/3, 1/3, 1), which are the targets.
    """

    settings_type: ClassVar[type[Settings]] = MeanSquaredSettings

    def __init__(self, settings: Settings, levels: TrainingLevels) -> None:
        super().__init__(settings, levels)
        require_order(levels, settings.name)
        self.name = settings.name
        self.places_K: Tensor
        self.register_buffer("places_K", torch.tensor(levels.scores_K, dtype=torch.float64), persistent=False)

    def start(self, model: EngagementModel, world: World) -> None:
        super().start(model, world)
        if model.level_centres is not None:
            self.places_K = self.places_K.new_tensor(model.level_centres)

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        scores_B = scores_of(output, self.name)
        return F.mse_loss(scores_B, self.places_K[labels_B].to(scores_B.dtype))


class MeanSquaredRankSettings(Settings):
    """weight: of the ranking term, 1 as published. margin: by how much the score of the more engaged clip has to be higher."""

    name: Literal["mse_rank"] = "mse_rank"
    weight: float = Field(default=1.0, ge=0)
    margin: float = Field(default=0.0, ge=0, le=2)


class MeanSquaredRank(MeanSquared):
    """MSE + weight * margin-ranking loss: max(0, margin - (s_i - s_j)), mean over the pairs in which i's level is the higher.

    [choice] the paper gives no margin: 0, that of torch's MarginRankingLoss. All pairs of different levels count.
    """

    settings_type: ClassVar[type[Settings]] = MeanSquaredRankSettings

    def __init__(self, settings: MeanSquaredRankSettings, levels: TrainingLevels) -> None:
        super().__init__(settings, levels)
        self.weight, self.margin = settings.weight, settings.margin

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        scores_B = scores_of(output, self.name)
        scores_A, labels_A = self.world.join(scores_B), self.world.stack(labels_B).flatten()
        order_BA = (self.places_K[labels_B].unsqueeze(1) - self.places_K[labels_A]).sign().to(scores_B.dtype)
        misses_BA = F.relu(self.margin - order_BA * (scores_B.unsqueeze(1) - scores_A)) * order_BA.abs()
        num_pairs = (self.places_K[labels_A].unsqueeze(1) != self.places_K[labels_A]).sum().clamp(min=1)
        # times the workers: the mean of their shares is then the mean over all pairs
        return super().forward(output, labels_B) + self.weight * self.world.size * misses_BA.sum() / num_pairs


class MeanSquaredTripletSettings(Settings):
    """weight: of the triplet term, 1 as published. margin: of squared distances between embeddings of length 1."""

    name: Literal["mse_triplet"] = "mse_triplet"
    weight: float = Field(default=1.0, ge=0)
    margin: float = Field(default=0.2, ge=0, le=4)


class MeanSquaredTriplet(MeanSquared):
    """MSE + weight * triplet loss on embedding_BE (Schroff et al. 2015, eq. 3): max(0, d(a, p) - d(a, n) + margin).

    [choice] the paper names neither margin nor triplets: margin 0.2 on squared distances of embeddings scaled to length 1, as
    Schroff et al. (the score's head reads the direction alone), and for each clip the farthest of its level and the nearest of
    another (Hermans et al. 2017, eq. 5). The mean is over clips that have both.
    """

    settings_type: ClassVar[type[Settings]] = MeanSquaredTripletSettings

    def __init__(self, settings: MeanSquaredTripletSettings, levels: TrainingLevels) -> None:
        super().__init__(settings, levels)
        self.weight, self.margin = settings.weight, settings.margin

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        unit_BE = F.normalize(at_least_single(output.embedding_BE), dim=1)
        unit_AE, labels_A = self.world.join(unit_BE), self.world.stack(labels_B).flatten()
        distances_BA = 2 - 2 * unit_BE @ unit_AE.T
        other_BA = labels_B.unsqueeze(1) != labels_A
        itself_BA = torch.arange(len(labels_A), device=labels_A.device) == self._places(labels_B).unsqueeze(1)
        farthest_B = distances_BA.masked_fill(other_BA | itself_BA, -torch.inf).amax(dim=1)
        nearest_B = distances_BA.masked_fill(~other_BA, torch.inf).amin(dim=1)
        counted_B = farthest_B.isfinite() & nearest_B.isfinite()
        misses = F.relu(farthest_B[counted_B] - nearest_B[counted_B] + self.margin).sum()
        alike_A = (labels_A.unsqueeze(1) == labels_A).sum(dim=1)
        num_counted = ((alike_A > 1) & (alike_A < len(labels_A))).sum().clamp(min=1)
        return super().forward(output, labels_B) + self.weight * self.world.size * misses / num_counted

    def _places(self, labels_B: Tensor) -> Tensor:
        """Where this worker's clips stand among all workers'."""
        return self.world.rank * len(labels_B) + torch.arange(len(labels_B), device=labels_B.device)
