"""A split of a set of features, whole in memory: EngageWild's take a few megabytes.

Letters: N clips, M clips taken, S segments, F values, K levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from data_shards.errors import DataError
from data_shards.features import Floats
from data_shards.reading.reader import ShardSet, Target
from data_shards.storage.shard_cache import CacheSettings

__all__ = ["Features", "SplitArrays", "Values", "read_split"]

Features = Mapping[str, Floats]  # name to float32 (N, S, F), of the same clips in the same order
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SplitArrays:
    """Labelled clips. levels_N int64 in [0, K); value_of_level: each level's official value in [0, 1]."""

    features: Features
    levels_N: npt.NDArray[np.int64]
    value_of_level: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.levels_N)

    @property
    def values(self) -> Values:
        """What is to be predicted, in [0, 1]."""
        return np.asarray(self.value_of_level, dtype=np.float64)[self.levels_N]

    def take(self, rows_M: npt.NDArray[np.int64]) -> Self:
        """These clips alone, in this order."""
        features = {name: values[rows_M] for name, values in self.features.items()}
        return type(self)(features, self.levels_N[rows_M], self.value_of_level)


def read_split(
    uri: str | Path, split: str, *, label: str, value_of_level: tuple[float, ...], cache: CacheSettings | None = None
) -> SplitArrays:
    """All features of a split's clips. DataError where clips differ in the length of one, ConfigError on an unknown split."""
    with ShardSet(uri, splits=(split,), target=Target(label), cache_settings=cache) as shards:
        names = tuple(shards.manifest.features)
        samples = [shards.read(number, names) for number in range(len(shards))]
        levels_N = shards.view.levels_N
    features = {}
    for name in names:
        shapes = {sample.features[name].shape for sample in samples}
        if len(shapes) > 1:
            raise DataError(f"{uri}: '{name}' is of {len(shapes)} shapes; this table needs as many segments of every clip")
        features[name] = np.stack([sample.features[name] for sample in samples])
    return SplitArrays(features, levels_N, value_of_level)
