"""Shards: readable by other readers, the same bytes every time, whole after any kill, honest about what was left out."""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from data_shards.building.build import build_shards, plan_shards
from data_shards.building.claim import claimed
from data_shards.building.shard_writer import write_shard
from data_shards.building.verify import verify_shards
from data_shards.datasets import DATASETS
from data_shards.errors import ConfigError, DataError, ShardError
from data_shards.manifest import Manifest, index_name, read_manifest
from data_shards.reading.reader import ShardSet
from data_shards.sample import sample_key
from data_shards.storage.source import Source
from data_shards.storage.store import LocalStore, open_store
from tests.conftest import ROOT, TINY_PREPROCESS
from tests.data_shards.test_decode import write_video

Shards = tuple[Path, Manifest]


def folder_bytes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def small_dataset(simulated_folder: Path, folder: Path, *, num_clips: int = 8) -> Path:
    """The first clips of the simulated folder as a `folder` dataset of their own."""
    rows = (simulated_folder / "labels.csv").read_text().splitlines()
    for row in rows[1 : num_clips + 1]:
        source = simulated_folder / row.split(",")[0]
        target = folder / row.split(",")[0]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (folder / "labels.csv").write_text("\n".join(rows[: num_clips + 1]) + "\n")
    return folder


def build(source: Path, out: Path, **options: object) -> Manifest:
    return build_shards(DATASETS["folder"](Source(source)), out, preprocess=TINY_PREPROCESS, **options)  # type: ignore[arg-type]


def test_webdataset_reads_the_shards_as_any_others(simulated_shards: Shards) -> None:
    folder, manifest = simulated_shards
    urls = [str(folder / entry.name) for entry in manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    ours = ShardSet(folder, splits=("train", "validation", "test"))
    assert len(samples) == len(ours) == 64
    for number, sample in enumerate(samples):
        meta = json.loads(sample["json"])
        mine = ours.read(number)
        assert meta["clip_id"] == mine.meta.clip_id
        begin, end = meta["jpeg_offsets"][2:4]
        frame = np.asarray(Image.open(io.BytesIO(sample["frames.mjpeg"][begin:end])))
        assert np.array_equal(frame, mine.decode_frames()[2])


def test_tar_reads_the_shards(simulated_shards: Shards) -> None:
    folder, manifest = simulated_shards
    listed = subprocess.run(["tar", "-tvf", folder / manifest.shards[0].name], capture_output=True, text=True, check=True)
    lines = listed.stdout.splitlines()
    assert len(lines) == 2 * manifest.shards[0].num_samples
    assert all("rapt/rapt" in line and "1970-01-01" in line for line in lines)


def test_the_same_clips_give_the_same_bytes_however_many_workers(simulated_folder: Path, tmp_path: Path) -> None:
    source = small_dataset(simulated_folder, tmp_path / "clips")
    build(source, tmp_path / "one", clips_per_shard=3, num_workers=1)
    build(source, tmp_path / "two", clips_per_shard=3, num_workers=2)
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


def test_the_digest_is_the_manifests_sha256(simulated_shards: Shards) -> None:
    folder, manifest = simulated_shards
    assert manifest.digest == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert read_manifest(folder) == manifest


def test_the_word_simulated_is_in_manifest_and_samples(simulated_shards: Shards) -> None:
    folder, manifest = simulated_shards
    assert manifest.simulated
    assert manifest.notice.startswith("simulated")
    assert ShardSet(folder, splits=("test",)).read(0).meta.extra["simulated"] == "simulated"


def test_splits_hold_different_people(simulated_shards: Shards) -> None:
    people = [set(summary.subjects) for summary in simulated_shards[1].splits.values()]
    assert len(people) == 3
    assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]


