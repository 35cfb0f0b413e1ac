"""The losses. To add one: one file with a class that has `settings_type`, and one line here; the contract tests find it."""

from training.losses.contract import EngagementLoss, TrainingLevels
from training.losses.cross_entropy import CrossEntropy, WeightedCrossEntropy
from training.losses.imbalance import ClassBalancedFocal, LabelDistributionMargin
from training.losses.mean_squared import MeanSquared, MeanSquaredRank, MeanSquaredTriplet
from training.losses.mocorank import MocoRank

__all__ = ["LOSSES", "EngagementLoss", "TrainingLevels"]

LOSSES: dict[str, type[EngagementLoss]] = {
    "cross_entropy": CrossEntropy,
    "weighted_cross_entropy": WeightedCrossEntropy,
    "cb_focal": ClassBalancedFocal,
    "ldam": LabelDistributionMargin,
    "mse": MeanSquared,
    "mse_rank": MeanSquaredRank,
    "mse_triplet": MeanSquaredTriplet,
    "mocorank": MocoRank,
}
