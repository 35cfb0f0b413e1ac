"""Distances between clips by their frames' hashes, all pairs in blocks: memory is bounded by the block, not by the set.

Letters: N and M clips, K hashed frames a clip.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DistanceBlock", "clip_distances", "distance_blocks"]

_BLOCK = 256  # measured: 128 and 512 are slower
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class DistanceBlock:
    """Distances of the clips `rows` from the clips `columns`, in bits of 64.

    half_NM: half of one clip's frames lie at least as near to a frame of the other; mean_NM: the mean over both clips'
    frames. Each is the smaller of the clips as they are and one of them mirrored; mirrored_NM says where half_NM is the
    mirror image's. Every pair of the set is in one block; a diagonal block holds its pairs twice, and each clip with itself.
    """

    rows: slice
    columns: slice
    half_NM: npt.NDArray[np.uint8]
    mean_NM: npt.NDArray[np.float32]
    mirrored_NM: npt.NDArray[np.bool_]


def distance_blocks(hashes_N2K: Hashes) -> Iterator[DistanceBlock]:
    """All pairs of N clips, block by block above the diagonal."""
    for first in range(0, len(hashes_N2K), _BLOCK):
        for second in range(first, len(hashes_N2K), _BLOCK):
            rows, columns = slice(first, first + _BLOCK), slice(second, second + _BLOCK)
            a_NK, b_M2K = hashes_N2K[rows, 0], hashes_N2K[columns]
            half, mean = clip_distances(a_NK, b_M2K[:, 0])
            half_mirrored, mean_mirrored = clip_distances(a_NK, b_M2K[:, 1])
            yield DistanceBlock(
                rows, columns, np.minimum(half, half_mirrored), np.minimum(mean, mean_mirrored), half_mirrored < half
            )


def clip_distances(a_NK: Hashes, b_MK: Hashes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """(half_NM, mean_NM) of two groups of clips: each frame against the nearest frame of the other clip.

    The nearest at any time, not the frame of the same time: a trimmed or shifted copy holds the same frames elsewhere.
    """
    num_frames = a_NK.shape[1]
    shape = (num_frames, len(a_NK), len(b_MK))
    to_b, to_a = np.full(shape, 64, dtype=np.uint8), np.full(shape, 64, dtype=np.uint8)
    for i in range(num_frames):
        for j in range(num_frames):
            bits_NM = np.bitwise_count(a_NK[:, i, None] ^ b_MK[None, :, j])
            np.minimum(to_b[i], bits_NM, out=to_b[i])
            np.minimum(to_a[j], bits_NM, out=to_a[j])
    mean_NM = (to_b.sum(axis=0, dtype=np.uint16) + to_a.sum(axis=0, dtype=np.uint16)).astype(np.float32) / (2 * num_frames)
    middle = (num_frames - 1) // 2
    to_b.partition(middle, axis=0)
    to_a.partition(middle, axis=0)
    return np.minimum(to_b[middle], to_a[middle]), mean_NM
