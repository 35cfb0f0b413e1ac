"""Many clips that look alike, or are the same: no leak is lost among them, and all are counted without being listed."""

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from data_shards.audit import Finding, audit_shards
from data_shards.audit.duplicates import duplicate_findings
from data_shards.audit.pairs import compare
from data_shards.audit.records import AuditedClip
from data_shards.audit.report import AuditSettings
from data_shards.browse import write_contact_sheet
from data_shards.manifest import Manifest

Shards = tuple[Path, Manifest]


def alike(number: int, split: str, *, level: int = 0, bits: int = 0, source_sha256: str = "") -> AuditedClip:
    return AuditedClip(
        clip_id=str(number),
        subject=str(number),
        session="",
        split=split,
        labels={"engagement": level},
        source_sha256=source_sha256,
        hashes_2K=np.full((2, 1), bits, dtype=np.uint64),
    )


def test_pairs_within_a_split_do_not_crowd_out_those_across(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_shards.audit.pairs._MAX_PAIRS", 50)
    crowd = [alike(number, "train", level=number % 2) for number in range(40)]
    leak = [alike(40, "train", bits=2**40 - 1), alike(41, "test", bits=2**40 - 1)]
    comparison = compare([*crowd, *leak], max_distance=0)
    assert comparison.num_pairs == 20 * 20 + 1
    assert [(pair.a, pair.b) for pair in comparison.pairs[:2]] == [(40, 41), (0, 1)]
    assert (len(comparison.pairs), comparison.num_across_dropped) == (51, 0)


def test_more_leaks_than_can_be_looked_at_are_a_leak(simulated_shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_shards.audit.pairs._MAX_PAIRS", 5)
    audit = audit_shards(simulated_shards[0], settings=AuditSettings(max_distance=32, max_compared=0))
    found = {finding.kind: finding for finding in audit.findings}
    counts = [split.num_samples for split in simulated_shards[1].splits.values()]
    across = (sum(counts) ** 2 - sum(count**2 for count in counts)) // 2
    assert found["same_scene"].count == 5
    assert found["too_many_alike"].severity == "leak"
    assert 5 < found["too_many_alike"].count + 5 <= across


def exact(clips: list[AuditedClip]) -> dict[str, Finding]:
    return {finding.kind: finding for finding in duplicate_findings(clips, [], min_agreement=0.6)}


def test_pairs_of_the_same_content_are_those_counted_one_by_one() -> None:
    splits = ("train", "train", "test", "train", "validation", "test", "test")
    clips = [alike(n, split, level=n % 3 - 1, source_sha256="xy"[n % 5 == 4]) for n, split in enumerate(splits)]
    pairs = [(a, b) for a in clips for b in clips if int(a.clip_id) < int(b.clip_id) and a.source_sha256 == b.source_sha256]
    across = [(a, b) for a, b in pairs if a.split != b.split]
    conflicts = [(a, b) for a, b in pairs if -1 < a.labels["engagement"] != b.labels["engagement"] > -1]
    found = exact(clips)
    for kind, expected in {
        "exact_duplicate_across_splits": across,
        "exact_duplicate": [pair for pair in pairs if pair not in across],
        "label_conflict": conflicts,
    }.items():
        named = {tuple(sorted(name.split("/")[1] for name in e.split(":")[0].split(" and "))) for e in found[kind].examples}
        assert named == {(a.clip_id, b.clip_id) for a, b in expected}
        assert found[kind].count == len(expected)
    assert "the same, byte for byte" in found["exact_duplicate"].sentence  # features are no file


def test_many_copies_take_no_memory_to_count() -> None:
    clips = [alike(number, "train", level=number % 2, source_sha256="x") for number in range(3000)]
    tracemalloc.start()
    found = exact(clips)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["exact_duplicate"].count == 3000 * 2999 // 2
    assert found["label_conflict"].count == 1500 * 1500
    assert found["label_conflict"].examples[0] == "train/0 and train/1: engagement 0 and 1"
    assert (len(found["exact_duplicate"].examples), len(found["label_conflict"].examples)) == (20, 20)
    assert peak < 2_000_000


def test_no_shard_stays_open_after_a_report(simulated_shards: Shards, tmp_path: Path) -> None:
    gc.collect()
    gc.disable()  # which would hide what was left open
    try:
        audit_shards(simulated_shards[0])
        write_contact_sheet(simulated_shards[0], tmp_path / "sheet.html")
        assert str(simulated_shards[0]) not in Path("/proc/self/maps").read_text()
    finally:
        gc.enable()
