"""Pictures of a run for MLflow's page: the confusion matrix, and the curves of what was learned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.bundle import BundleRecord
from training.metrics import Evaluation

__all__ = ["Curve", "draw_confusion", "draw_curves"]

Curve = Sequence[tuple[int, float]]  # (step, value)


def draw_confusion(path: Path, evaluation: Evaluation, record: BundleRecord) -> None:
    """The confusion matrix as a PNG: counts and row shares, named by the bundle's level names."""
    from matplotlib.figure import Figure

    counts = evaluation.confusion
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    shares = [[n / max(1, sum(row)) for n in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, f"{count}\n{shares[i][j]:.0%}", ha="center", va="center", color=colour)
    names = record.level_names
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted level")
    axes.set_ylabel("true level")
    axes.set_title(f"{_whose(record)} {evaluation.split}: {evaluation.num_samples} clips")
    _save(figure, path)


def draw_curves(path: Path, curves: Mapping[str, Curve], record: BundleRecord) -> None:
    """The learning curves as a PNG: the loss of each step, and by epoch the training loss and what validation said."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    losses, figures = figure.subplots(1, 2)
    _plot(losses, "loss of a step", curves.get("loss", ()), colour="tab:blue", alpha=0.4)
    _plot(losses, "mean of an epoch", curves.get("train_loss", ()), colour="tab:orange", marker="o")
    losses.set_ylabel("training loss")
    for name, colour in (("balanced_accuracy", "tab:blue"), ("accuracy", "tab:green"), ("macro_f1", "tab:purple")):
        _plot(figures, name.replace("_", " "), curves.get(f"validation_{name}", ()), colour=colour, marker="o")
    _plot(figures, "majority class", curves.get("validation_majority_accuracy", ()), colour="tab:grey", linestyle="--")
    figures.set_ylabel("validation")
    figures.set_ylim(0, 1)
    for axes in (losses, figures):
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend(fontsize="small")
    figure.suptitle(f"{_whose(record)} {record.run_id}")
    _save(figure, path)


def _plot(axes: Any, name: str, curve: Curve, *, colour: str, **style: Any) -> None:
    if curve:
        axes.plot([step for step, _ in curve], [value for _, value in curve], label=name, color=colour, **style)


def _whose(record: BundleRecord) -> str:
    return "simulated" if record.simulated else record.dataset


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=100)
