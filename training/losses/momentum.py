"""A slowly following copy of a model (He et al. 2020), and the pool of what it made of earlier clips.

Letters: N clips, P places of the pool, E embedding width.
"""

import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_shards.reading.loader import ClipInputs
from training.losses.contract import SizedByState, at_least_single, scores_of
from training.models.contract import EngagementModel
from training.world import World

__all__ = ["MomentumEncoder", "ScorePool", "Triplets", "in_draw_order"]


class Triplets(NamedTuple):
    """labels_N int64; scores_N in [-1, 1]; unit_NE: the embeddings before the head, scaled to length 1, for their cosines."""

    labels_N: Tensor
    scores_N: Tensor
    unit_NE: Tensor


class MomentumEncoder(nn.Module):
    """A copy of the bare model whose weights follow it: w <- m w + (1 - m) w_model after every step.

    [choice] in evaluation mode: a clip's triplet then depends neither on who shares its microbatch nor on dropout, and is the
    same for any number of workers and microbatches. Batch statistics come from the model: its running values are copied.
    The copy is kept in float32 at least, for a step of (1 - m) vanishes in bfloat16.
    """

    def __init__(self, model: EngagementModel, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.copy = copy.deepcopy(model).eval().requires_grad_(False)
        if any(p.dtype in (torch.bfloat16, torch.float16) for p in self.copy.parameters()):
            self.copy.float()

    def train(self, mode: bool = True) -> "MomentumEncoder":
        """Stays in evaluation mode, whatever it is a part of."""
        return super().train(False)

    @torch.no_grad()
    def triplets(self, inputs: ClipInputs, labels_N: Tensor, loss: str) -> Triplets:
        """What the copy makes of clips; `loss` is named where the model gives no score."""
        output = self.copy(inputs)
        unit_NE = F.normalize(at_least_single(output.embedding_BE), dim=1)
        return Triplets(labels_N, scores_of(output, loss), unit_NE)

    @torch.no_grad()
    def follow(self, model: EngagementModel) -> None:
        for own, other in zip(self.copy.parameters(), model.parameters(), strict=True):
            own.lerp_(other.to(own.dtype), 1 - self.momentum)
        for buffer, newer in zip(self.copy.buffers(), model.buffers(), strict=True):
            buffer.copy_(newer)


class ScorePool(SizedByState):
    """The last `length` triplets, oldest first."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.labels_P: Tensor
        self.scores_P: Tensor
        self.unit_PE: Tensor
        self.register_buffer("labels_P", torch.empty(0, dtype=torch.int64))
        self.register_buffer("scores_P", torch.empty(0))
        self.register_buffer("unit_PE", torch.empty(0, 0))

    def push(self, new: Triplets) -> None:
        """Take in triplets, the last the newest; the oldest leave once the pool is full."""
        if len(self.labels_P) == 0:
            self.labels_P, self.scores_P, self.unit_PE = (rows[-self.length :].clone() for rows in new)
            return
        self.labels_P = torch.cat([self.labels_P, new.labels_N])[-self.length :].clone()
        self.scores_P = torch.cat([self.scores_P, new.scores_N])[-self.length :].clone()
        self.unit_PE = torch.cat([self.unit_PE, new.unit_NE])[-self.length :].clone()


def in_draw_order(parts: Iterable[Triplets], world: World) -> Triplets:
    """All workers' triplets as their clips were drawn: by microbatch, then by rank. `parts`: this worker's, of one size."""
    columns = zip(*parts, strict=True)
    return Triplets(*(world.stack(torch.stack(column)).transpose(0, 1).flatten(0, 2) for column in columns))
