"""The audit as a whole: every check over one set, as one record."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from pydantic import ConfigDict, Field, computed_field

from data_shards.audit.ceiling import IdentityCeiling, identity_ceiling
from data_shards.audit.duplicates import JudgedPair, duplicate_findings, judge_pairs
from data_shards.audit.faces import clips_without_face, face_detector
from data_shards.audit.findings import Finding, finding
from data_shards.audit.histograms import LabelHistogram, histograms, missing_classes
from data_shards.audit.motion import Movement, motion_agreement, movement_of
from data_shards.audit.pairs import ClosePair, Comparison, compare
from data_shards.audit.records import AuditedClip, clips_of_listing, clips_of_shards
from data_shards.audit.splits import shared_sessions, shared_subjects, unnamed_people
from data_shards.listing import Listing, Reject
from data_shards.manifest import SIMULATED_NOTICE, read_manifest
from data_shards.reading.reader import ShardSet
from data_shards.rejects import RejectGroup, group_rejects, read_rejects
from data_shards.schema import Stored
from data_shards.storage.shard_cache import CacheSettings

__all__ = ["Audit", "AuditSettings", "audit_listing", "audit_shards"]

Progress = Callable[[str], Callable[[int, int], None]]  # a stage's name to progress(done, total)


class AuditSettings(Stored):
    """frames_per_clip: hashed frames, spread evenly. max_distance: bits of 64 by which half of a clip's frames may
    differ to be of one scene. min_agreement: correlation of movement from which a pair is one recording.
    max_compared: pairs whose movement is compared, the most alike first.

    Measured with 12 of 50 frames on ten real and 160 simulated clips. Distance: copies that were re-encoded (H.264, crf
    28 and 40), halved, trimmed to 80 %, shifted by a third and by half, or mirrored lie 0 to 4 apart, all 70; another
    moment of one sitting 0 to 2 where a person sits still in the picture, 8 and more where the picture changes; other real
    people 20 and more, in the same room too; other drawn people 6 and more, all 49,920 pairs of the demo's 320 clips (12 of
    32 frames). Agreement: copies of clips in which somebody moves 0.67 to 1.0; other moments at most 0.43 on the real clips,
    and 0.6 or more for 1 % of 309 simulated pairs; copies of three clips in which a person hardly moves 0.13 to 0.50: nothing
    tells these from another moment, so they are reported as one scene.
    """

    frames_per_clip: int = Field(default=12, ge=1, le=64)
    max_distance: int = Field(default=4, ge=0, le=32)
    min_agreement: float = Field(default=0.6, gt=0.0, le=1.0)
    max_compared: int = Field(default=2000, ge=0)


class Audit(Stored):
    """What was found in one set. checks: each check to "checked", or to why it was not made; splits: split to clips.

    label_entries: entries of the label files that fit no clip, or clips without one: kind to count.
    ceilings: label to how much of it identity alone predicts. digest: of the shards' manifest, "" for labels alone.
    """

    model_config = ConfigDict(extra="ignore")  # num_leaks is written, but follows from the findings when it is read

    dataset: str
    source: str
    digest: str
    simulated: bool
    notice: str
    num_clips: int
    splits: dict[str, int]
    checks: dict[str, str]
    findings: tuple[Finding, ...]
    histograms: dict[str, LabelHistogram]
    ceilings: dict[str, IdentityCeiling]
    label_entries: dict[str, int]
    settings: AuditSettings

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """Findings of severity leak."""
        return tuple(found for found in self.findings if found.severity == "leak")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def num_leaks(self) -> int:
        """How many they are."""
        return len(self.leaks)


def audit_listing(listing: Listing, *, source: str, mismatches: Sequence[Reject] = ()) -> Audit:
    """Audit labels alone: no video is opened. mismatches: entries that the label files disagree about, beside the rejects."""
    clips = clips_of_listing(listing)
    left_out, in_doubt = group_rejects(listing.rejects), group_rejects(mismatches)
    classes = histograms(clips, listing.label_names)
    return Audit(
        dataset=listing.dataset,
        source=source,
        digest="",
        simulated=listing.simulated,
        notice=SIMULATED_NOTICE if listing.simulated else listing.notice,
        num_clips=len(clips),
        splits=dict(Counter(clip.split for clip in clips)),
        checks={**_label_checks(clips), **dict.fromkeys(("duplicate files", "frame hashes", "faces"), _LABELS_ALONE)},
        findings=(
            *_label_findings(clips, classes),
            *_entry_findings("left out", left_out),
            *_entry_findings("label files disagree", in_doubt),
        ),
        histograms=classes,
        ceilings={label: identity_ceiling(clips, label, None) for label in listing.label_names},
        label_entries={group.kind: len(group.rejects) for group in (*left_out, *in_doubt)},
        settings=AuditSettings(),
    )


def audit_shards(
    uri: str | Path,
    *,
    settings: AuditSettings | None = None,
    face_model: Path | None = None,
    cache_settings: CacheSettings | None = None,
    progress: Progress = lambda stage: lambda done, total: None,
) -> Audit:
    """Audit a set of shards, a folder or s3://bucket/prefix.

    face_model: MediaPipe's Face Landmarker; without it only stored face presence is known. cache_settings: where shards
    of a bucket are kept while they are read.
    """
    settings = settings or AuditSettings()
    manifest = read_manifest(uri)
    with closing(ShardSet(uri, splits=tuple(manifest.splits), manifest=manifest, cache_settings=cache_settings)) as shards:
        with face_detector(face_model) as has_face:
            clips = clips_of_shards(
                shards, frames_per_clip=settings.frames_per_clip, has_face=has_face, progress=progress("read clips")
            )
        comparison = compare(clips, max_distance=settings.max_distance, progress=progress("compare frames"))
        judged = judge_pairs(
            clips,
            comparison.pairs,
            _agreement_of(shards, clips),
            max_compared=settings.max_compared,
            progress=progress("compare movement"),
        )
    left_out = group_rejects(read_rejects(uri))
    classes = histograms(clips, manifest.label_names)
    return Audit(
        dataset=manifest.dataset,
        source=str(uri),
        digest=manifest.digest,
        simulated=manifest.simulated,
        notice=manifest.notice,
        num_clips=len(clips),
        splits=dict(Counter(clip.split for clip in clips)),
        checks={
            **_label_checks(clips),
            "duplicate files": "checked",
            **_frame_checks(clips, comparison, judged),
            "faces": _face_check(clips),
        },
        findings=(
            *_label_findings(clips, classes),
            *duplicate_findings(clips, judged, min_agreement=settings.min_agreement),
            *_dropped_pairs(comparison),
            *clips_without_face(clips),
            *_entry_findings("left out", left_out),
        ),
        histograms=classes,
        ceilings={label: identity_ceiling(clips, label, comparison) for label in manifest.label_names},
        label_entries={group.kind: len(group.rejects) for group in left_out},
        settings=settings,
    )


_LABELS_ALONE = "not checked: labels alone, no video was opened"


def _label_checks(clips: Sequence[AuditedClip]) -> dict[str, str]:
    """What labels alone can tell: whether people are shared only where somebody is in two clips at all."""
    known = len({clip.subject for clip in clips}) < len(clips) or len(clips) == 1
    people = "checked" if known else "not checked: every clip counts as a person of its own"
    sessions = "checked" if any(clip.session for clip in clips) else "not checked: no session is named"
    return {"people in two splits": people, "sessions in two splits": sessions, "classes": "checked", "label entries": "checked"}


def _label_findings(clips: Sequence[AuditedClip], classes: Mapping[str, LabelHistogram]) -> list[Finding]:
    return [*shared_subjects(clips), *shared_sessions(clips), *unnamed_people(clips), *missing_classes(classes)]


def _entry_findings(what: str, entries: Sequence[RejectGroup]) -> list[Finding]:
    """One finding for each kind of entry that is no clip."""
    return [
        found
        for group in entries
        for found in finding("label_entry", "warning", f"{what}, {group.kind}", [entry.clip_id for entry in group.rejects])
    ]


def _dropped_pairs(comparison: Comparison) -> list[Finding]:
    """A finding where so many clips look alike that not all of what may leak is named."""
    sentence = "pairs of clips in two splits that look alike, too many to be looked at one by one"
    return finding("too_many_alike", "leak", sentence, (), count=comparison.num_across_dropped)


def _frame_checks(clips: Sequence[AuditedClip], comparison: Comparison, judged: Sequence[JudgedPair]) -> dict[str, str]:
    """How far frames could be compared: of how many clips, and how many pairs were left unjudged."""
    without = sum(not clip.has_frames for clip in clips)
    flat = sum(clip.has_frames and clip.hashes_2K is None for clip in clips)
    unjudged = sum(found.agreement is None for found in judged) + comparison.num_pairs - len(comparison.pairs)
    missing = [f"{without} clips have no frames"] * (without > 0) + [f"{flat} clips are of one tone"] * (flat > 0)
    if without + flat == len(clips):
        return dict.fromkeys(("frame hashes", "movement"), f"not checked: {', '.join(missing)}")
    left = [f"{unjudged:,} pairs that look alike were not compared, or have too few frames"] * (unjudged > 0)
    return {"frame hashes": _state(missing), "movement": _state(left)}


def _state(gaps: Sequence[str]) -> str:
    return f"checked in part: {', '.join(gaps)}" if gaps else "checked"


def _face_check(clips: Sequence[AuditedClip]) -> str:
    unseen = sum(clip.has_face is None for clip in clips)
    if not unseen:
        return "checked"
    if unseen == len(clips):
        return "not checked: no face model was named (--face-model), and the set does not say where faces are"
    return f"checked in part: {unseen} clips were not looked at"


def _agreement_of(shards: ShardSet, clips: Sequence[AuditedClip]) -> Callable[[ClosePair], float | None]:
    @lru_cache(maxsize=256)  # 50 frames of 32 x 32 as float32 are 200 kB
    def movement(number: int, mirrored: bool) -> Movement:
        sample = shards.read(clips[number].number)
        return movement_of(sample.decode_frames(), sample.meta.frame_times_s, mirrored=mirrored)

    return lambda pair: motion_agreement(movement(pair.a, False), movement(pair.b, pair.mirrored))
