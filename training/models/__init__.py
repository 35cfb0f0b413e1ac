"""The models. To add one: one file with a class that has `settings_type`, and one line here; the contract tests find it."""

from training.models.contract import EngagementModel, ModelOutput
from training.models.feature_tcn import FeatureTcn
from training.models.mocorank import MocoRank
from training.models.resnet_mean import ResNetMean
from training.models.resnet_tcn import ResNetTcn

__all__ = ["MODELS", "EngagementModel", "ModelOutput"]

MODELS: dict[str, type[EngagementModel]] = {
    "resnet_tcn": ResNetTcn,
    "resnet_mean": ResNetMean,
    "feature_tcn": FeatureTcn,
    "mocorank": MocoRank,
}
