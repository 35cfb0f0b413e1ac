"""The frame-level baseline: the mean of a ResNet's features over time, blind to the order of the frames.

What it cannot tell apart and a temporal model can is what differs only over time.
Letters: B clips, F features a frame, K levels, E = F.
"""

from typing import ClassVar, Literal

from torch import nn

from data_shards.reading.loader import ClipInputs
from training.models.contract import EngagementModel, ModelOutput
from training.models.resnet_tcn import FrameResNet, frame_features
from training.settings import Settings

__all__ = ["ResNetMean"]


class ResNetMeanSettings(FrameResNet):
    """The frame encoder alone."""

    name: Literal["resnet_mean"] = "resnet_mean"


class ResNetMean(EngagementModel):
    """Mean over time of per-frame features, then one linear layer: invariant to any permutation of the frames."""

    settings_type: ClassVar[type[Settings]] = ResNetMeanSettings
    pretrained: ClassVar[tuple[str, ...]] = ("resnet",)

    def __init__(self, settings: ResNetMeanSettings, num_levels: int) -> None:
        super().__init__(settings, num_levels)
        self.resnet = settings.build()
        self.head = nn.Linear(self.resnet.num_features, num_levels)

    @property
    def places(self) -> nn.Module:
        return self.resnet.last_stage

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        embedding_BE = frame_features(self.resnet, inputs.frames_BTCHW).mean(dim=1)
        return ModelOutput(logits_BK=self.head(embedding_BE), embedding_BE=embedding_BE)
