"""Splits by person instead of the published ones: nobody is in two of them.

Letters: S splits, K levels (the last for clips without one).
"""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from data_shards.hashing import seed_of
from data_shards.listing import SPLITS, Listing

__all__ = ["split_by_person"]


def split_by_person(listing: Listing, *, seed: int) -> Listing:
    """The same clips in splits that share no subject, of about the published shares of clips, stratified by level.

    Greedy: people in order of their number of clips (in powers of two, those alike in an order drawn from the seed), each
    into the split where the counts of levels then stray least from the split's share (chi-square). Every published split
    gets a person where there are enough. A pure function of the listing and the seed.
    """
    published = Counter(clip.split for clip in listing.clips)
    splits = [split for split in SPLITS if published[split]]
    counts = _level_counts(listing)
    total_K = sum(counts.values(), start=np.zeros(1))
    shares_S = np.array([published[split] for split in splits]) / max(1, len(listing.clips))
    wanted_SK = np.outer(shares_S, total_K)
    held_SK = np.zeros_like(wanted_SK)
    empty = set(range(len(splits)))
    split_of: dict[str, str] = {}
    people = sorted(counts, key=lambda subject: (-int(counts[subject].sum()).bit_length(), _draw(seed, subject)))
    for number, subject in enumerate(people):
        strays_S = _strays(held_SK + counts[subject], wanted_SK) - _strays(held_SK, wanted_SK)
        must_fill = len(people) - number <= len(empty)
        chosen = min(empty if must_fill else range(len(splits)), key=lambda s: (strays_S[s], s))
        held_SK[chosen] += counts[subject]
        empty.discard(chosen)
        split_of[subject] = splits[chosen]
    clips = tuple(replace(clip, split=split_of[clip.subject]) for clip in listing.clips)
    return replace(listing, clips=clips, notice=_notice(listing, num_people=len(people), seed=seed))


def _level_counts(listing: Listing) -> dict[str, npt.NDArray[np.float64]]:
    """Subject to how many clips of each level of the first label there are, those without a level last."""
    label, names = next(iter(listing.label_names.items()))
    counts: dict[str, npt.NDArray[np.float64]] = {}
    for clip in listing.clips:
        level = clip.labels.get(label, len(names))
        counts.setdefault(clip.subject, np.zeros(len(names) + 1))[level] += 1  # NO_LEVEL is -1: the last place
    return counts


def _strays(held_SK: npt.NDArray[np.float64], wanted_SK: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Chi-square distance of each split's counts from what it should hold; a level that nobody has counts nothing."""
    squares_SK: npt.NDArray[np.float64] = (held_SK - wanted_SK) ** 2 / np.where(wanted_SK > 0, wanted_SK, 1.0)
    return np.asarray(squares_SK.sum(axis=1), dtype=np.float64)


def _draw(seed: int, subject: str) -> int:
    """A number for a subject, another for every seed."""
    word = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big", signed=True)
    return seed_of(seed, word)


def _notice(listing: Listing, *, num_people: int, seed: int) -> str:
    drawn = f"splits drawn by person with seed {seed}, not the published ones: no figure compares with a published one"
    if num_people == len(listing.clips):
        return f"{drawn}; nobody is known to be in two clips, so each counts as a person of its own"
    return drawn
