"""What every model is: built from its Settings and the number of levels, from clip inputs to logits.

Letters: B clips, K levels, E embedding width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from data_shards.errors import ConfigError
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
    """Base of the registry's models. `settings_type` names the fields a recipe may set.

    pretrained: names of the modules that the setting `weights` gives trained weights. What a loss may ask of the head:
    reads_directions, whether an embedding's length makes no difference to it; level_centres, the score in [-1, 1] at which
    each level is at its most probable, where the head reads levels off the score, None where it does not.
    """

    settings_type: ClassVar[type[Settings]]
    pretrained: ClassVar[tuple[str, ...]] = ()
    reads_directions: bool = False
    level_centres: tuple[float, ...] | None = None

    @staticmethod
    def inputs_of(settings: Any) -> tuple[str, ...]:
        """What a model of these settings reads of a sample: `frames`, or features by name."""
        return (FRAMES,)

    @staticmethod
    def optional_of(settings: Any) -> tuple[str, ...]:
        """What it reads beside that where a sample has it."""
        return ()

    @staticmethod
    def fitted(settings: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """The settings, widths that they leave to the data filled in from its features' shapes."""
        return settings

    def __init__(self, settings: Settings, num_levels: int) -> None:
        super().__init__()
        self.settings = settings
        self.num_levels = num_levels
        self.inputs = self.inputs_of(settings)
        self.optional = self.optional_of(settings)
        self._frozen: tuple[str, ...] = ()

    def freeze(self, prefixes: Sequence[str]) -> None:
        """Train nothing below these names of modules or parameters; ConfigError where one names nothing, or all is named.

        Frozen modules stay in evaluation mode, so that no batch statistic moves and nothing is dropped there.
        """
        names = [name for name, _ in self.named_parameters()]
        for prefix in prefixes:
            if not any(_is_below(name, prefix) for name in names):
                known = ", ".join(name for name, _ in self.named_children())
                raise ConfigError(f"freeze: the model has no part '{prefix}'; it has: {known}")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not any(_is_below(name, prefix) for prefix in prefixes))
        if prefixes and not any(parameter.requires_grad for parameter in self.parameters()):
            raise ConfigError(f"freeze: {', '.join(prefixes)} are the whole model, so nothing would train; name less")
        self._frozen = tuple(prefixes)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name, module in self.named_modules():
            if any(_is_below(name, prefix) for prefix in self._frozen):
                module.training = False
        return self

    def begin_parts(self, fresh: Sequence[str]) -> None:
        """Set the first values of parts that an earlier model did not have; fresh: their weights' names."""

    @property
    def places(self) -> nn.Module | None:
        """The last layer that keeps the picture's places, with an output (B x T, channels, rows, columns): what Grad-CAM looks
        at. None where the model reads no frames."""
        return None

    def prepared(self, inputs: ClipInputs) -> ClipInputs:
        """What follows from a batch without any weight, done once for a model and its copies; `forward` takes both."""
        return inputs

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        raise AssertionError(f"{type(self).__name__} does not define forward")


def _is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
