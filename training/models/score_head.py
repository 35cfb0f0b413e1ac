"""Last layers that give a score in [-1, 1] and a distribution over ordered levels.

Letters: B clips, E embedding width, K levels.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SCORE_HEADS", "CosineHead", "LinearHead", "OrdinalHead", "ScoreHead"]

_SMALLEST_GAP = 1e-3  # between two thresholds: closer ones give the level between them no probability at all


class ScoreHead(nn.Module):
    """embedding_BE to (logits_BK, scores_B): unnormalised log-probabilities and a score in [-1, 1].

    reads_directions and level_centres are what a model says of its head (EngagementModel).
    """

    reads_directions: bool = False
    level_centres: tuple[float, ...] | None = None

    def forward(self, embedding_BE: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError(f"{type(self).__name__} does not define forward")


class CosineHead(ScoreHead):
    """s = MLP3(norm(X)) (Wu et al. 2023, eqs. 4 and 8): the cosine of X and one weight vector, without a bias.

    The paper reads levels off s by thresholds, -0.5, 0 and 0.5 for four. Here a level's log-probability falls with the
    square of the distance from s to the level's centre, logits_BK = -(s - c_k)^2 / (2 sigma^2), c_k = -1 + (2 k + 1) / K.
    The nearest centre is the most probable level, so the levels are exactly the paper's, at any temperature: temperature
    scaling works as for every model. [choice] sigma = 1 / K, half a level's width.
    """

    reads_directions = True

    def __init__(self, width: int, num_levels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.weight)  # any direction is as likely as any other; its length does not matter
        self.centres_K: Tensor
        self.level_centres = tuple(-1 + (2 * level + 1) / num_levels for level in range(num_levels))
        self.register_buffer("centres_K", torch.tensor(self.level_centres), persistent=False)

    def forward(self, embedding_BE: Tensor) -> tuple[Tensor, Tensor]:
        # no matrix product: autocast would round the score to bfloat16's three digits
        cosines_B = (F.normalize(embedding_BE.to(self.weight.dtype), dim=1) * F.normalize(self.weight, dim=0)).sum(dim=1)
        scores_B = cosines_B.clamp(-1, 1)
        sigma = 1 / len(self.centres_K)
        return -(scores_B.unsqueeze(1) - self.centres_K).square() / (2 * sigma**2), scores_B


class LinearHead(ScoreHead):
    """K logits by one linear layer; the score is the mean of K evenly spaced scores under their softmax."""

    def __init__(self, width: int, num_levels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_levels)
        self.level_scores_K: Tensor
        self.register_buffer("level_scores_K", torch.linspace(-1, 1, num_levels), persistent=False)

    def forward(self, embedding_BE: Tensor) -> tuple[Tensor, Tensor]:
        logits_BK = self.linear(embedding_BE)
        return logits_BK, _expected(logits_BK.to(self.level_scores_K.dtype), self.level_scores_K)


class OrdinalHead(ScoreHead):
    """The cumulative link model with a logistic link (McCullagh 1980): P(level <= k) = sigmoid(threshold_k - w x).

    One weight vector and K - 1 ordered thresholds, kept in order as a first one and positive gaps. logits_BK are the log
    probabilities themselves; the score is the mean of K evenly spaced scores under them. At the start all levels are
    equally probable where w x = 0.
    """

    def __init__(self, width: int, num_levels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.weight, std=width**-0.5)
        thresholds = torch.logit(torch.arange(1, num_levels) / num_levels)
        self.first = nn.Parameter(thresholds[:1].clone())
        self.raw_gaps = nn.Parameter(torch.log(torch.expm1(thresholds.diff() - _SMALLEST_GAP)))
        self.level_scores_K: Tensor
        self.register_buffer("level_scores_K", torch.linspace(-1, 1, num_levels), persistent=False)

    def forward(self, embedding_BE: Tensor) -> tuple[Tensor, Tensor]:
        place_B1 = (embedding_BE.to(self.weight.dtype) * self.weight).sum(dim=1, keepdim=True)
        gaps = F.softplus(self.raw_gaps) + _SMALLEST_GAP
        below = torch.cat([self.first, self.first + gaps.cumsum(0)]) - place_B1  # (B, K - 1): thresholds as x sees them
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): the difference itself would cancel to 0
        between = F.logsigmoid(below[:, 1:]) + F.logsigmoid(-below[:, :-1]) + torch.log(-torch.expm1(-gaps))
        logits_BK = torch.cat([F.logsigmoid(below[:, :1]), between, F.logsigmoid(-below[:, -1:])], dim=1)
        return logits_BK, _expected(logits_BK, self.level_scores_K)


def _expected(logits_BK: Tensor, level_scores_K: Tensor) -> Tensor:
    return (logits_BK.softmax(dim=1) * level_scores_K).sum(dim=1)


SCORE_HEADS: dict[str, Callable[[int, int], ScoreHead]] = {
    "cosine": CosineHead,
    "linear": LinearHead,
    "ordinal": OrdinalHead,
}
