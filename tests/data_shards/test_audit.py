"""The audit finds each planted leak, finds nothing in a clean set, and says of DAiSEE's labels what is known of them."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from cluster.command_line import rapt
from data_shards.audit import Audit, AuditSettings, Finding, audit_listing, audit_shards
from data_shards.audit.ceiling import identity_ceiling
from data_shards.audit.frame_hash import frame_hashes
from data_shards.audit.hash_distance import clip_distances
from data_shards.audit.motion import motion_agreement, movement_of
from data_shards.audit.pairs import compare
from data_shards.audit.records import AuditedClip
from data_shards.building.build import build_shards
from data_shards.datasets import DATASETS
from data_shards.datasets.daisee_labels import list_labels
from data_shards.errors import ConfigError, DataError
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing, Reject
from data_shards.manifest import Manifest
from data_shards.preprocess import PreprocessConfig
from data_shards.rejects import group_rejects
from data_shards.simulation import SimulationSettings
from data_shards.simulation.behaviour import simulate_behaviour
from data_shards.simulation.cohort import clip_rng, person_rng, plan_cohort
from data_shards.simulation.person import draw_person
from data_shards.simulation.render import Portrait
from data_shards.storage.source import Source

Frames = list[npt.NDArray[np.uint8]]
PREPROCESS = PreprocessConfig(num_frames=30, size_px=64)


def listing_of(*rows: tuple[str, str, str, str, int]) -> Listing:
    """A listing of (clip, subject, session, split, level) without files."""
    clips = [
        ListedClip(clip_id=clip, subject=subject, session=session, split=split, labels={"engagement": level})
        for clip, subject, session, split, level in rows
    ]
    return Listing(dataset="folder", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=tuple(clips))


CLEAN = [
    (f"{split}{level}", f"{split}-person", f"{split}-day", split, level) for split in ("train", "test") for level in range(4)
]


def found_in(audit: Audit) -> dict[str, Finding]:
    return {finding.kind: finding for finding in audit.findings}


def test_clean_labels_have_no_finding() -> None:
    assert audit_listing(listing_of(*CLEAN), source="x").findings == ()


def test_a_person_in_two_splits_is_found() -> None:
    (finding,) = audit_listing(listing_of(*CLEAN, ("a", "train-person", "", "test", 1)), source="x").findings
    assert (finding.kind, finding.severity, finding.count) == ("subject_in_two_splits", "leak", 1)
    assert finding.examples == ("train-person: 4 in train, 1 in test",)


def test_a_session_in_two_splits_is_found() -> None:
    (finding,) = audit_listing(listing_of(*CLEAN, ("a", "stranger", "train-day", "test", 1)), source="x").findings
    assert (finding.kind, finding.severity) == ("session_in_two_splits", "leak")
    assert finding.examples == ("train-day: 4 in train, 1 in test",)


def test_a_class_that_a_split_lacks_is_found() -> None:
    (finding,) = audit_listing(listing_of(*CLEAN[:-1]), source="x").findings
    assert (finding.kind, finding.severity) == ("missing_class", "warning")
    assert finding.examples == ("test: no clip of engagement 3 (very high), train has some",)


def test_a_level_that_is_not_labelled_is_no_class() -> None:
    audit = audit_listing(listing_of(*CLEAN, ("a", "train-person", "train-day", "train", -1)), source="x")
    assert audit.findings == ()
    assert audit.histograms["engagement"].splits["train"].not_labelled == 1
    assert audit.histograms["engagement"].splits["train"].levels == (1, 1, 1, 1)


def test_clips_of_nobody_are_found() -> None:
    (finding,) = audit_listing(listing_of(*CLEAN, ("a", "", "", "test", 1)), source="x").findings
    assert (finding.kind, finding.examples) == ("no_subject", ("a",))


def test_examples_are_bounded_and_counted() -> None:
    rows = [(f"c{number}", f"p{number % 30}", "", ("train", "test")[number // 30], number % 4) for number in range(60)]
    finding = found_in(audit_listing(listing_of(*rows), source="x"))["subject_in_two_splits"]
    assert (finding.count, len(finding.examples)) == (30, 20)


def test_braces_in_a_reason_are_text() -> None:
    reject = Reject(clip_id="{x}", source="{y}", reason="{0} {count}; mend it")
    audit = audit_listing(replace(listing_of(*CLEAN), rejects=(reject,)), source="x")
    assert found_in(audit)["label_entry"].sentence == "left out, {N} {count}: 1"


def test_rejects_are_grouped_by_what_was_wrong() -> None:
    rejects = [
        Reject(clip_id="a.mp4", source="x/a.mp4", reason="a.mp4: damaged, cannot be decoded (EOF at 7); re-encode it"),
        Reject(clip_id="b.mp4", source="x/b.mp4", reason="b.mp4: damaged, cannot be decoded (no moov); re-encode it"),
        Reject(clip_id="c.mp4", source="c.mp4", reason="c.mp4: 0 frames where 1 to 1500000 can be used"),
        Reject(clip_id="d", source="d.avi", reason="clip d: labelled in TrainLabels.csv, but not below DataSet/Train"),
        Reject(clip_id="e", source="e", reason="e"),
        Reject(clip_id="f", source="f", reason="x/labels.csv line 7: the clip 'f' stands here a second time; keep one"),
    ]
    groups = {group.kind: [reject.clip_id for reject in group.rejects] for group in group_rejects(rejects)}
    assert groups == {
        "damaged, cannot be decoded": ["a.mp4", "b.mp4"],
        "N frames where N to N can be used": ["c.mp4"],
        "labelled in TrainLabels.csv, but not below DataSet/Train": ["d"],
        "no reason given": ["e"],
        "the clip stands here a second time": ["f"],
    }


# DAiSEE's official label files


def test_daisees_labels_say_what_is_known_of_them(real_data: Path) -> None:
    labels = list_labels(Source(real_data / "labels"))
    audit = audit_listing(labels.listing, source="labels", mismatches=labels.mismatches)
    engagement = audit.histograms["engagement"].splits
    assert {split: counts.levels for split, counts in engagement.items()} == {
        "train": (34, 213, 2617, 2494),
        "validation": (23, 143, 813, 450),
        "test": (4, 84, 882, 814),
    }
    assert [len(counts.subjects) for counts in engagement.values()] == [69, 19, 21]
    assert audit.label_entries == {
        "in AllLabels.csv, but in no split's file": 415,
        "in TestLabels.csv, but not in AllLabels.csv": 61,
    }
    assert {finding.kind for finding in audit.findings} == {"label_entry"}
    assert audit.num_leaks == 0
    assert audit.checks["frame hashes"] == "not checked: labels alone, no video was opened"
    ceiling = audit.ceilings["engagement"]
    assert ceiling.held_out_person is None
    assert ceiling.train_majority.accuracy == pytest.approx(2617 / 5358, abs=1e-4)


@pytest.mark.parametrize("place", [".", "Labels", "a/b"])
def test_daisees_labels_are_found_where_people_put_them(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in {"Train": "1100011002.avi", "Validation": "4000221001.avi", "Test": "5000441001.mp4"}.items():
        (folder / f"{name}Labels.csv").write_text(f"ClipID,Boredom,Engagement,Confusion,Frustration \n{ids},0,2,0,0\n")
    (folder / "AllLabels.csv").write_text(
        "ClipID,Boredom,Engagement,Confusion,Frustration \n1100011002.avi,0,3,0,0\n4000221001.avi,0,2,0,0\n9,0,2,0,0\n"
    )
    labels = list_labels(Source(tmp_path))
    assert [(c.clip_id, c.subject, c.session, c.split) for c in labels.listing.clips] == [
        ("1100011002", "110001", "1100011", "train"),
        ("4000221001", "400022", "4000221", "validation"),
        ("5000441001", "500044", "5000441", "test"),
    ]
    assert {mismatch.clip_id: mismatch.reason for mismatch in labels.mismatches} == {
        "9": "in AllLabels.csv, but in no split's file",
        "1100011002": "labels in TrainLabels.csv differ from those in AllLabels.csv",
        "5000441001": "in TestLabels.csv, but not in AllLabels.csv",
    }


def test_a_folder_without_daisees_labels_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").touch()
    with pytest.raises(DataError, match=r"no TrainLabels\.csv there or below"):
        list_labels(Source(tmp_path))


# frames


def test_distances_are_those_of_the_naive_loop() -> None:
    rng = np.random.default_rng(0)
    a_NK, b_MK = (rng.integers(0, 2**63, (count, 5), dtype=np.uint64) for count in (3, 4))
    half_NM, mean_NM = clip_distances(a_NK, b_MK)
    for n, a in enumerate(a_NK.tolist()):
        for m, b in enumerate(b_MK.tolist()):
            bits = np.array([[(x ^ y).bit_count() for y in b] for x in a])
            to_b, to_a = np.sort(bits.min(axis=1)), np.sort(bits.min(axis=0))
            assert half_NM[n, m] == min(to_b[2], to_a[2])
            assert mean_NM[n, m] == pytest.approx((to_b.sum() + to_a.sum()) / 10)


def test_neighbours_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    mirror = np.array([[0], [rng.integers(0, 2**63)]], dtype=np.uint64)  # bits that a mirror image would turn
    clips = [
        AuditedClip(
            clip_id=str(number),
            subject=str(number % 7),
            session="",
            split=("train", "test")[number % 3 == 0],
            labels={"engagement": number % 4},
            hashes_2K=rng.integers(0, 2**63, 3, dtype=np.uint64) ^ mirror if number % 5 else None,
        )
        for number in range(40)
    ]
    whole = compare(clips, max_distance=26)
    monkeypatch.setattr("data_shards.audit.hash_distance._BLOCK", 7)
    assert compare(clips, max_distance=26) == whole
    assert whole.pairs
    assert all(clips[near].split == "train" and near != number for number, near in whole.nearest.items())
    assert all(clips[near].subject != clips[number].subject for number, near in whole.nearest_stranger.items())


def test_what_shows_nothing_has_no_hash() -> None:
    assert frame_hashes(np.full((4, 64, 64, 3), 9, dtype=np.uint8)) is None


def wandering_square(num_frames: int, *, seed: int) -> npt.NDArray[np.uint8]:
    """A square on a random walk over a grey ground."""
    steps_T2 = np.random.default_rng(seed).integers(-6, 7, (num_frames, 2))
    frames_THWC = np.full((num_frames, 64, 64, 3), 90, dtype=np.uint8)
    for frame_HWC, (top, left) in zip(frames_THWC, 24 + np.abs((np.cumsum(steps_T2, axis=0) + 24) % 96 - 48) - 24, strict=True):
        frame_HWC[top : top + 16, left : left + 16] = 200
    return frames_THWC


def test_movement_agrees_at_the_right_shift_and_not_with_another_moment() -> None:
    times_s = np.arange(60) / 10
    recording_THWC = wandering_square(75, seed=0)
    clip = movement_of(recording_THWC[:60], times_s)
    later = movement_of(recording_THWC[15:], times_s)
    mirrored = movement_of(recording_THWC[:60, :, ::-1], times_s, mirrored=True)
    other = movement_of(wandering_square(60, seed=1), times_s)
    assert motion_agreement(clip, later) > 0.95
    assert motion_agreement(clip, mirrored) > 0.99
    assert motion_agreement(clip, other) < 0.5
    assert motion_agreement(clip, movement_of(recording_THWC[:7], times_s[:7])) is None
    still = movement_of(np.full((9, 64, 64, 3), 7, dtype=np.uint8), times_s[:9])
    assert motion_agreement(still, still) == 0.0


def test_the_ceiling_is_what_a_person_counts_by_hand() -> None:
    near = np.zeros((2, 1), dtype=np.uint64)
    rows = [
        ("ann", "train", 0, 0),
        ("ann", "train", 0, 1),
        ("bob", "train", 3, 255),
        ("bob", "train", 3, 127),
        ("ann", "test", 0, 3),
    ]
    rows += [("eve", "test", 3, 65535), ("bob", "train", -1, 255)]
    rows += [("cid", "train", 0, 0xFFFF0000), ("cid", "train", 3, 0xFFFF0001)]
    clips = [
        AuditedClip(clip_id=str(n), subject=who, session="", split=split, labels={"x": level}, hashes_2K=near + np.uint64(bits))
        for n, (who, split, level, bits) in enumerate(rows)
    ]
    ceiling = identity_ceiling(clips, "x", compare(clips, max_distance=0))
    assert (ceiling.held_out_majority.accuracy, ceiling.held_out_majority.num_clips) == (0.5, 2)
    assert (ceiling.held_out_person.accuracy, ceiling.held_out_person.num_clips) == (1.0, 1)
    assert ceiling.held_out_nearest.accuracy == 1.0
    assert ceiling.train_majority.accuracy == 0.5
    assert ceiling.train_person.accuracy == pytest.approx(4 / 6, abs=1e-4)  # each of cid's clips is judged by the other
    assert (ceiling.train_nearest.accuracy, ceiling.train_nearest.num_clips) == (0.6, 5)  # one looks most like an unlabelled clip
    assert ceiling.train_nearest_stranger.accuracy == pytest.approx(1 / 6, abs=1e-4)
    assert identity_ceiling(clips, "x", None).held_out_nearest is None


# planted leaks, in shards of simulated clips


def frames_of(path: Path) -> Frames:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def write_clip(path: Path, frames: Frames, *, crf: int) -> None:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=6, options={"crf": str(crf)})
        video.height, video.width, video.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 6)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))


COPIES: dict[str, Callable[[Frames], Frames]] = {
    "re-encoded": lambda frames: frames,
    "trimmed": lambda frames: frames[6:54],
    "shifted": lambda frames: frames[15:],
    "mirrored": lambda frames: [frame[:, ::-1] for frame in frames],
}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def shards_of(folder: Path, rows: list[dict[str, str]], out: Path) -> Path:
    with (folder / "labels.csv").open("w") as file:
        writer = csv.DictWriter(file, fieldnames=["clip", "label", "subject", "split", "session"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    build_shards(DATASETS["folder"](Source(folder)), out, preprocess=PREPROCESS, num_workers=2)
    return out


@pytest.fixture(scope="module")
def clean_shards(simulated_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clean") / "shards"
    build_shards(DATASETS["simulated"](Source(simulated_folder)), out, preprocess=PREPROCESS, num_workers=2)
    return out


@pytest.fixture(scope="module")
def planted(simulated_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """All simulated clips, with a copy of each kind of another training clip in the test split, under other names."""
    folder = tmp_path_factory.mktemp("planted")
    shutil.copytree(simulated_folder / "clips", folder / "clips")
    rows = rows_of(simulated_folder)
    training = [row for row in rows if row["split"] == "train"]
    for row, (name, change) in zip(training, COPIES.items(), strict=False):
        write_clip(folder / f"{name}.mp4", change(frames_of(folder / row["clip"])), crf=30)
        rows.append({**row, "clip": f"{name}.mp4", "subject": f"copy-{name}", "split": "test"})
    first, second = training[-1], training[-2]
    shutil.copy(folder / first["clip"], folder / "twice.mp4")
    rows.append({**first, "clip": "twice.mp4", "label": str(3 - int(first["label"]))})
    shutil.copy(folder / second["clip"], folder / "leaked.mp4")
    rows.append({**second, "clip": "leaked.mp4", "subject": "copy-file", "split": "validation"})
    return audit_shards(shards_of(folder, rows, folder.parent / "planted-shards"))


def test_a_clean_set_has_no_finding(clean_shards: Path) -> None:
    audit = audit_shards(clean_shards)
    assert audit.findings == ()
    assert audit.checks["frame hashes"] == audit.checks["movement"] == "checked"
    assert audit.checks["faces"].startswith("not checked")
    assert audit.num_clips == 64
    ceiling = audit.ceilings["engagement"]
    assert ceiling.held_out_person is None
    assert ceiling.train_nearest is not None


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_in_another_split_is_found(planted: Audit, copy: str) -> None:
    examples = [e for e in found_in(planted)["near_duplicate"].examples if f"test/{copy}.mp4" in e]
    assert len(examples) == 1
    assert examples[0].startswith("train/clips/")
    assert ("mirrored, movement" in examples[0]) == (copy == "mirrored")
    assert found_in(planted)["near_duplicate"].severity == "leak"


def test_other_moments_of_copied_people_are_told_from_copies(planted: Audit) -> None:
    copies = found_in(planted)["near_duplicate"]
    assert copies.count == len(COPIES)
    assert found_in(planted)["same_scene"].count > 0


def test_the_same_file_is_found_in_a_split_and_across(planted: Audit) -> None:
    found = found_in(planted)
    assert (found["exact_duplicate"].count, found["exact_duplicate"].severity) == (1, "warning")
    assert (found["exact_duplicate_across_splits"].count, found["exact_duplicate_across_splits"].severity) == (1, "leak")
    assert "leaked.mp4" in found["exact_duplicate_across_splits"].examples[0]


def test_copies_with_other_labels_are_found(planted: Audit) -> None:
    conflict = found_in(planted)["label_conflict"]
    assert conflict.count == 1
    assert "twice.mp4" in conflict.examples[0]
    assert "engagement" in conflict.examples[0]


def test_a_near_copy_with_another_label_is_a_conflict(simulated_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(simulated_folder / "clips", tmp_path / "clips")
    rows = [row for row in rows_of(simulated_folder) if row["split"] == "train"][:6]
    write_clip(tmp_path / "copy.mp4", frames_of(tmp_path / rows[0]["clip"]), crf=30)
    rows.append({**rows[0], "clip": "copy.mp4", "label": str(3 - int(rows[0]["label"]))})
    found = found_in(audit_shards(shards_of(tmp_path, rows, tmp_path.parent / "conflict")))
    assert found["label_conflict"].count == 1
    assert "copy.mp4" in found["label_conflict"].examples[0]
    assert "near_duplicate" not in found  # both are in the training split


def test_a_clip_without_a_face_is_found(real_data: Path, tmp_path: Path) -> None:
    for name in ("no_face.mp4", "test1.avi"):
        shutil.copy(real_data / "videos" / name, tmp_path)
    rows = [
        {"clip": name, "label": "1", "subject": name, "split": "train", "session": ""} for name in ("no_face.mp4", "test1.avi")
    ]
    listing = DATASETS["folder"](Source(write_rows(tmp_path, rows)))
    listing_out = tmp_path.parent / "faces"
    build_shards(listing, listing_out, preprocess=PreprocessConfig(num_frames=8, size_px=224))
    model = real_data / "models" / "face_landmarker.task"
    audit = audit_shards(listing_out, face_model=model)
    assert found_in(audit)["no_face"].examples == ("train/no_face.mp4",)
    assert audit.checks["faces"] == "checked"
    unseen = audit_shards(listing_out)
    assert "no_face" not in found_in(unseen)
    assert unseen.checks["faces"].startswith("not checked: no face model")


def test_clips_without_frames_are_audited_by_their_labels(tmp_path: Path) -> None:
    listing = listing_of(*CLEAN, ("a", "train-person", "", "test", 1))
    clips = tuple(replace(clip, features={"gaze": np.ones((5, 3), dtype=np.float32)}) for clip in listing.clips)
    build_shards(replace(listing, clips=clips), tmp_path / "shards", preprocess=PREPROCESS)
    audit = audit_shards(tmp_path / "shards")
    assert "subject_in_two_splits" in found_in(audit)
    assert audit.checks["frame hashes"] == "not checked: 9 clips have no frames"
    assert audit.ceilings["engagement"].held_out_nearest is None


def write_rows(folder: Path, rows: list[dict[str, str]]) -> Path:
    with (folder / "labels.csv").open("w") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_real_people_in_one_room_are_not_taken_for_each_other(real_data: Path, tmp_path: Path) -> None:
    names = {"5100462069.avi": "train", "test1.avi": "test", "test2.avi": "test", "test3.avi": "validation"}
    for name in names:
        shutil.copy(real_data / "videos" / name, tmp_path)
    rows = [{"clip": n, "label": "1", "subject": n, "split": split, "session": ""} for n, split in names.items()]
    build_shards(DATASETS["folder"](Source(write_rows(tmp_path, rows))), tmp_path.parent / "rooms", preprocess=PREPROCESS)
    assert audit_shards(tmp_path.parent / "rooms").num_leaks == 0


def test_drawn_people_are_not_taken_for_each_other() -> None:
    """Two clips of each of the forty people whom `rapt demo` draws, as drawn: their audit decides on the champion."""
    settings = SimulationSettings(num_clips=320)
    plan = plan_cohort(settings)[:80]
    hashes = []
    for clip in plan:
        rng = clip_rng(settings.seed, clip.index)
        track = simulate_behaviour(clip.label, settings.duration_s, settings.fps, rng)
        person = draw_person(person_rng(settings.seed, clip.subject_index))
        portrait = Portrait(person, width_px=settings.width_px, height_px=settings.height_px, rng=rng)
        frames = [Image.fromarray(portrait.frame(track, index)) for index in range(0, track.num_frames, 15)]
        seen = frame_hashes(np.stack([np.asarray(frame.crop((40, 0, 280, 240)).resize((64, 64))) for frame in frames]))
        assert seen is not None
        hashes.append(seen)
    hashes_N2K = np.stack(hashes)
    people = np.array([clip.subject_index for clip in plan])
    strangers = people[:, None] != people[None, :]
    assert strangers.sum() == 80 * 78
    for mirrored in (0, 1):
        half_NN, _ = clip_distances(hashes_N2K[:, 0], hashes_N2K[:, mirrored])
        assert half_NN[strangers].min() > AuditSettings().max_distance


# the command


def test_the_command_prints_tables_and_json(simulated_shards: tuple[Path, Manifest]) -> None:
    folder, manifest = simulated_shards
    shown = CliRunner().invoke(rapt, ["shards", "audit", str(folder), "--strict"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "0 leaks" in shown.stdout
    assert "faces: not checked" in shown.stdout
    assert "no person was filmed" in shown.stdout
    printed = CliRunner().invoke(rapt, ["shards", "audit", str(folder), "--json"], catch_exceptions=False)
    audit = Audit.model_validate_json(printed.stdout)
    assert (audit.digest, audit.findings) == (manifest.digest, ())
    assert json.loads(printed.stdout)["ceilings"]["engagement"]["held_out_person"] is None


@pytest.mark.parametrize(
    ("rows", "shown", "sentence", "num_leaks"),
    [
        (
            ["a.mp4,1,ann,train", "b.mp4,1,ann,test"],
            "leak: people with clips in more than one split: 1",
            r"too good \(people with clips in more than one split: 1\)",
            1,
        ),
        (
            ["a.mp4,1,ann,train", "b.mp4,2,ann,train", "c.mp4,1,bob,test"],
            "warning: levels of a label that a split has no clip of: 1",
            r"not without fault \(levels of a label that a split has no clip of: 1\)",
            0,
        ),
    ],
)
def test_strict_stops_at_any_finding(tmp_path: Path, rows: list[str], shown: str, sentence: str, num_leaks: int) -> None:
    for row in rows:
        (tmp_path / row.split(",")[0]).touch()
    (tmp_path / "labels.csv").write_text("\n".join(["clip,label,subject,split", *rows]) + "\n")
    arguments = ["shards", "audit", str(tmp_path), "--dataset", "folder"]
    lax = CliRunner().invoke(rapt, arguments, catch_exceptions=False)
    assert lax.exit_code == 0
    assert shown in lax.stdout
    printed = CliRunner().invoke(rapt, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(printed.stdout)["num_leaks"] == num_leaks
    assert Audit.model_validate_json(printed.stdout).num_leaks == num_leaks
    with pytest.raises(DataError, match=sentence):
        CliRunner().invoke(rapt, [*arguments, "--strict"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (["{tmp}", "--dataset", "imagenet"], ConfigError, "no dataset named 'imagenet'"),
        (["{tmp}/none", "--dataset", "daisee"], DataError, "no file there"),
        (["{tmp}"], DataError, r"no manifest\.json"),
        (["{tmp}", "--face-model", "{tmp}/none"], ConfigError, "no such face model file"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, arguments: list[str], kind: type[Exception], sentence: str) -> None:
    words = ["shards", "audit", *(word.format(tmp=tmp_path) for word in arguments)]
    with pytest.raises(kind, match=sentence):
        CliRunner().invoke(rapt, words, catch_exceptions=False)


def test_a_model_file_that_is_none_is_one_sentence(tmp_path: Path, simulated_shards: tuple[Path, Manifest]) -> None:
    pytest.importorskip("mediapipe")
    (tmp_path / "model.task").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="not a model of MediaPipe"):
        audit_shards(simulated_shards[0], face_model=tmp_path / "model.task")
