"""Clips that are there twice: byte for byte, as a copy that was worked on, or as another moment of one sitting."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from math import comb

from data_shards.audit.findings import Finding, finding
from data_shards.audit.pairs import ClosePair, conflict_of
from data_shards.audit.records import AuditedClip

__all__ = ["JudgedPair", "duplicate_findings", "judge_pairs"]

Agreement = Callable[[ClosePair], float | None]


@dataclass(frozen=True)
class JudgedPair:
    """A pair that looks alike, and how well its movements agree, in [-1, 1]; None where it is not known."""

    pair: ClosePair
    agreement: float | None


def judge_pairs(
    clips: Sequence[AuditedClip],
    pairs: Sequence[ClosePair],
    agreement: Agreement,
    *,
    max_compared: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[JudgedPair]:
    """Compare the movements of the first `max_compared` pairs. Pairs that are the same file need no judging."""
    kept = [
        pair for pair in pairs if not clips[pair.a].source_sha256 or clips[pair.a].source_sha256 != clips[pair.b].source_sha256
    ]
    compared = min(len(kept), max_compared)
    judged = []
    for number, pair in enumerate(kept):
        if number < compared:
            progress(number, compared)
        judged.append(JudgedPair(pair, agreement(pair) if number < compared else None))
    progress(compared, compared)
    return judged


def duplicate_findings(clips: Sequence[AuditedClip], judged: Sequence[JudgedPair], *, min_agreement: float) -> list[Finding]:
    """Exact duplicates anywhere, copies and shared sittings across splits, and copies whose labels contradict each other."""
    same = _grouped(clips, range(len(clips)), lambda clip: clip.source_sha256)
    by_split = [_grouped(clips, group, lambda clip: clip.split) for group in same]
    across = [two for groups in by_split for two in combinations(groups, 2)]
    within = [group for groups in by_split for group in groups]
    apart = [found for found in judged if clips[found.pair.a].split != clips[found.pair.b].split]
    copies = {found for found in judged if found.agreement is not None and found.agreement >= min_agreement}
    near, scenes = [found for found in apart if found in copies], [found for found in apart if found not in copies]
    conflicts = [
        (first, second)
        for first, second in chain(
            *(combinations(_grouped(clips, group, lambda clip: str(sorted(clip.labels.items()))), 2) for group in same),
            (([found.pair.a], [found.pair.b]) for found in judged if found in copies),
        )
        if conflict_of(clips[first[0]], clips[second[0]])
    ]
    return [
        *finding(
            "exact_duplicate_across_splits",
            "leak",
            "pairs of clips in two splits that are the same, byte for byte",
            (_names(clips, a, b) for two in across for a, b in product(*two)),
            count=_num_pairs(across),
        ),
        *finding(
            "exact_duplicate",
            "warning",
            "pairs of clips within a split that are the same, byte for byte",
            (_names(clips, a, b) for group in within for a, b in combinations(group, 2)),
            count=sum(comb(len(group), 2) for group in within),
        ),
        *finding(
            "near_duplicate",
            "leak",
            "pairs of clips in two splits that are one recording (re-encoded, trimmed, shifted in time or mirrored)",
            (_described(clips, found) for found in near),
            count=len(near),
        ),
        *finding(
            "same_scene",
            "leak",
            "pairs of clips in two splits that show one person in one place (another moment, or a copy in which hardly "
            "anything moves)",
            (_described(clips, found) for found in scenes),
            count=len(scenes),
        ),
        *finding(
            "label_conflict",
            "warning",
            "pairs of copies whose labels contradict each other",
            (f"{_names(clips, a, b)}: {conflict_of(clips[a], clips[b])}" for two in conflicts for a, b in product(*two)),
            count=_num_pairs(conflicts),
        ),
    ]


def _grouped(clips: Sequence[AuditedClip], numbers: Iterable[int], key: Callable[[AuditedClip], str]) -> list[list[int]]:
    """The clips with the same key; those with an empty one are in no group."""
    groups = defaultdict(list)
    for number in numbers:
        if own := key(clips[number]):
            groups[own].append(number)
    return list(groups.values())


def _num_pairs(crossed: Iterable[tuple[Sequence[int], Sequence[int]]]) -> int:
    """How many pairs there are of one clip of the first group and one of the second."""
    return sum(len(first) * len(second) for first, second in crossed)


def _names(clips: Sequence[AuditedClip], a: int, b: int) -> str:
    return f"{clips[a].split}/{clips[a].clip_id} and {clips[b].split}/{clips[b].clip_id}"


def _described(clips: Sequence[AuditedClip], found: JudgedPair) -> str:
    pair = found.pair
    moved = "movement not compared" if found.agreement is None else f"movement agrees {found.agreement:.2f}"
    return f"{_names(clips, pair.a, pair.b)}: {pair.distance} of 64 bits apart{', mirrored' * pair.mirrored}, {moved}"
