"""The losses. To add one: one file with a class that has `settings_type`, and one line here; the contract tests find it."""

from training.losses.contract import EngagementLoss, TrainingLevels
from training.losses.cross_entropy import CrossEntropy, WeightedCrossEntropy

__all__ = ["LOSSES", "EngagementLoss", "TrainingLevels"]

LOSSES: dict[str, type[EngagementLoss]] = {
    "cross_entropy": CrossEntropy,
    "weighted_cross_entropy": WeightedCrossEntropy,
}
