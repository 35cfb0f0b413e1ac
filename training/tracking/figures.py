"""An evaluation as the named figures that MLflow holds of it."""

from training.bundle import BundleRecord
from training.metrics import Evaluation

__all__ = ["figures_of", "final_figures"]


def figures_of(evaluation: Evaluation, prefix: str = "") -> dict[str, float]:
    """PREFIX_FIGURE to value; the prefix is the split's name where none is given."""
    prefix = prefix or evaluation.split
    ours = evaluation.metrics.model_dump()
    recalls = ours.pop("per_class_recall")
    values = {f"{prefix}_{name}": value for name, value in ours.items()}
    values |= {f"{prefix}_recall_{level}": recall for level, recall in enumerate(recalls) if recall is not None}
    values[f"{prefix}_majority_accuracy"] = evaluation.majority_baseline.accuracy
    for name in ("accuracy", "balanced_accuracy"):
        interval = getattr(evaluation, f"{name}_interval")
        values |= {f"{prefix}_{name}_low": interval.low, f"{prefix}_{name}_high": interval.high}
    return values


def final_figures(record: BundleRecord) -> dict[str, float]:
    """What a bundle was found to be worth: on validation with the best epoch's weights, and on test."""
    values = figures_of(record.validation, "best_validation") if record.validation else {}
    return values | (figures_of(record.test) if record.test else {})
