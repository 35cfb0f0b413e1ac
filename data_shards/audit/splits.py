"""People and sittings in more than one split: a model would be tested on whom it was trained on."""

from collections.abc import Callable, Sequence

from data_shards.audit.findings import Finding, finding
from data_shards.audit.records import AuditedClip

__all__ = ["shared_sessions", "shared_subjects", "unnamed_people"]


def shared_subjects(clips: Sequence[AuditedClip]) -> list[Finding]:
    """A finding where a person has clips in more than one split."""
    cases = _shared(clips, lambda clip: clip.subject)
    return finding("subject_in_two_splits", "leak", "people with clips in more than one split", cases)


def shared_sessions(clips: Sequence[AuditedClip]) -> list[Finding]:
    """A finding where a sitting has clips in more than one split, whoever is in it.

    A session's name holds for the whole set: sittings that are numbered anew for each person need the person in their
    name (ann/1), or they are taken for one.
    """
    cases = _shared(clips, lambda clip: clip.session)
    return finding("session_in_two_splits", "leak", "recording sessions with clips in more than one split", cases)


def unnamed_people(clips: Sequence[AuditedClip]) -> list[Finding]:
    """A finding where clips do not say who is in them: nobody can then tell whether the splits share people."""
    cases = [clip.clip_id for clip in clips if not clip.subject]
    return finding("no_subject", "warning", "clips that do not say who is in them", cases)


def _shared(clips: Sequence[AuditedClip], key: Callable[[AuditedClip], str]) -> list[str]:
    counts: dict[str, dict[str, int]] = {}
    for clip in clips:
        if name := key(clip):
            in_splits = counts.setdefault(name, {})
            in_splits[clip.split] = in_splits.get(clip.split, 0) + 1
    return [
        f"{name}: " + ", ".join(f"{number} in {split}" for split, number in in_splits.items())
        for name, in_splits in sorted(counts.items())
        if len(in_splits) > 1
    ]
