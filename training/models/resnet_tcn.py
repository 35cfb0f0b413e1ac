"""ResNet+TCN (Abedi and Khan 2021): a ResNet's features of each frame, in order, through a dilated TCN.

Letters: B clips, T frames, C = 3 RGB channels, H height, W width, F features a frame, K levels, E hidden units.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from data_shards.reading.loader import ClipInputs
from training.models.contract import EngagementModel, ModelOutput
from training.models.frames import normalise
from training.models.resnet import ResNet, load_weights
from training.models.tcn import TemporalConvNet
from training.settings import Settings

__all__ = ["FrameResNet", "ResNetTcn"]


class FrameResNet(Settings):
    """The frame encoder: ResNet-18 by default. weights: "none", a file, or hf://timm/resnet18.tv_in1k for ImageNet's."""

    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(default=(64, 128, 256, 512), min_length=1, max_length=6)
    blocks: int = Field(default=2, ge=1, le=16)
    weights: str = "none"

    def build(self) -> ResNet:
        resnet = ResNet(self.widths, self.blocks)
        if self.weights != "none":
            load_weights(resnet, self.weights)
        return resnet


class ResNetTcnSettings(FrameResNet):
    """As published: 8 levels, 128 hidden units, kernel 7, dropout 0.25."""

    name: Literal["resnet_tcn"] = "resnet_tcn"
    levels: int = Field(default=8, ge=1, le=12)
    hidden: int = Field(default=128, ge=1, le=8192)
    kernel: int = Field(default=7, ge=1, le=255)
    dropout: float = Field(default=0.25, ge=0, lt=1)


class ResNetTcn(EngagementModel):
    """ResNet+TCN (Abedi and Khan 2021, section III). The hidden state of the LAST step goes to one linear layer.

    Published input is 50 frames of 224x224; any T, H and W of at least 32 run. The ResNet is trained too.
    """

    settings_type: ClassVar[type[Settings]] = ResNetTcnSettings
    pretrained: ClassVar[tuple[str, ...]] = ("resnet",)

    def __init__(self, settings: ResNetTcnSettings, num_levels: int) -> None:
        super().__init__(settings, num_levels)
        self.resnet = settings.build()
        self.tcn = TemporalConvNet(self.resnet.num_features, settings.hidden, settings.levels, settings.kernel, settings.dropout)
        self.head = nn.Linear(settings.hidden, num_levels)

    @property
    def places(self) -> nn.Module:
        return self.resnet.last_stage

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        features_BTF = frame_features(self.resnet, inputs.frames_BTCHW)
        hidden_BEL = self.tcn(features_BTF.transpose(1, 2), inputs.draw_keys_B)
        embedding_BE = hidden_BEL[:, :, -1]
        return ModelOutput(logits_BK=self.head(embedding_BE), embedding_BE=embedding_BE)


def frame_features(resnet: ResNet, frames_BTCHW: Tensor) -> Tensor:
    """features_BTF of every frame of every clip."""
    frames_NCHW = normalise(frames_BTCHW, resnet.conv1.weight.dtype).flatten(0, 1)
    features_NF: Tensor = resnet(frames_NCHW)
    return features_NF.view(*frames_BTCHW.shape[:2], -1)
