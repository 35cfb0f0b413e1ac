"""MocoRank, the momentum-contrast multi-margin ranking loss (Wu et al. 2023).

Letters: B clips, P places of the pool, E embedding width, K levels.
"""

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from data_shards.errors import ConfigError
from data_shards.reading.loader import ClipInputs
from training.losses.center import Centers
from training.losses.contract import EngagementLoss, TrainingLevels, at_least_single, require_order, scores_of
from training.losses.momentum import MomentumEncoder, ScorePool, Triplets, in_draw_order
from training.models.contract import EngagementModel, ModelOutput
from training.settings import Settings
from training.world import World

__all__ = ["MocoRank", "MocoRankSettings"]


class MocoRankSettings(Settings):
    """momentum: m of the momentum encoder. pool: how many triplets are kept. margin_gradient: whether the margin, which
    depends on the clip's own embedding, passes gradient to it. center: weight of the center loss, 0.2 as published, 0 is off.
    """

    name: Literal["mocorank"] = "mocorank"
    momentum: float = Field(default=0.999, ge=0, le=1)
    pool: int = Field(default=2048, ge=1, le=16384)
    margin_gradient: bool = False
    center: float = Field(default=0.0, ge=0)


class MocoRank(EngagementLoss):
    """Multi-margin ranking of scores_B against a pool of momentum triplets (Wu et al. 2023, eqs. 9-11). Returns a scalar.

    1 / (|B| |P|) sum max(f, 0) over clips 1 of the batch and 2 of the pool, labels_B int64 in [0, K):

        f = |s1 - s2|                   l1 = l2
            M_k - (s1 - s2)             l1 > l2,   k = |l1 - l2|
            M_k - (s2 - s1)             l1 < l2
        M_k = 0.5 (k - 1) + 0.5 (cos(e1, e2) + 1) / 2

    The paper has k = 1, 2, 3; M_k is taken as written for any number of levels. From 6 levels on the largest margins exceed
    what scores in [-1, 1] can have between them, and the loss of such pairs is never 0.

    [choice] a batch's triplets are made at its forward pass, with the momentum weights that followed the step before: MoCo's
    order (He et al. 2020, algorithm 1), and no inputs are kept. A step is thus: forward; loss against the pool as the last step
    left it; optimiser; momentum update; the whole global batch enters the pool, as it was drawn. All microbatches and workers
    see one pool. [choice] it starts with equal shares of the levels. [choice] margin_gradient is off: M_k is then a target,
    and cannot be lowered by turning embeddings of neighbouring levels apart. [choice] center reads embeddings as
    the model's head does: their directions alone with the paper's (Centers).
    """

    settings_type: ClassVar[type[Settings]] = MocoRankSettings
    follows_model: ClassVar[bool] = True

    def __init__(self, settings: MocoRankSettings, levels: TrainingLevels) -> None:
        super().__init__(settings, levels)
        num_levels = len(levels.counts_K)
        require_order(levels, settings.name)
        if settings.pool < num_levels:
            raise ConfigError(f"loss.pool is {settings.pool}, too small for one clip of each of {num_levels} levels; raise it")
        self.first_samples = settings.pool
        self.settings = settings
        self.pool = ScorePool(settings.pool)
        self.centers = Centers(num_levels) if settings.center else None
        self._seen: list[Triplets] = []  # this worker's, of each microbatch of this step

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        scores_B, embedding_BE = scores_of(output, self.settings.name), at_least_single(output.embedding_BE)
        in_margin_BE = embedding_BE if self.settings.margin_gradient else embedding_BE.detach()
        cosines_BP = F.normalize(in_margin_BE, dim=1) @ self.pool.unit_PE.T
        gaps_BP = labels_B.unsqueeze(1) - self.pool.labels_P
        loss = _misses(scores_B.unsqueeze(1) - self.pool.scores_P, gaps_BP, cosines_BP).mean()
        if self.centers is not None:
            loss = loss + self.settings.center * self.centers(embedding_BE, labels_B)
        return loss

    def start(self, model: EngagementModel, world: World) -> None:
        super().start(model, world)
        self.momentum = MomentumEncoder(model, self.settings.momentum)
        if self.centers is not None:
            self.centers.follow(model)

    def fill(self, batches: Iterable[tuple[ClipInputs, Tensor]]) -> None:
        parts = [self.momentum.triplets(inputs, labels, self.settings.name) for inputs, labels in batches]
        first = in_draw_order(parts, self.world)
        self.pool.push(Triplets(*(rows[: self.settings.pool] for rows in first)))

    def observe(self, inputs: ClipInputs, output: ModelOutput, labels_B: Tensor) -> None:
        self._seen.append(self.momentum.triplets(inputs, labels_B, self.settings.name))
        if self.centers is not None:
            self.centers.observe(output.embedding_BE, labels_B)

    def after_step(self, model: EngagementModel) -> None:
        self.momentum.follow(model)
        self.pool.push(in_draw_order(self._seen, self.world))
        self._seen.clear()
        if self.centers is not None:
            self.centers.after_step(self.world)


def _misses(differences_BP: Tensor, gaps_BP: Tensor, cosines_BP: Tensor) -> Tensor:
    """max(f, 0) of each pair, from s1 - s2, l1 - l2 and cos(e1, e2)."""
    margins_BP = 0.5 * (gaps_BP.abs() - 1) + 0.25 * (cosines_BP + 1)
    ranked_BP = margins_BP - torch.sign(gaps_BP) * differences_BP
    return torch.where(gaps_BP == 0, differences_BP.abs(), F.relu(ranked_BP))
