"""Adding features to finished shards: everything else stays, only what is missing is made, and nothing is torn."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cluster.command_line import rapt
from data_shards.building.add_features import add_features
from data_shards.building.build import build_shards
from data_shards.building.copy import copy_shards
from data_shards.building.feature_writer import AddFeatures
from data_shards.building.shard_pool import write_in_processes
from data_shards.building.shard_work import ShardWork
from data_shards.building.verify import verify_shards
from data_shards.datasets import list_dataset
from data_shards.errors import ConfigError, DataError, ShardError
from data_shards.extraction.recorded import extractor_settings
from data_shards.manifest import Manifest, ShardIndex, current_index, read_manifest
from data_shards.reading.loader import batch_of
from data_shards.reading.reader import ShardSet, Target
from data_shards.simulation import SimulationSettings, generate
from data_shards.storage.store import LocalStore, Store, open_store
from tests.conftest import TINY_PREPROCESS

SOUND = extractor_settings(["acoustics"], [])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    generate(SimulationSettings(num_clips=12, seed=5, fps=6, width_px=96, height_px=72), folder, num_workers=2)
    return folder


@pytest.fixture(scope="module")
def built(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "set"
    build_shards(list_dataset("simulated", clips), out, preprocess=TINY_PREPROCESS, clips_per_shard=3, num_workers=2)
    return out


@pytest.fixture
def shards(built: Path, tmp_path: Path) -> Path:
    """A set of its own for a test that changes it."""
    return Path(shutil.copytree(built, tmp_path / "set"))


@pytest.fixture(scope="module")
def extracted(built: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set with acoustics and OpenFace's values from the CSVs beside the clips."""
    out = Path(shutil.copytree(built, tmp_path_factory.mktemp("extracted") / "set"))
    both = extractor_settings(["acoustics", "openface"], ["openface.source=csv"])
    add_features(out, list_dataset("simulated", clips), both, num_workers=2)
    return out


def invoked(*arguments: str) -> str:
    """What a command prints; its errors are raised."""
    return CliRunner().invoke(rapt, arguments, catch_exceptions=False, standalone_mode=False).stdout


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "source.json"}


def test_features_stand_beside_what_was_there(built: Path, extracted: Path) -> None:
    before, after = read_manifest(built), read_manifest(extracted)
    assert after.features.keys() == {"acoustics", "openface"}
    assert after.features["openface"][1:] == (49,)
    assert after.extractors["openface"]["extractor"] == "openface"
    assert (after.label_names, after.splits, after.num_rejected) == (before.label_names, before.splits, before.num_rejected)
    assert after.digest != before.digest
    assert verify_shards(extracted)[1] == []
    old, new = (ShardSet(folder, splits=("train",)) for folder in (built, extracted))
    for number in range(len(old)):
        before_members, after_members = old.read_members(number), new.read_members(number)
        assert before_members["frames.mjpeg"] == after_members["frames.mjpeg"]
        meta = old.read(number).meta
        assert meta.face_present is None
        assert new.read(number).meta == meta.model_copy(update={"face_present": (True,) * TINY_PREPROCESS.num_frames})
        assert after_members.keys() - before_members.keys() == {"acoustics.npy", "openface.npy"}
        assert new.read(number).features["acoustics"].shape == (8,)


def test_a_second_run_has_nothing_to_do_and_the_order_of_extractors_does_not_matter(
    built: Path, extracted: Path, clips: Path, tmp_path: Path
) -> None:
    before = content(extracted)
    calls: list[int] = []
    add_features(extracted, list_dataset("simulated", clips), SOUND, progress=lambda done, total: calls.append(total))
    assert calls == [0]
    assert content(extracted) == before
    other = Path(shutil.copytree(built, tmp_path / "other"))
    for name in ("openface", "acoustics"):
        chosen = extractor_settings([name], ["openface.source=csv"] if name == "openface" else [])
        add_features(other, list_dataset("simulated", clips), chosen)
    assert read_manifest(other).shards == read_manifest(extracted).shards