def test_a_second_build_adds_only_what_is_missing(simulated_folder: Path, tmp_path: Path) -> None:
    source, out = small_dataset(simulated_folder, tmp_path / "clips"), tmp_path / "out"
    build(source, out, clips_per_shard=3)
    before, times = folder_bytes(out), {p.name: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    first, second = sorted(out.glob("*.tar"))[:2]
    first.unlink()
    build(source, out, clips_per_shard=3)
    assert folder_bytes(out) == before
    assert second.stat().st_mtime_ns == times[second.name]
    assert first.stat().st_mtime_ns != times[first.name]


def test_a_changed_label_makes_its_shard_again(simulated_folder: Path, tmp_path: Path) -> None:
    source, out = small_dataset(simulated_folder, tmp_path / "clips"), tmp_path / "out"
    before = build(source, out)
    rows = (source / "labels.csv").read_text().splitlines()
    clip, label, *rest = rows[1].split(",")
    rows[1] = ",".join([clip, str((int(label) + 1) % 4), *rest])
    (source / "labels.csv").write_text("\n".join(rows) + "\n")
    assert build(source, out).digest != before.digest


@pytest.mark.parametrize("num_finished", [0, 1, 4, 9])
def test_a_killed_build_ends_with_the_same_bytes(simulated_folder: Path, tmp_path: Path, num_finished: int) -> None:
    source = small_dataset(simulated_folder, tmp_path / "clips", num_clips=32)
    build(source, tmp_path / "whole", clips_per_shard=2)
    out = tmp_path / "killed"
    options = ["--frames", "6", "--size", "32", "--clips-per-shard", "2", "--workers", "1"]
    command = [sys.executable, "-m", "cluster", "shards", "build", "folder", str(source), str(out), *options]
    (tmp_path / "scratch").mkdir()
    child = subprocess.Popen(
        command,
        start_new_session=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
    )
    deadline_s = time.monotonic() + 60
    while len(list(out.glob("*.index.json"))) < num_finished or not list((tmp_path / "scratch").glob("rapt-build-*/*")):
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert not (out / "manifest.json").exists(), "the build was over before it could be killed"
    build(source, out, clips_per_shard=2)
    assert folder_bytes(out) == folder_bytes(tmp_path / "whole")


def test_bad_clips_are_named_and_lose_nothing_else(simulated_folder: Path, tmp_path: Path) -> None:
    source = small_dataset(simulated_folder, tmp_path / "clips")
    whole = build(source, tmp_path / "whole")
    (source / "clips" / "bad.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom" + b"\x00" * 99)
    (source / "clips" / "nobody-labelled-me.mp4").write_bytes(b"x")
    rows = (source / "labels.csv").read_text().splitlines()
    rows += ["clips/bad.mp4,1,p9,train,simulated", "clips/gone.mp4,1,p9,train,simulated", rows[1]]
    (source / "labels.csv").write_text("\n".join(rows) + "\n")
    manifest = build(source, tmp_path / "out")
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    reasons = {reject["clip_id"]: reject["reason"] for reject in rejects}
    assert manifest.num_rejected == len(rejects) == 4
    assert "damaged" in reasons["clips/bad.mp4"]
    assert "no file" in reasons["clips/gone.mp4"]
    assert "a second time" in reasons[rows[1].split(",")[0]]
    assert "no row in labels.csv" in reasons["clips/nobody-labelled-me.mp4"]
    assert sum(s.num_samples for s in manifest.splits.values()) == sum(s.num_samples for s in whole.splits.values())
    with pytest.raises(DataError, match="stopped by --strict"):
        build(source, tmp_path / "strict", strict=True)


class kill_whoever_opens:  # a context manager
    """While the block runs, kill each process that opens `clip_id`, as a decoder's crash on it would."""

    def __init__(self, clip_id: str, scratch: Path) -> None:
        self.pids: list[int | None] = []
        self._clip_id, self._scratch, self._done = clip_id, scratch, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        seen: set[tuple[Path, int]] = set()  # the notes of those that were killed, which lie there until another writes
        while not self._done.wait(0.002):
            for note in self._scratch.glob("rapt-build-*/*"):
                with contextlib.suppress(FileNotFoundError):
                    children, written = multiprocessing.active_children(), (note, note.stat().st_mtime_ns)
                    if note.read_text() == self._clip_id and children and written not in seen:
                        seen.add(written)
                        self.pids.append(children[0].pid)
                        for child in children:  # a pool breaks as a whole
                            child.kill()
                            child.join()


@pytest.mark.parametrize(("num_workers", "clips_per_shard"), [(1, 32), (2, 2)])
def test_a_clip_that_kills_the_decoder_is_left_out_and_no_other(
    simulated_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int, clips_per_shard: int
) -> None:
    # no clip at hand crashes decord, so the decoding process is killed from outside each time it opens this one
    source, out = small_dataset(simulated_folder, tmp_path / "clips", num_clips=4), tmp_path / "out"
    write_video(source / "clips" / "slow.mp4", [i / 30 for i in range(40)], size=(1920, 1080))
    rows = (source / "labels.csv").read_text().splitlines()
    (source / "labels.csv").write_text("\n".join([rows[0], "clips/slow.mp4,1,p9,train,simulated", *rows[1:]]) + "\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kills = kill_whoever_opens("clips/slow.mp4", tmp_path)
    with kills:
        manifest = build(source, out, num_workers=num_workers, clips_per_shard=clips_per_shard)
    reject = json.loads((out / "rejects.jsonl").read_text())
    assert len(kills.pids) == 2  # in the pool, where it could have been another, and alone
    assert reject["reason"] == "clips/slow.mp4: crashed the decoder; re-encode it"
    assert sum(split.num_samples for split in manifest.splits.values()) == 4
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_other_peoples_files_are_left_alone(simulated_folder: Path, tmp_path: Path) -> None:
    source, out = small_dataset(simulated_folder, tmp_path / "clips"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.docx").write_text("precious")
    with pytest.raises(ConfigError, match=r"thesis\.docx"):
        build(source, out)
    assert [path.name for path in out.iterdir()] == ["thesis.docx"]


@pytest.mark.parametrize("name", ["photos.tar", "notes.index.json", "train-1.tar", "my-train-000000.tar", "train-000000.tar"])
def test_other_peoples_tars_are_left_alone_too(simulated_folder: Path, tmp_path: Path, name: str) -> None:
    source, out = small_dataset(simulated_folder, tmp_path / "clips", num_clips=2), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("precious")
    with pytest.raises(ConfigError, match="holds files that are not shards"):
        build(source, out)
    assert (out / name).read_text() == "precious"


def test_one_build_at_a_time_in_a_folder(simulated_folder: Path, tmp_path: Path) -> None:
    source, out = small_dataset(simulated_folder, tmp_path / "clips", num_clips=2), tmp_path / "out"
    with claimed(open_store(out)), pytest.raises(ConfigError, match="another build is at work there"):
        build(source, out)
    build(source, out)  # as soon as the other is done


def test_a_shard_whose_index_is_an_earlier_plans_is_made_again(simulated_folder: Path, tmp_path: Path) -> None:
    """Killed between a shard and its index, with labels changed and changed back: sizes are equal, contents are not."""
    source, out = small_dataset(simulated_folder, tmp_path / "clips", num_clips=4), tmp_path / "out"
    before = build(source, out)
    (out / "building.json").write_text("{}")
    (out / "manifest.json").unlink()
    listing = DATASETS["folder"](Source(source))
    other = tuple(replace(clip, labels={"engagement": (clip.labels["engagement"] + 1) % 4}) for clip in listing.clips)
    for plan in plan_shards(replace(listing, clips=other), preprocess=TINY_PREPROCESS, clips_per_shard=32):
        write_shard(open_store(out), plan, on_clip=lambda clip_id: None)
        (out / index_name(plan.name)).unlink()  # the kill
    assert build(source, out) == before
    assert verify_shards(out)[1] == []


def test_a_new_plan_takes_the_old_index_away_before_the_new_shard_is_there(
    simulated_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = small_dataset(simulated_folder, tmp_path / "clips", num_clips=4), tmp_path / "out"
    build(source, out)
    listing = DATASETS["folder"](Source(source))
    (plan, *_) = plan_shards(listing, preprocess=TINY_PREPROCESS, clips_per_shard=32)

    class KilledError(Exception):
        pass

    def die(self: object, name: str, content: bytes) -> None:
        raise KilledError

    monkeypatch.setattr(LocalStore, "write", die)  # the process ends after the shard, before its index
    with pytest.raises(KilledError):
        write_shard(open_store(out), plan, on_clip=lambda clip_id: None)
    assert (out / plan.name).exists()
    assert not (out / index_name(plan.name)).exists()


def test_a_clip_that_crashed_once_gets_another_chance(simulated_folder: Path, tmp_path: Path) -> None:
    source, out = small_dataset(simulated_folder, tmp_path / "clips", num_clips=4), tmp_path / "out"
    whole = build(source, tmp_path / "whole")
    build(source, out)
    (plan, *_) = plan_shards(DATASETS["folder"](Source(source)), preprocess=TINY_PREPROCESS, clips_per_shard=32)
    write_shard(open_store(out), replace(plan, crashed=frozenset([plan.clips[0].clip_id])), on_clip=lambda clip_id: None)
    assert build(source, out) == whole


def test_no_two_clip_ids_share_a_key() -> None:
    assert sample_key("a.b") != sample_key(sample_key("a.b"))
    assert sample_key("plain_name-1") == "plain_name-1"


def test_somebody_elses_manifest_is_not_overwritten(simulated_folder: Path, tmp_path: Path) -> None:
    source, out = small_dataset(simulated_folder, tmp_path / "clips", num_clips=2), tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(ShardError, match="not a readable Manifest"):
        build(source, out)


def test_strict_stops_at_once(simulated_folder: Path, tmp_path: Path) -> None:
    source, out = small_dataset(simulated_folder, tmp_path / "clips", num_clips=24), tmp_path / "out"
    rows = (source / "labels.csv").read_text().splitlines()
    (source / rows[1].split(",")[0]).write_bytes(b"\x00\x00\x00\x20ftypisom" + b"\x00" * 99)
    with pytest.raises(DataError, match="stopped by --strict"):
        build(source, out, strict=True, clips_per_shard=1, num_workers=1)
    assert len(list(out.glob("*.tar"))) < 6
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["shards"][0]["labels"].update(engagement=[9] * 16), "level of 'engagement' that has no name"),
        (lambda m: m["shards"][0]["labels"].update(engagement=[1]), "not one level a sample"),
        (lambda m: m["shards"][0].update(name="../../../etc/passwd"), "no name of a shard"),
        (lambda m: m.update(label_names={}), "no label is named"),
    ],
)
def test_a_manifest_that_does_not_fit_itself_is_refused(simulated_shards: Shards, tmp_path: Path, change, reason: str) -> None:  # type: ignore[no-untyped-def]
    content = json.loads((simulated_shards[0] / "manifest.json").read_text())
    change(content)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ShardError, match=reason):
        read_manifest(tmp_path)


