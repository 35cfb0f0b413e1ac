"""What every model is: built from its Settings and the number of levels, from clip inputs to logits.

Letters: B clips, K levels, E embedding width.
"""

from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from data_shards.reading.loader import ClipInputs
from data_shards.sample import FRAMES
from training.settings import Settings

__all__ = ["EngagementModel", "ModelOutput"]


class ModelOutput(NamedTuple):
    """logits_BK: unnormalised log-probabilities of the levels; embedding_BE: what the last layer reads.

    scores_B: the score in [-1, 1] that a model gives before any level, None where it gives none; the levels then follow
    from it by fixed thresholds.
    """

    logits_BK: Tensor
    embedding_BE: Tensor
    scores_B: Tensor | None = None


class EngagementModel(nn.Module):
    """Base of the registry's models. `settings_type` names the fields a recipe may set."""

    settings_type: ClassVar[type[Settings]]

    @staticmethod
    def inputs_of(settings: Any) -> tuple[str, ...]:
        """What a model of these settings reads of a sample: `frames`, or features by name."""
        return (FRAMES,)

    @staticmethod
    def optional_of(settings: Any) -> tuple[str, ...]:
        """What it reads beside that where a sample has it."""
        return ()

    def __init__(self, settings: Settings, num_levels: int) -> None:
        super().__init__()
        self.settings = settings
        self.num_levels = num_levels
        self.inputs = self.inputs_of(settings)
        self.optional = self.optional_of(settings)

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        raise AssertionError(f"{type(self).__name__} does not define forward")
