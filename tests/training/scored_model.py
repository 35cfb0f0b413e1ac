"""A small model with a score, for tests of losses: a feature TCN whose head is a cosine. It is in no registry by itself."""

import os
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from data_shards.reading.loader import ClipInputs
from tests.training.test_loop import _worker
from training.models import MODELS, ModelOutput
from training.models.feature_tcn import FeatureTcn, FeatureTcnSettings
from training.settings import Settings


class ScoredTcnSettings(FeatureTcnSettings):
    """batch_norm False: nothing of a clip depends on its microbatch."""

    name: Literal["scored_tcn"] = "scored_tcn"  # type: ignore[assignment]
    batch_norm: bool = True


class ScoredTcn(FeatureTcn):
    settings_type: ClassVar[type[Settings]] = ScoredTcnSettings
    reads_directions = True

    def __init__(self, settings: ScoredTcnSettings, num_levels: int) -> None:
        super().__init__(settings, num_levels)
        self.head = nn.Linear(settings.hidden, 1, bias=False)
        if not settings.batch_norm:
            self.norm.norm = nn.Identity()
        self.register_buffer("places_K", torch.linspace(-0.75, 0.75, num_levels), persistent=False)

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        embedding_BE = super().forward(inputs).embedding_BE
        scores_B = F.normalize(embedding_BE, dim=1) @ F.normalize(self.head.weight[0], dim=0)
        return ModelOutput(-8 * (scores_B.unsqueeze(1) - self.places_K) ** 2, embedding_BE, scores_B)


def scored_worker(*arguments: object) -> None:
    """A DDP worker of test_loop that knows this model."""
    MODELS["scored_tcn"] = ScoredTcn
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _worker(*arguments)  # type: ignore[arg-type]
