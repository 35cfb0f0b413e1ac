"""Label views: another way to look at a dataset's levels. (Comes whole with a merge.)"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_shards.errors import ConfigError

__all__ = ["LABEL_VIEWS", "LabelView", "view_labels"]


class LabelView(NamedTuple):
    level_names: tuple[str, ...]
    levels_N: npt.NDArray[np.int64]
    scores_K: npt.NDArray[np.float64]


def _levels(label: str, names: Mapping[str, tuple[str, ...]], levels: Mapping[str, npt.NDArray[np.int64]]) -> LabelView:
    return LabelView(names[label], levels[label], np.linspace(-1, 1, len(names[label])))


LABEL_VIEWS: dict[str, Callable[..., LabelView]] = {"levels": _levels}


def view_labels(
    view: str, label: str, label_names: Mapping[str, tuple[str, ...]], levels: Mapping[str, npt.NDArray[np.int64]]
) -> LabelView:
    if label not in label_names:
        raise ConfigError(f"no label '{label}' (there are: {', '.join(label_names)}); set data.label to one")
    return LABEL_VIEWS[view](label, label_names, levels)
