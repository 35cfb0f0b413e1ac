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

_MAX_PAIRS = 200_000  # kept for a look at their movement; all are counted
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

    nearest: clip to the training clip nearest to it, itself excluded. nearest_stranger: the same among the clips of
    other people. Both hold clips with hashes only.
    """

    pairs: tuple[ClosePair, ...]
    num_pairs: int
    nearest: dict[int, int]
    nearest_stranger: dict[int, int]


def compare(
    clips: Sequence[AuditedClip], *, max_distance: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Comparison:
    """Compare all clips that have hashes. Time grows with the square of their number, memory does not."""
    own = [(number, clip.hashes_2K) for number, clip in enumerate(clips) if clip.hashes_2K is not None]
    if len(own) < 2:
        return Comparison((), 0, {}, {})
    chosen = [clips[number] for number, _ in own]
    table = _Table(chosen)
    pairs: list[ClosePair] = []
    num_pairs = 0
    nearest, stranger = _Nearest(len(own)), _Nearest(len(own))
    for block in distance_blocks(np.stack([hashes for _, hashes in own])):
        progress(min(block.rows.stop, len(own)), len(own))
        close = np.argwhere((block.half_NM <= max_distance) & table.is_telling(block))
        num_pairs += len(close)
        for i, j in close[: max(0, _MAX_PAIRS - len(pairs))].tolist():
            a, b = own[block.rows.start + i][0], own[block.columns.start + j][0]
            pairs.append(ClosePair(a, b, int(block.half_NM[i, j]), bool(block.mirrored_NM[i, j])))
        for rows, columns, mean_NM in _both_ways(block):
            allowed = table.is_training[columns][None, :] & (table.numbers[rows, None] != table.numbers[None, columns])
            nearest.update(rows, columns, mean_NM, allowed)
            stranger.update(rows, columns, mean_NM, allowed & (table.people[rows, None] != table.people[None, columns]))
    progress(len(own), len(own))
    pairs.sort(key=lambda pair: (clips[pair.a].split == clips[pair.b].split, pair.distance, pair.a, pair.b))
    numbers = [number for number, _ in own]
    return Comparison(tuple(pairs), num_pairs, nearest.found(numbers), stranger.found(numbers))


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

    def is_telling(self, block: DistanceBlock) -> npt.NDArray[np.bool_]:
        """telling_NM: pairs that matter where they look alike, each once: of two splits, or of different labels."""
        rows, columns = block.rows, block.columns
        telling = self.splits[rows, None] != self.splits[None, columns]
        for levels_N in self.labels_LN:
            a, b = levels_N[rows, None], levels_N[None, columns]
            telling |= (a != b) & (np.minimum(a, b) >= 0)
        once: npt.NDArray[np.bool_] = telling & (self.numbers[rows, None] < self.numbers[None, columns])
        return once


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