def killed_after_one_shard(store: Store, work: list[ShardWork], **options: object) -> Iterator[ShardIndex]:
    yield from write_in_processes(store, work[:1], num_workers=1, on_done=lambda done: None)
    raise KeyboardInterrupt


def test_a_broken_off_run_goes_on_and_the_set_cannot_be_read_meanwhile(shards: Path, extracted: Path, clips: Path) -> None:
    both = extractor_settings(["acoustics", "openface"], ["openface.source=csv"])
    with pytest.raises(KeyboardInterrupt):
        add_features(shards, list_dataset("simulated", clips), both, write=killed_after_one_shard)  # type: ignore[arg-type]
    with pytest.raises(ShardError, match="features are being added to its shards"):
        read_manifest(shards)
    asked: list[int] = []
    add_features(shards, list_dataset("simulated", clips), both, progress=lambda done, total: asked.append(total))
    assert asked[0] == 9  # of 12 clips, three lay in the shard that was done
    assert content(shards) == content(extracted)


def add_sound(folder: Path, clips: Path) -> None:
    add_features(folder, list_dataset("simulated", clips), SOUND)


def test_a_killed_process_leaves_shards_that_can_be_finished(built: Path, clips: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(built, tmp_path / "whole"))
    begun_s = time.monotonic()
    add_sound(whole, clips)
    took_s = time.monotonic() - begun_s
    for trial in range(3):
        folder = Path(shutil.copytree(built, tmp_path / f"killed-{trial}"))
        process = multiprocessing.get_context("spawn").Process(target=add_sound, args=(folder, clips))
        process.start()
        process.join(took_s * (trial + 1) / 3)
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        add_sound(folder, clips)
        assert content(folder) == content(whole)


def test_two_ways_are_never_mixed(extracted: Path, clips: Path) -> None:
    listing = list_dataset("simulated", clips)
    other = extractor_settings(["acoustics"], ["acoustics.pitch_floor_hz=60"])
    with pytest.raises(ConfigError, match="'acoustics' is in the set already, made with other settings"):
        add_features(extracted, listing, other)
    before = read_manifest(extracted)
    copy = Path(shutil.copytree(extracted, extracted.parent / "again"))
    manifest, _ = add_features(copy, listing, other, again=True)
    assert manifest.extractors["acoustics"] != before.extractors["acoustics"]
    assert manifest.extractors["openface"] == before.extractors["openface"]


def test_what_a_clip_lacks_has_its_reason_and_needs_leave_it_out(shards: Path, clips: Path) -> None:
    listing = list_dataset("simulated", clips)
    gone = listing.clips[0]
    kept = Path(shutil.copytree(clips, shards.parent / "clips"))
    (kept / "openface" / f"{Path(gone.clip_id).stem}.csv").unlink()
    (kept / listing.clips[1].clip_id).write_bytes((kept / listing.clips[2].clip_id).read_bytes())
    manifest, lacking = add_features(
        shards, list_dataset("simulated", kept), extractor_settings(["openface"], ["openface.source=csv"])
    )
    reasons = {entry.clip_id: entry.reason for entry in lacking}
    assert reasons.keys() == {clip.clip_id for clip in listing.clips[:2]}
    assert "CSV" in reasons[gone.clip_id]
    assert "not the file that the shard was built from" in reasons[listing.clips[1].clip_id]
    lines = (shards / "lacking.jsonl").read_text().splitlines()
    assert [json.loads(line)["feature"] for line in lines] == ["openface", "openface"]
    splits = tuple(manifest.splits)
    everyone = ShardSet(shards, splits=splits, target=Target("engagement"))
    with_faces = ShardSet(shards, splits=splits, target=Target("engagement", needs=("openface",)))
    assert (len(everyone), len(with_faces), with_faces.num_dropped) == (12, 10, 2)
    assert not {with_faces.read(n).meta.clip_id for n in range(10)} & reasons.keys()
    with pytest.raises(ConfigError, match=r"no sample has 'i3d' \(they have: frames, openface\)"):
        ShardSet(shards, splits=splits, target=Target("engagement", needs=("i3d",)))


