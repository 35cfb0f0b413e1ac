"""Clips that are there twice: byte for byte, as a copy that was worked on, or as another moment of one sitting."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from data_shards.audit.findings import Finding, finding
from data_shards.audit.pairs import ClosePair, conflict_of
from data_shards.audit.records import AuditedClip

__all__ = ["JudgedPair", "duplicate_findings", "exact_pairs", "judge_pairs"]

Agreement = Callable[[ClosePair], float | None]


@dataclass(frozen=True)
class JudgedPair:
    """A pair that looks alike, and how well its movements agree, in [-1, 1]; None where it is not known."""

    pair: ClosePair
    agreement: float | None


def exact_pairs(clips: Sequence[AuditedClip]) -> list[tuple[int, int]]:
    """Clips with the same sha256 of the video file: each of a group with each other."""
    groups = defaultdict(list)
    for number, clip in enumerate(clips):
        if clip.source_sha256:
            groups[clip.source_sha256].append(number)
    return [pair for group in groups.values() for pair in combinations(group, 2)]


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


def duplicate_findings(
    clips: Sequence[AuditedClip], exact: Sequence[tuple[int, int]], judged: Sequence[JudgedPair], *, min_agreement: float
) -> list[Finding]:
    """Exact duplicates anywhere, copies and shared sittings across splits, and copies whose labels contradict each other."""
    apart = [found for found in judged if clips[found.pair.a].split != clips[found.pair.b].split]
    copies = {found for found in judged if found.agreement is not None and found.agreement >= min_agreement}
    conflicts = [(a, b, conflict) for a, b in exact if (conflict := conflict_of(clips[a], clips[b]))]
    conflicts += [
        (found.pair.a, found.pair.b, conflict)
        for found in judged
        if found in copies and (conflict := conflict_of(clips[found.pair.a], clips[found.pair.b]))
    ]
    return [
        *finding(
            "exact_duplicate_across_splits",
            "leak",
            "pairs of clips in two splits that are the same file",
            [_names(clips, a, b) for a, b in exact if clips[a].split != clips[b].split],
        ),
        *finding(
            "exact_duplicate",
            "warning",
            "pairs of clips within a split that are the same file",
            [_names(clips, a, b) for a, b in exact if clips[a].split == clips[b].split],
        ),
        *finding(
            "near_duplicate",
            "leak",
            "pairs of clips in two splits that are one recording (re-encoded, trimmed, shifted in time or mirrored)",
            [_described(clips, found) for found in apart if found in copies],
        ),
        *finding(
            "same_scene",
            "leak",
            "pairs of clips in two splits that show one person in one place (another moment, or a copy in which hardly "
            "anything moves)",
            [_described(clips, found) for found in apart if found not in copies],
        ),
        *finding(
            "label_conflict",
            "warning",
            "pairs of copies whose labels contradict each other",
            [f"{_names(clips, a, b)}: {conflict}" for a, b, conflict in conflicts],
        ),
    ]


def _names(clips: Sequence[AuditedClip], a: int, b: int) -> str:
    return f"{clips[a].split}/{clips[a].clip_id} and {clips[b].split}/{clips[b].clip_id}"


def _described(clips: Sequence[AuditedClip], found: JudgedPair) -> str:
    pair = found.pair
    moved = "movement not compared" if found.agreement is None else f"movement agrees {found.agreement:.2f}"
    return f"{_names(clips, pair.a, pair.b)}: {pair.distance} of 64 bits apart{', mirrored' * pair.mirrored}, {moved}"
