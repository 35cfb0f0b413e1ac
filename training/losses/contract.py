"""What every loss is: built from its Settings and the training set's levels, from a model's output to a scalar.

Letters: B clips, K levels.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from data_shards.errors import ConfigError
from data_shards.reading.loader import ClipInputs
from training.models.contract import EngagementModel, ModelOutput
from training.settings import Settings
from training.world import World

__all__ = ["EngagementLoss", "SizedByState", "TrainingLevels", "at_least_single", "require_order", "scores_of"]


class TrainingLevels(NamedTuple):
    """counts_K: training samples of each level; scores_K: each level's place on the engagement scale [-1, 1]."""

    counts_K: tuple[int, ...]
    scores_K: tuple[float, ...]


class EngagementLoss(nn.Module):
    """Base of the registry's losses. A loss is a mean over samples, so the mean of the workers' losses is the global batch's.

    A loss that remembers something between steps keeps it in buffers and submodules, which are in every checkpoint and in
    no bundle, and overrides the hooks below. All workers call them alike:

        start                       the bare model with its first weights; once, also where the run is then resumed
        fill                        `first_samples` samples, before the first step of a new run
        forward, observe            each microbatch, in turn; what is observed goes into no loss of the same step
        after_step                  the optimiser has stepped

    follows_model: whether after_step reads the model's weights, which are then gathered first where workers share them.
    """

    settings_type: ClassVar[type[Settings]]
    follows_model: ClassVar[bool] = False
    first_samples: int = 0

    def __init__(self, settings: Settings, levels: TrainingLevels) -> None:
        super().__init__()
        self.world = World()

    def forward(self, output: ModelOutput, labels_B: Tensor) -> Tensor:
        raise AssertionError(f"{type(self).__name__} does not define forward")

    def start(self, model: EngagementModel, world: World) -> None:
        """Meet the bare model, on its device and equal on all workers, and the workers."""
        self.world = world

    def fill(self, batches: Iterable[tuple[ClipInputs, Tensor]]) -> None:
        """Take in this worker's share of the first samples: (inputs, labels_B), all of one size, cut by rank as in training.

        Where their number does not divide by workers and batches, the first ones come again at the end.
        """

    def observe(self, inputs: ClipInputs, output: ModelOutput, labels_B: Tensor) -> None:
        """See a microbatch that went through the model and through this loss."""

    def after_step(self, model: EngagementModel) -> None:
        """Move on, after the step that all observed microbatches belong to."""


class SizedByState(nn.Module):
    """A module whose buffers are sized by the first batch, and on resuming by the state that is loaded."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def at_least_single(values: Tensor) -> Tensor:
    """Half-precision values as float32: logarithms and differences need their digits."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def require_order(levels: TrainingLevels, loss: str) -> None:
    """ConfigError where the levels do not follow one another on the engagement scale, as classes do not."""
    if any(lower >= upper for lower, upper in pairwise(levels.scores_K)):
        raise ConfigError(
            f"the loss {loss} goes by the order of levels, and the levels of this label view have no order; "
            "set data.view=levels, or a loss of classes (--set loss.name=cross_entropy)"
        )


def scores_of(output: ModelOutput, loss: str) -> Tensor:
    """scores_B of a model's output; ConfigError where it gives none."""
    if output.scores_B is None:
        raise ConfigError(
            f"the loss {loss} is of scores, and the model gives levels alone; choose a model with a score "
            "(the recipe or --set model.name=mocorank), or a loss of levels (--set loss.name=cross_entropy)"
        )
    return at_least_single(output.scores_B)