def test_a_batch_fills_up_sequences_and_says_how_long_each_is(extracted: Path) -> None:
    shards = ShardSet(extracted, splits=("train",))
    samples = [shards.read(n) for n in range(2)]
    short = samples[1]
    object.__setattr__(short, "features", {"openface": short.features["openface"][:7]})
    batch = batch_of(samples, inputs=("openface", "acoustics", "speech"))
    assert batch.inputs.lengths["openface"].tolist() == [len(samples[0].features["openface"]), 7]
    assert batch.inputs.lengths["acoustics"].tolist() == [8, 0]
    assert batch.inputs.features["speech"].shape == (2, 0)
    assert (batch.inputs.features["openface"][1, 7:] == 0).all()
    np.testing.assert_array_equal(batch.inputs.features["openface"][1, :7], short.features["openface"])


def test_the_command_finds_the_clips_again_and_says_what_it_made(shards: Path, clips: Path) -> None:
    found = json.loads(invoked("shards", "extract", str(shards), "--with", "acoustics", "--json"))
    assert found["features"]["acoustics"]["clips"] == 12
    assert found["digest"] == read_manifest(shards).digest
    (shards / "source.json").unlink()
    with pytest.raises(ConfigError, match="name them with --dataset and --source"):
        invoked("shards", "extract", str(shards), "--with", "openface")
    settings = ["--with", "openface", "--set", "openface.source=csv", "--source", str(clips)]
    invoked("shards", "extract", str(shards), *settings)
    assert read_manifest(shards).features.keys() == {"acoustics", "openface"}
    with pytest.raises(ConfigError, match="no extractor named 'face'; there are:"):
        invoked("shards", "extract", str(shards), "--with", "face")


def test_a_manifest_of_an_extraction_is_read_back(extracted: Path) -> None:
    stored = (extracted / "manifest.json").read_bytes()
    assert Manifest.from_bytes(stored, origin="here").to_bytes() == stored


