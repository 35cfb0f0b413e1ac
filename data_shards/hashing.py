"""A counter-based random source: mix64 of (seed, counter) is the draw, so no process holds a state to lose.

The mixing function is splitmix64's finaliser (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators"). Unlike numpy's permutation, its values are part of Rapt's contract and never change with a version.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["mix64", "seed_of"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MUL_1 = np.uint64(0xBF58476D1CE4E5B9)
_MUL_2 = np.uint64(0x94D049BB133111EB)


def mix64(seed: int | npt.NDArray[np.uint64], counters_N: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit words, one a counter: a pure function of (seed, counter). Several seeds are broadcast against them."""
    seeds = seed if isinstance(seed, np.ndarray) else np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        z = seeds + (counters_N.astype(np.uint64) + np.uint64(1)) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * _MUL_1
        z = (z ^ (z >> np.uint64(27))) * _MUL_2
        return z ^ (z >> np.uint64(31))


def seed_of(*words: int) -> int:
    """One seed from several words (run seed, epoch, stream, ...), each of them mattering."""
    seed = 0
    for word in words:
        seed = int(mix64(seed, np.array([word], dtype=np.int64))[0])
    return seed
