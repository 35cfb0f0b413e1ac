"""One pass over all pairs of clips: which look alike, and which training clip is nearest to each.

Letters: N clips with hashes, L labels, K hashed frames a clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_shards.audit.hash_distance import DistanceBlock, distance_blocks
from data_shards.audit.records import AuditedClip

__all__ = ["ClosePair", "Comparison", "compare", "conflict_of"]

_MAX_PAIRS = 200_000  # kept across splits, and as many within them, for a look at their movement; all are counted
_TRAIN = "train"


@dataclass(frozen=True)
class ClosePair:
    """Two clips, a before b in the records, whose frames look alike. distance: bits of 64."""

    a: int
    b: int
    distance: int
    mirrored: bool


@dataclass(frozen=True)
class Comparison:
    """pairs: those in two splits or of different labels, the former first, then by distance; num_pairs counts them all.

    Of each of the two kinds the first 200,000 met are kept; num_across_dropped: pairs in two splits beyond these.
    nearest: clip to the training clip nearest to it, itself excluded. nearest_stranger: the same among the clips of
    other people. Both hold clips with hashes only.
    """

    pairs: tuple[ClosePair, ...]
    num_pairs: int
    num_across_dropped: int
    nearest: dict[int, int]
    nearest_stranger: dict[int, int]


def compare(
    clips: Sequence[AuditedClip], *, max_distance: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Comparison:
    """Compare all clips that have hashes. Time grows with the square of their number, memory does not."""
    own = [(number, clip.hashes_2K) for number, clip in enumerate(clips) if clip.hashes_2K is not None]
    if len(own) < 2:
        return Comparison((), 0, 0, {}, {})
    numbers = [number for number, _ in own]
    table = _Table([clips[number] for number in numbers])
    across, within = _Pairs(), _Pairs()
    nearest, stranger = _Nearest(len(own)), _Nearest(len(own))
    for block in distance_blocks(np.stack([hashes for _, hashes in own])):
        progress(min(block.rows.stop, len(own)), len(own))
        close_NM = (block.half_NM <= max_distance) & table.is_first(block)
        across_NM = table.is_across(block)
        across.add(block, close_NM & across_NM, numbers)
        within.add(block, close_NM & ~across_NM & table.is_contradicting(block), numbers)
        for rows, columns, mean_NM in _both_ways(block):
            allowed = table.is_training[columns][None, :] & (table.numbers[rows, None] != table.numbers[None, columns])
            nearest.update(rows, columns, mean_NM, allowed)
            stranger.update(rows, columns, mean_NM, allowed & (table.people[rows, None] != table.people[None, columns]))
    progress(len(own), len(own))
    return Comparison(
        pairs=(*across.nearest_first(), *within.nearest_first()),
        num_pairs=across.num_met + within.num_met,
        num_across_dropped=across.num_met - len(across.kept),
        nearest=nearest.found(numbers),
        nearest_stranger=stranger.found(numbers),
    )


def conflict_of(a: AuditedClip, b: AuditedClip) -> str:
    """`engagement 1 and 3` for each label that both have and that differs, or nothing."""
    shared = [name for name in a.labels if min(a.labels[name], b.labels.get(name, -1)) >= 0]
    return ", ".join(f"{name} {a.labels[name]} and {b.labels[name]}" for name in shared if a.labels[name] != b.labels[name])


class _Table:
    """The clips' columns as arrays, for whole blocks at once."""

    def __init__(self, clips: Sequence[AuditedClip]) -> None:
        label_names = sorted({name for clip in clips for name in clip.labels})
        self.numbers = np.arange(len(clips))
        self.people = np.unique([clip.subject for clip in clips], return_inverse=True)[1]
        self.splits = np.unique([clip.split for clip in clips], return_inverse=True)[1]
        self.is_training = np.array([clip.split == _TRAIN for clip in clips])
        self.labels_LN = np.array([[clip.labels.get(name, -1) for clip in clips] for name in label_names], dtype=np.int16)

    def is_first(self, block: DistanceBlock) -> npt.NDArray[np.bool_]:
        """first_NM: each pair of two clips once."""
        first: npt.NDArray[np.bool_] = self.numbers[block.rows, None] < self.numbers[None, block.columns]
        return first

    def is_across(self, block: DistanceBlock) -> npt.NDArray[np.bool_]:
        """across_NM: pairs of two splits."""
        across: npt.NDArray[np.bool_] = self.splits[block.rows, None] != self.splits[None, block.columns]
        return across

    def is_contradicting(self, block: DistanceBlock) -> npt.NDArray[np.bool_]:
        """contradicting_NM: pairs of which a label that both have differs."""
        contradicting = np.zeros(block.half_NM.shape, dtype=np.bool_)
        for levels_N in self.labels_LN:
            a, b = levels_N[block.rows, None], levels_N[None, block.columns]
            contradicting |= (a != b) & (np.minimum(a, b) >= 0)
        return contradicting


class _Pairs:
    """Pairs of one kind: the first _MAX_PAIRS met are kept, all are counted."""

    def __init__(self) -> None:
        self.kept: list[ClosePair] = []
        self.num_met = 0

    def add(self, block: DistanceBlock, chosen_NM: npt.NDArray[np.bool_], numbers: Sequence[int]) -> None:
        met = np.argwhere(chosen_NM)
        self.num_met += len(met)
        for i, j in met[: _MAX_PAIRS - len(self.kept)].tolist():
            a, b = numbers[block.rows.start + i], numbers[block.columns.start + j]
            self.kept.append(ClosePair(a, b, int(block.half_NM[i, j]), bool(block.mirrored_NM[i, j])))

    def nearest_first(self) -> list[ClosePair]:
        return sorted(self.kept, key=lambda pair: (pair.distance, pair.a, pair.b))


class _Nearest:
    """The nearest clip found so far for each clip; of equally near ones the first."""

    def __init__(self, num_clips: int) -> None:
        self._distance_N = np.full(num_clips, np.inf, dtype=np.float32)
        self._clip_N = np.full(num_clips, -1)

    def update(self, rows: slice, columns: slice, mean_NM: npt.NDArray[np.float32], allowed_NM: npt.NDArray[np.bool_]) -> None:
        distance_NM = np.where(allowed_NM, mean_NM, np.float32(np.inf))
        at = distance_NM.argmin(axis=1)
        least = distance_NM[np.arange(len(at)), at]
        better = least < self._distance_N[rows]
        self._distance_N[rows] = np.where(better, least, self._distance_N[rows])
        self._clip_N[rows] = np.where(better, columns.start + at, self._clip_N[rows])

    def found(self, numbers: Sequence[int]) -> dict[int, int]:
        return {number: numbers[at] for number, at in zip(numbers, self._clip_N.tolist(), strict=True) if at >= 0}


def _both_ways(block: DistanceBlock) -> list[tuple[slice, slice, npt.NDArray[np.float32]]]:
    ways = [(block.rows, block.columns, block.mean_NM)]
    return ways if block.rows == block.columns else [*ways, (block.columns, block.rows, block.mean_NM.T)]
