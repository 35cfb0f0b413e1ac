"""Which clips of a set are shown: spread over splits, levels and people, the same on every call."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from data_shards.manifest import Manifest

__all__ = ["pick_clips"]

_CANDIDATES_A_CLIP = 4  # of which those are shown that are of different people


def pick_clips(
    manifest: Manifest,
    *,
    splits: Sequence[str],
    label: str,
    level: int | None,
    num_clips: int,
    subjects: Sequence[str],
) -> list[int]:
    """Numbers in ShardSet(splits=splits): in turn a clip of each split and level of `label`, and there of each person.

    level: clips of this level alone. subjects: who is in each clip. The choice is among a few times num_clips candidates,
    which lie evenly over each split and level.
    """
    cells: dict[tuple[str, int], list[int]] = defaultdict(list)
    levels = ((entry.split, found) for entry in manifest.shards if entry.split in splits for found in entry.labels[label])
    for number, (split, found) in enumerate(levels):
        if level is None or found == level:
            cells[split, found].append(number)
    if not cells:
        return []
    most = -(-_CANDIDATES_A_CLIP * num_clips // len(cells))
    by_person = [_in_turn_by_person(_evenly(numbers, most), subjects) for _, numbers in sorted(cells.items())]
    return list(_in_turn(by_person))[:num_clips]


def _evenly(numbers: Sequence[int], most: int) -> list[int]:
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[(2 * place + 1) * len(numbers) // (2 * most)] for place in range(most)]


def _in_turn_by_person(numbers: Iterable[int], subjects: Sequence[str]) -> list[int]:
    people: dict[str, list[int]] = defaultdict(list)
    for number in numbers:
        people[subjects[number]].append(number)
    return list(_in_turn(list(people.values())))


def _in_turn(groups: Sequence[Sequence[int]]) -> Iterator[int]:
    """The first of each group, then the second of each, and so on."""
    for turn in zip_longest(*groups):
        yield from (number for number in turn if number is not None)
