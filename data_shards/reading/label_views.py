"""Label views: which question a training run asks of the labels that shards hold. Pure functions on level arrays.

Letters: N clips, K levels of the view.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_shards.errors import ConfigError
from data_shards.listing import NO_LEVEL

__all__ = ["LABEL_VIEWS", "LabelView", "infers_emotion", "view_labels"]

Levels = npt.NDArray[np.int64]
LabelNames = Mapping[str, tuple[str, ...]]

_AFFECTS = ("boredom", "confusion", "engagement", "frustration")


class LabelView(NamedTuple):
    """levels_N in [0, K), or NO_LEVEL where the clip is left out; scores_K in [-1, 1]: each level's engagement."""

    level_names: tuple[str, ...]
    levels_N: Levels
    scores_K: npt.NDArray[np.float64]


def infers_emotion(label: str, view: str) -> bool:
    """Whether a model of this label and view names an emotion: boredom, confusion, frustration, or `bored` as a class.

    The EU AI Act, Art. 5(1)(f), bans that in education outside medical and safety use.
    """
    return view == "three_class" or (label in _AFFECTS and label != "engagement")


def view_labels(view: str, label: str, label_names: LabelNames, levels: Mapping[str, Levels]) -> LabelView:
    """The labels of N clips as `view` sees them; `label` is what is asked about, engagement or another affect.

    label_names: label to the names of its levels, lowest first; levels: label to N levels, or NO_LEVEL. ConfigError on an
    unknown view or label, and where a view cannot apply to these data.
    """
    if view not in LABEL_VIEWS:
        raise ConfigError(f"no label view named '{view}'; there are: {', '.join(LABEL_VIEWS)}")
    if label not in label_names or label not in levels:
        raise ConfigError(f"no label named '{label}' in these data; there are: {', '.join(label_names)}")
    return LABEL_VIEWS[view](label, label_names, levels)


def _own_levels(label: str, label_names: LabelNames, levels: Mapping[str, Levels]) -> LabelView:
    """The label's own levels, evenly spread over [-1, 1]."""
    names = label_names[label]
    return LabelView(names, levels[label], np.linspace(-1.0, 1.0, len(names)))


def _binary(label: str, label_names: LabelNames, levels: Mapping[str, Levels]) -> LabelView:
    """Levels 0 and 1 against 2 and 3 of a four-level label (the protocol of Zhang et al.)."""
    _require_four_levels("binary", label, label_names)
    names = ("not engaged", "engaged") if label == "engagement" else ("low", "high")
    levels_N = np.where(levels[label] == NO_LEVEL, NO_LEVEL, levels[label] // 2)
    return LabelView(names, levels_N, np.array([-1.0, 1.0]))


def _three_class(label: str, label_names: LabelNames, levels: Mapping[str, Levels]) -> LabelView:
    """Bored, engaged or other, from DAiSEE's four affects (the student project of 2025-26): the highest affect wins.

    Confusion and frustration are other. A two-way tie is resolved by the binary label of engagement, and clips where three
    or four affects tie are dropped: NO_LEVEL. Ties are of affects, not of classes, so boredom = confusion = frustration is
    three-way, and so is a clip where all four are 0 four-way.

    [choice] The source does not say how a binary label decides between two affects. Here affects have an order, boredom
    below confusion and frustration below engagement; a clip that is engaged (engagement 2 or 3) takes the upper one of the
    tied two, another the lower one. So engagement = boredom is engaged from level 2 and bored at level 1, engagement =
    confusion engaged or other likewise, boredom = confusion is bored unless the clip is engaged besides (then other), and
    confusion = frustration is other in any case. [choice] A clip that lacks the level of any affect is dropped.
    """
    if label != "engagement":
        raise ConfigError(f"the label view three_class is of engagement, not of {label}; set the label to engagement")
    missing = [affect for affect in _AFFECTS if affect not in label_names or affect not in levels]
    if missing:
        raise ConfigError(f"the label view three_class needs DAiSEE's four affects, these data lack {', '.join(missing)}")
    for affect in _AFFECTS:
        _require_four_levels("three_class", affect, label_names)
    other, bored, engaged = 0, 1, 2
    by_affect = {"boredom": bored, "confusion": other, "frustration": other, "engagement": engaged}
    order = ("boredom", "confusion", "frustration", "engagement")  # the lowest and the highest of those that tie
    levels_AN = np.stack([levels[affect] for affect in order])
    classes_A = np.array([by_affect[affect] for affect in order])
    wins_AN = levels_AN == levels_AN.max(axis=0)
    lower_N = classes_A[wins_AN.argmax(axis=0)]
    upper_N = classes_A[len(order) - 1 - wins_AN[::-1].argmax(axis=0)]
    classes_N = np.where(levels["engagement"] >= 2, upper_N, lower_N)
    dropped_N = (wins_AN.sum(axis=0) > 2) | (levels_AN == NO_LEVEL).any(axis=0)
    return LabelView(
        ("other", "bored", "engaged"), np.where(dropped_N, NO_LEVEL, classes_N).astype(np.int64), np.array([-1.0, -1.0, 1.0])
    )


def _require_four_levels(view: str, label: str, label_names: LabelNames) -> None:
    if len(label_names[label]) != 4:
        raise ConfigError(
            f"the label view {view} is of four levels, {label} has {len(label_names[label])}; use the view levels for it"
        )


LABEL_VIEWS: dict[str, Callable[[str, LabelNames, Mapping[str, Levels]], LabelView]] = {
    "levels": _own_levels,
    "binary": _binary,
    "three_class": _three_class,
}
