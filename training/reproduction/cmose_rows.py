"""The rows of CMOSE's tables (Wu et al. 2023): the losses of Table 2 on one backbone, and the parts of Tables 3 and 4.

A row is the recipe `cmose_short` with what `rapt train --set` would be told, so that it fits on two CPU cores.
"""

from dataclasses import dataclass

from training.ablations import ABLATIONS, ablation_stages
from training.config import RunConfig, with_settings
from training.recipes import stages
from training.reproduction.published import CMOSE_LOSSES

__all__ = ["LOSS_ROWS", "PART_ROWS", "CmoseRow"]

_RECIPE = "cmose_short"
_EVERY_CLASS = "data.sampler=class_complete"  # the paper's class sampler
# [choice] Table 2 says "own backbone" and not which last layer: losses of levels get free logits, which their formulas are
# for; losses of the score get the cosine of eq. 4, which is as bounded as their targets and margins.
_LINEAR = "model.head=linear"


@dataclass(frozen=True, kw_only=True)
class CmoseRow:
    """A row before it is run. stages: runs, each from the best weights of the one before; published: metric to figure."""

    what: str
    stages: tuple[RunConfig, ...]
    published: dict[str, float]


def _loss(name: str, what: str, *settings: str) -> CmoseRow:
    """The visual part of the recipe with another loss: Table 2 is without sound and speech."""
    visual = with_settings(stages(_RECIPE)[0], settings)
    printed = CMOSE_LOSSES.get(name)
    published = {"accuracy": printed.accuracy / 100, "balanced_accuracy": printed.average_accuracy / 100} if printed else {}
    return CmoseRow(what=what, stages=(visual,), published=published)


def _part(name: str, what: str) -> CmoseRow:
    """A row of training/ablations.py, with the recipe's own loss."""
    ablation = ABLATIONS[name]
    printed = {
        "accuracy": ablation.accuracy,
        "balanced_accuracy": ablation.average_accuracy,
        "speech_accuracy": ablation.speech_accuracy,
        "speech_balanced_accuracy": ablation.speech_average,
    }
    published = {metric: figure / 100 for metric, figure in printed.items() if figure is not None}
    return CmoseRow(what=what, stages=ablation_stages(name, _RECIPE), published=published)


LOSS_ROWS: dict[str, CmoseRow] = {
    "cross_entropy": _loss("cross_entropy", "cross entropy, class sampler", "loss.name=cross_entropy", _LINEAR, _EVERY_CLASS),
    "weighted_cross_entropy": _loss(
        "weighted_cross_entropy", "weighted cross entropy", "loss.name=weighted_cross_entropy", _LINEAR
    ),
    "mse": _loss("mse", "MSE, class sampler", "loss.name=mse", _EVERY_CLASS),
    "mse_rank": _loss("mse_rank", "MSE + rank", "loss.name=mse_rank"),
    "mse_triplet": _loss("mse_triplet", "MSE + triplet", "loss.name=mse_triplet"),
    "cross_entropy_center": _loss(
        "cross_entropy_center", "cross entropy + center", "loss.name=cross_entropy", "loss.center=0.2", _LINEAR
    ),
    "cb_focal": _loss("cb_focal", "class-balanced focal", "loss.name=cb_focal", _LINEAR),
    "ldam": _loss("ldam", "LDAM", "loss.name=ldam", _LINEAR),
    "mocorank": _loss("mocorank", "MocoRank", "loss.center=0"),
    "mocorank_center": _loss("mocorank_center", "MocoRank + center", "loss.center=0.2"),
    # no row of the paper: 0.999 belongs to 57,600 steps, and leaves the momentum encoder near its first weights in a few hundred
    "mocorank_fast": _loss("mocorank_fast", "MocoRank, momentum 0.9", "loss.center=0", "loss.momentum=0.9"),
}

PART_ROWS: dict[str, CmoseRow] = {
    "openface": _part("openface", "OpenFace alone"),
    "attention": _part("attention", "OpenFace, I3D in its attention"),
    "concat": _part("concat", "OpenFace, I3D beside it"),
    "both": _part("both", "all that is seen (both)"),
    "i3d": _part("i3d", "I3D alone"),
    "audio": _part("audio", "with sound and speech"),
}
