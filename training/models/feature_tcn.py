"""A TCN on a sequence of features that were computed from a clip beforehand, such as OpenFace's statistics of its segments.

Letters: B clips, S segments, F features a segment, K levels, E hidden units.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from data_shards.errors import ConfigError
from data_shards.reading.loader import ClipInputs
from training.models.chunk_statistics import real_steps
from training.models.contract import EngagementModel, ModelOutput
from training.models.row_norm import RowNorm
from training.models.tcn import TemporalConvNet
from training.settings import Settings

__all__ = ["FeatureTcn", "FeatureTcnSettings"]


class FeatureTcnSettings(Settings):
    """feature: its name in the shards; width: its F. Small by default: feature sets have hundreds of clips, not thousands."""

    name: Literal["feature_tcn"] = "feature_tcn"
    feature: str = "openface_15"
    width: int = Field(default=60, ge=1, le=65536)
    levels: int = Field(default=3, ge=1, le=12)
    hidden: int = Field(default=32, ge=1, le=8192)
    kernel: int = Field(default=3, ge=1, le=255)
    dropout: float = Field(default=0.25, ge=0, lt=1)


class FeatureTcn(EngagementModel):
    """Features (B, S, F) through a dilated TCN; the mean over time of its hidden states goes to one linear layer.

    OpenFace's columns differ by six orders of magnitude, so each is compressed to sign(x) log(1 + |x|) and normalised by
    batch statistics, whose running values are the training set's at evaluation. A segment that holds a NaN keeps its place and
    is 0 after that, the mean; padding behind a shorter clip enters no statistic and no mean over time.
    """

    settings_type: ClassVar[type[Settings]] = FeatureTcnSettings

    @staticmethod
    def inputs_of(settings: FeatureTcnSettings) -> tuple[str, ...]:
        return (settings.feature,)

    def __init__(self, settings: FeatureTcnSettings, num_levels: int) -> None:
        super().__init__(settings, num_levels)
        self.width = settings.width
        self.norm = RowNorm(settings.width)
        self.tcn = TemporalConvNet(settings.width, settings.hidden, settings.levels, settings.kernel, settings.dropout)
        self.head = nn.Linear(settings.hidden, num_levels)

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        features_BSF = inputs.features[self.inputs[0]]
        if features_BSF.dim() != 3 or features_BSF.shape[2] != self.width:
            shape = "x".join(map(str, features_BSF.shape[1:]))
            raise ConfigError(
                f"'{self.inputs[0]}' is {shape} a clip in the data, and model.width is {self.width}; set model.width to fit"
            )
        features_BSF = features_BSF.to(self.head.weight.dtype)
        num_segments = features_BSF.shape[1]
        lengths_B = inputs.lengths.get(self.inputs[0])
        if lengths_B is None:
            lengths_B = torch.full((len(features_BSF),), num_segments, device=features_BSF.device)
        compressed_BSF = features_BSF.sign() * torch.log1p(features_BSF.abs())
        normal_BSF = self.norm(compressed_BSF, real_steps(features_BSF, lengths_B))
        hidden_BES = self.tcn(normal_BSF.transpose(1, 2), inputs.draw_keys_B)
        own_B1S = (torch.arange(num_segments, device=lengths_B.device) < lengths_B.unsqueeze(1)).unsqueeze(1)
        embedding_BE = hidden_BES.masked_fill(~own_B1S, 0).sum(dim=2) / lengths_B.clamp(min=1).unsqueeze(1)
        return ModelOutput(logits_BK=self.head(embedding_BE), embedding_BE=embedding_BE)