def stopped(folder: Path, clips: Path, num_shards: int) -> None:
    """Extract sound into the first shards, and stop there."""

    def write(store: Store, work: list[ShardWork], **options: object) -> Iterator[ShardIndex]:
        yield from write_in_processes(store, work[:num_shards], num_workers=2, on_done=lambda done: None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_features(folder, list_dataset("simulated", clips), SOUND, write=write)  # type: ignore[arg-type]


def test_building_again_finishes_no_extraction_and_keeps_what_it_made(shards: Path, clips: Path, extracted: Path) -> None:
    listing = list_dataset("simulated", clips)
    stopped(shards, clips, 2)
    with pytest.raises(ShardError, match="shards have no acoustics, which others got by `rapt shards extract`; run that again"):
        build_shards(listing, shards, preprocess=TINY_PREPROCESS, clips_per_shard=3, num_workers=2)
    with pytest.raises(ShardError, match="features are being added"):
        read_manifest(shards)
    asked: list[int] = []
    manifest, _ = add_features(shards, listing, SOUND, progress=lambda done, total: asked.append(total))
    assert asked[0] == 12 - 6
    again = build_shards(listing, shards, preprocess=TINY_PREPROCESS, clips_per_shard=3, num_workers=2)
    assert again.to_bytes() == manifest.to_bytes()


def test_an_extraction_that_was_broken_off_never_reaches_another_set(shards: Path, clips: Path, built: Path) -> None:
    stopped(shards, clips, 1)
    other = TINY_PREPROCESS.model_copy(update={"num_frames": 2})
    build_shards(list_dataset("simulated", clips), shards, preprocess=other, clips_per_shard=3, num_workers=2)
    manifest, _ = add_features(shards, list_dataset("simulated", clips), SOUND)
    assert manifest.preprocess == other
    assert verify_shards(shards)[1] == []
    copied = shards.parent / "copied"
    copy_shards(built, copied)
    stopped(copied, clips, 1)
    copy_shards(shards, copied)
    assert read_manifest(copied).digest == manifest.digest
    assert not (copied / "source.json").exists()
    assert add_features(copied, list_dataset("simulated", clips), SOUND)[0].digest == manifest.digest


def test_a_new_tar_under_an_old_index_is_found_out(shards: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = list_dataset("simulated", clips)
    add_features(shards, listing, SOUND)
    louder = extractor_settings(["acoustics"], ["acoustics.loud_db=0.5"])
    write = LocalStore.write

    def die_before_the_index(store: LocalStore, name: str, content: bytes) -> None:
        if name.endswith(".index.json"):
            raise KeyboardInterrupt
        write(store, name, content)

    def in_this_process(store: Store, work: list[ShardWork], **options: object) -> Iterator[ShardIndex]:
        monkeypatch.setattr(LocalStore, "write", die_before_the_index)
        try:
            yield work[0].write(store, on_clip=lambda clip_id: None)
        finally:
            monkeypatch.setattr(LocalStore, "write", write)

    with pytest.raises(KeyboardInterrupt):
        add_features(shards, listing, louder, again=True, write=in_this_process)  # type: ignore[arg-type]
    with pytest.raises(ShardError, match="was not made as in other shards"):
        build_shards(listing, shards, preprocess=TINY_PREPROCESS, clips_per_shard=3)
    manifest, _ = add_features(shards, listing, louder, again=True)
    assert manifest.extractors["acoustics"]["settings"]["loud_db"] == 0.5  # type: ignore[index,call-overload]
    assert verify_shards(shards)[1] == []


def test_two_sources_of_one_feature_never_meet_in_a_build(shards: Path, clips: Path) -> None:
    listing = list_dataset("simulated", clips)
    add_features(shards, listing, SOUND)
    first, *others = listing.clips
    given = replace(first, features={"acoustics": np.zeros(31, dtype=np.float32)})
    with pytest.raises(DataError, match=r"'acoustics' now comes with the dataset.*two sources are never mixed"):
        build_shards(
            replace(listing, clips=(given, *others)), shards, preprocess=TINY_PREPROCESS, clips_per_shard=3, num_workers=2
        )


def test_clips_that_were_away_are_tried_again(shards: Path, clips: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(clips, few)
    for video in sorted((few / "clips").iterdir())[:6]:
        video.unlink()
    _, lacking = add_features(shards, list_dataset("simulated", few), SOUND)
    assert len(lacking) == 6
    assert all("no file" in entry.reason for entry in lacking)
    manifest, lacking = add_features(shards, list_dataset("simulated", clips), SOUND)
    assert lacking == []
    assert manifest.features == {"acoustics": (8,)}


def test_a_shard_that_somebody_else_changed_is_not_overwritten(shards: Path, clips: Path) -> None:
    listing = list_dataset("simulated", clips)
    faces = extractor_settings(["openface"], ["openface.source=csv"])
    store = open_store(shards)
    (mine,) = [entry for entry in read_manifest(shards).shards if entry.name == "train-000000.tar"]
    slow = AddFeatures(name=mine.name, clips=listing.clips[:3], extractors=SOUND)

    def other_extraction(clip_id: str) -> None:
        if "openface" not in current_index(store, mine.name).extractors:
            AddFeatures(name=mine.name, clips=listing.clips[:3], extractors=faces).write(store, on_clip=lambda clip_id: None)

    with pytest.raises(ShardError, match="changed meanwhile, so another command is at work there"):
        slow.write(store, on_clip=other_extraction)
    assert current_index(store, mine.name).extractors.keys() == {"openface"}


def test_a_broken_off_run_goes_on_with_clips_that_moved(shards: Path, clips: Path, tmp_path: Path) -> None:
    stopped(shards, clips, 1)
    moved = Path(shutil.copytree(clips, tmp_path / "moved"))
    found = json.loads(invoked("shards", "extract", str(shards), "--with", "acoustics", "--source", str(moved), "--json"))
    assert found["features"]["acoustics"]["clips"] == 12
    for wrong in (["--dataset", "daisee"], []):
        with pytest.raises(ConfigError, match=r"--dataset says what|names no extractor"):
            invoked("shards", "extract", str(shards), "--with", "acoustics" if wrong else ",", *wrong)
    with pytest.raises(ShardError, match="no manifest"):
        invoked("shards", "extract", str(tmp_path / "nowhere"), "--with", "acoustics", "--source", str(clips))
    assert not (tmp_path / "nowhere").exists()
