"""Center loss, a term that other losses take with a weight. Letters: B clips, K levels, E embedding width."""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.contract import SizedByState, at_least_single
from training.models.contract import EngagementModel
from training.world import World

__all__ = ["Centers"]

_PACE = 0.5  # alpha in Wen et al.'s experiments


class Centers(SizedByState):
    """Center loss (Wen et al. 2016, eq. 2) of embedding_BE, and the centers of the levels, which follow after each step.

    1/2 |x - c_y|^2 as a mean over clips [choice: they sum; so it does not depend on the batch], and by their eq. 4
    c_k moves by 0.5 * sum(x - c_k) / (1 + n_k), over the n_k clips of level k in the global batch. [choice] centers start at
    zero. [choice] embeddings are scaled to length 1 first (unit_length) where the model's head reads their direction alone: the
    loss would otherwise be lowered by shrinking them, which changes no score. `follow` asks the model.
    """

    def __init__(self, num_levels: int, *, unit_length: bool = False) -> None:
        super().__init__()
        self.unit_length = unit_length
        self.num_levels = num_levels
        self.centers_KE: Tensor
        self.register_buffer("centers_KE", torch.empty(num_levels, 0))
        self._seen: list[tuple[Tensor, Tensor]] = []  # of each microbatch of this step: sums_KE and counts_K

    def follow(self, model: EngagementModel) -> None:
        """Read embeddings as the model's head does."""
        self.unit_length = model.reads_directions

    def forward(self, embedding_BE: Tensor, labels_B: Tensor) -> Tensor:
        offsets_BE = self._read(embedding_BE) - self._centers(embedding_BE)[labels_B]
        return 0.5 * offsets_BE.square().sum(dim=1).mean()

    @torch.no_grad()
    def observe(self, embedding_BE: Tensor, labels_B: Tensor) -> None:
        read_BE = self._read(embedding_BE)
        member_KB1 = F.one_hot(labels_B, self.num_levels).T.to(read_BE.dtype).unsqueeze(2)
        # no matrix product: this runs under the forward pass's autocast, which would sum in bfloat16
        self._seen.append(((member_KB1 * read_BE).sum(dim=1), member_KB1.sum(dim=(1, 2))))

    @torch.no_grad()
    def after_step(self, world: World) -> None:
        sums_KE, counts_K = (world.stack(torch.stack(parts)).sum(dim=(0, 1)) for parts in zip(*self._seen, strict=True))
        pull_KE = sums_KE - counts_K.unsqueeze(1) * self.centers_KE
        self.centers_KE = self.centers_KE + _PACE * pull_KE / (1 + counts_K.unsqueeze(1))
        self._seen.clear()

    def _read(self, embedding_BE: Tensor) -> Tensor:
        embedding_BE = at_least_single(embedding_BE)
        return F.normalize(embedding_BE, dim=1) if self.unit_length else embedding_BE

    def _centers(self, embedding_BE: Tensor) -> Tensor:
        if self.centers_KE.shape[1] == 0:  # the first batch says how wide an embedding is
            self.centers_KE = at_least_single(embedding_BE).new_zeros(self.num_levels, embedding_BE.shape[1])
        return self.centers_KE