def test_no_usable_clip_at_all_is_an_error_and_no_manifest(tmp_path: Path) -> None:
    source = tmp_path / "clips"
    source.mkdir()
    (source / "bad.mp4").write_bytes(b"not a video")
    (source / "labels.csv").write_text("clip,label,subject,split\nbad.mp4,1,p1,train\n")
    with pytest.raises(DataError, match="no clip could be used"):
        build(source, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small disk that this fills")
def test_a_full_disk_is_one_sentence_and_leaves_no_half_shard(simulated_folder: Path, tmp_path: Path) -> None:
    source, disk = small_dataset(simulated_folder, tmp_path / "clips", num_clips=32), tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with pytest.raises(DataError, match="No space left on device"):
            build(source, disk / "out", clips_per_shard=8)
        left = sorted(path.name for path in (disk / "out").iterdir())
        assert not [name for name in left if name.endswith(".tar") and name.replace(".tar", ".index.json") not in left]
        assert "manifest.json" not in left
        assert not [name for name in left if ".partial-" in name]
    finally:
        subprocess.run(["umount", disk], check=True)


def damaged_copy(shards: Shards, tmp_path: Path) -> Path:
    shutil.copytree(shards[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_verify_finds_nothing_in_a_whole_set(simulated_shards: Shards) -> None:
    assert verify_shards(simulated_shards[0])[1] == []


def test_verify_finds_a_flipped_byte(simulated_shards: Shards, tmp_path: Path) -> None:
    folder = damaged_copy(simulated_shards, tmp_path)
    tar = sorted(folder.glob("*.tar"))[1]
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 0xFF
    tar.write_bytes(content)
    findings = verify_shards(folder)[1]
    assert any(tar.name in finding and "sha256" in finding for finding in findings)


def test_a_tar_cut_short_is_named_by_verify_and_by_the_reader(simulated_shards: Shards, tmp_path: Path) -> None:
    folder = damaged_copy(simulated_shards, tmp_path)
    tar = folder / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    assert any("train-000000.tar" in finding for finding in verify_shards(folder)[1])
    shards = ShardSet(folder, splits=("train",))
    with pytest.raises(ShardError, match=r"cut short"):
        shards.read(15)


def test_an_index_that_disagrees_is_refused(simulated_shards: Shards, tmp_path: Path) -> None:
    folder = damaged_copy(simulated_shards, tmp_path)
    shutil.copy(folder / "test-000000.index.json", folder / "train-000000.index.json")
    with pytest.raises(ShardError, match="not the index that the manifest names"):
        ShardSet(folder, splits=("train",)).read(0)


def test_a_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="rapt shards build"):
        read_manifest(tmp_path)


def test_a_manifest_of_another_version_or_with_unknown_keys_is_refused(simulated_shards: Shards, tmp_path: Path) -> None:
    folder = damaged_copy(simulated_shards, tmp_path)
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(ShardError, match="schema version 99"):
        read_manifest(folder)
    (folder / "manifest.json").write_text(json.dumps({**content, "extra_key": 1}))
    with pytest.raises(ShardError, match="extra_key"):
        read_manifest(folder)


def test_index_places_are_the_tars_own(simulated_shards: Shards) -> None:
    folder, manifest = simulated_shards
    shards = ShardSet(folder, splits=("train",))
    with tarfile.open(folder / manifest.shards[0].name) as tar:
        first = tar.extractfile(tar.getmembers()[0])
        assert first is not None
        assert first.read() == shards.read(0).frames_mjpeg
