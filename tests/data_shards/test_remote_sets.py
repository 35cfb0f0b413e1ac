"""Sets of shards in a bucket: built there, copied there and back, checked, and read through a cold, bounded cache."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from data_shards.building.build import build_shards
from data_shards.building.copy import copy_shards
from data_shards.building.verify import verify_shards
from data_shards.datasets import DATASETS
from data_shards.errors import ConfigError, DataError, ShardError
from data_shards.manifest import Manifest, read_manifest
from data_shards.reading.loader import training_batches
from data_shards.reading.order import DrawStream
from data_shards.reading.reader import ShardSet, Target
from data_shards.storage.shard_cache import CacheSettings
from data_shards.storage.source import Source
from data_shards.storage.store import open_store
from tests.conftest import ROOT, TINY_PREPROCESS
from tests.training.test_loop import ddp_events, losses, run_events
from training.config import RunConfig, with_settings

Shards = tuple[Path, Manifest]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bucket_bytes(uri: str) -> dict[str, bytes]:
    store = open_store(uri)
    return {name: store.read(name) for name in store.names()}


def test_a_set_built_into_a_bucket_has_the_bytes_of_one_on_disk(
    simulated_folder: Path, simulated_shards: Shards, bucket: str
) -> None:
    listing = DATASETS["simulated"](Source(simulated_folder))
    options = {"preprocess": TINY_PREPROCESS, "clips_per_shard": 16, "num_workers": 2}
    first = build_shards(listing, bucket, **options)  # type: ignore[arg-type]
    assert bucket_bytes(bucket) == folder_bytes(simulated_shards[0])
    store = open_store(bucket)  # broken off: one shard and the manifest are not there yet
    store.write("building.json", b"{}")
    store.delete(first.shards[1].name)
    store.delete("manifest.json")
    done: list[tuple[int, int]] = []
    again = build_shards(listing, bucket, progress=lambda *counts: done.append(counts), **options)  # type: ignore[arg-type]
    assert again == first
    assert done[0] == (64 - first.shards[1].num_samples, 64), "what was whole was made again"
    assert bucket_bytes(bucket) == folder_bytes(simulated_shards[0])


@pytest.mark.slow
@pytest.mark.parametrize("num_finished", [1, 3])
def test_a_build_into_a_bucket_that_is_killed_ends_with_the_same_bytes(
    simulated_folder: Path, simulated_shards: Shards, bucket: str, num_finished: int
) -> None:
    options = ["--frames", "6", "--size", "32", "--clips-per-shard", "16", "--workers", "2"]
    command = [sys.executable, "-m", "cluster", "shards", "build", "folder", str(simulated_folder), bucket, *options]
    child = subprocess.Popen(command, start_new_session=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store = open_store(bucket)
    until_s = time.monotonic() + 120
    while sum(name.endswith(".index.json") for name in store.names()) < num_finished:
        assert time.monotonic() < until_s
        assert child.poll() is None, "the build was over before it could be killed"
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    with pytest.raises(ShardError, match=r"no manifest\.json"):
        read_manifest(bucket)
    listing = DATASETS["simulated"](Source(simulated_folder))
    build_shards(listing, bucket, preprocess=TINY_PREPROCESS, clips_per_shard=16, num_workers=2)
    assert bucket_bytes(bucket) == folder_bytes(simulated_shards[0])


def test_clips_in_a_bucket_make_the_same_shards(
    simulated_folder: Path, simulated_shards: Shards, bucket: str, tmp_path: Path
) -> None:
    store = open_store(bucket)
    for path in [simulated_folder / "labels.csv", *(simulated_folder / "clips").iterdir()]:
        store.put(path, path.relative_to(simulated_folder).as_posix())
    listing = DATASETS["folder"](Source(bucket))
    manifest = build_shards(listing, tmp_path, preprocess=TINY_PREPROCESS, clips_per_shard=16, num_workers=2)
    assert manifest == simulated_shards[1]


def test_a_copy_goes_there_and_back_and_on_where_it_was_broken_off(simulated_shards: Shards, bucket: str, tmp_path: Path) -> None:
    folder, manifest = simulated_shards
    copy_shards(folder, bucket)
    assert bucket_bytes(bucket) == folder_bytes(folder)
    assert verify_shards(bucket)[1] == []
    store = open_store(bucket)  # broken off: one shard and the manifest are not there yet
    store.write("building.json", b"{}")
    store.delete("manifest.json")
    store.delete(manifest.shards[0].name)
    store.write("train-000099.tar", b"of an earlier set")
    copy_shards(folder, bucket)
    assert bucket_bytes(bucket) == folder_bytes(folder)
    copy_shards(bucket, tmp_path / "back")
    assert folder_bytes(tmp_path / "back") == folder_bytes(folder)


def test_a_copy_that_was_damaged_later_is_mended(simulated_shards: Shards, tmp_path: Path) -> None:
    folder, manifest = simulated_shards
    copy_shards(folder, tmp_path / "copy")
    first, second = (tmp_path / "copy" / entry.name for entry in manifest.shards[:2])
    first.unlink()
    copy_shards(folder, tmp_path / "copy")
    assert folder_bytes(tmp_path / "copy") == folder_bytes(folder)
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    copy_shards(folder, tmp_path / "copy", check=True)
    assert folder_bytes(tmp_path / "copy") == folder_bytes(folder)


def test_a_damaged_set_is_not_copied(simulated_shards: Shards, bucket: str, tmp_path: Path) -> None:
    shutil.copytree(simulated_shards[0], tmp_path / "set")
    tar = tmp_path / "set" / simulated_shards[1].shards[0].name
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    with pytest.raises(ShardError, match=r"its sha256 is not the manifest's"):
        copy_shards(tmp_path / "set", bucket)
    with pytest.raises(ShardError, match=r"no manifest\.json"):
        read_manifest(bucket)


def test_other_peoples_objects_are_left_alone(simulated_shards: Shards, bucket: str) -> None:
    open_store(bucket).write("thesis.docx", b"years of work")
    with pytest.raises(ConfigError, match=r"holds files that are not shards of an earlier build \(thesis\.docx\)"):
        copy_shards(simulated_shards[0], bucket)
    assert bucket_bytes(bucket) == {"thesis.docx": b"years of work"}


def test_verify_names_what_is_damaged_in_a_bucket(simulated_shards: Shards, bucket: str) -> None:
    copy_shards(simulated_shards[0], bucket)
    store = open_store(bucket)
    first, second = (entry.name for entry in simulated_shards[1].shards[:2])
    store.write(first, store.read(first)[:5000])
    store.delete(second)
    findings = "\n".join(verify_shards(bucket)[1])
    assert first in findings
    assert f"{second}: missing" in findings


@pytest.fixture
def cache(tmp_path: Path) -> CacheSettings:
    return CacheSettings(tmp_path / "cache", 1 << 30)


def ids_read(uri: str | Path, cache: CacheSettings | None, sampler: str = "shuffled") -> list[str]:
    shards = ShardSet(uri, splits=("train",), target=Target("engagement"), cache_settings=cache)
    stream = DrawStream(shards.view.levels_N, 0, sampler, 8, shards.shard_starts, 1)  # type: ignore[arg-type]
    batches = training_batches(shards, stream, inputs=("frames",), microbatch=8, rank=0, world_size=1, start=0, num_threads=2)
    found = [clip_id for batch in islice(batches, 12) for clip_id in batch.clip_ids]
    batches.close()
    shards.close()
    return found


def test_a_cold_cache_gives_the_same_batches_and_then_holds_the_shards(
    simulated_shards: Shards, bucket: str, cache: CacheSettings
) -> None:
    copy_shards(simulated_shards[0], bucket)
    assert ids_read(bucket, cache) == ids_read(simulated_shards[0], None)
    held = {path.name for path in cache.folder.iterdir() if not path.name.startswith(".")}
    assert held == {entry.sha256 for entry in simulated_shards[1].shards if entry.split == "train"}


def test_a_cache_of_one_window_reads_a_windowed_epoch(simulated_shards: Shards, bucket: str, tmp_path: Path) -> None:
    copy_shards(simulated_shards[0], bucket)
    sizes = [entry.size_bytes for entry in simulated_shards[1].shards if entry.split == "train"]
    small = CacheSettings(tmp_path / "cache", 2 * max(sizes))
    assert sum(sizes) > small.max_bytes
    assert ids_read(bucket, small, "windowed") == ids_read(simulated_shards[0], None, "windowed")
    held = [path for path in small.folder.iterdir() if not path.name.startswith(".")]
    assert sum(path.stat().st_size for path in held) <= small.max_bytes


def test_a_run_that_the_cache_cannot_hold_says_what_to_set(
    tiny_run: RunConfig, simulated_shards: Shards, bucket: str, tmp_path: Path
) -> None:
    from training.loop import train

    copy_shards(simulated_shards[0], bucket)
    with pytest.raises(ConfigError, match=r"raise --cache-gib, or .* --set data\.sampler=windowed"):
        train(tiny_run, bucket, tmp_path / "run", run_id="r", cache=CacheSettings(tmp_path / "cache", 200_000))


def test_a_bucket_needs_a_cache(simulated_shards: Shards, bucket: str) -> None:
    copy_shards(simulated_shards[0], bucket)
    with pytest.raises(ConfigError, match="read through a local cache"):
        ShardSet(bucket, splits=("train",))


def test_two_workers_with_a_cold_cache_train_as_one_from_disk(
    tiny_run: RunConfig, simulated_shards: Shards, bucket: str, tmp_path: Path
) -> None:
    run = with_settings(tiny_run, ["loop.precision=fp64", "model.dropout=0.3"])
    copy_shards(simulated_shards[0], bucket)
    alone = run_events(run, simulated_shards, tmp_path / "alone")
    together = ddp_events(run, (bucket, simulated_shards[1]), tmp_path / "together", 2, cache=tmp_path / "cache")
    assert losses(together) == pytest.approx(losses(alone), rel=1e-7)


def test_a_bucket_that_is_not_there_is_one_sentence(bucket: str) -> None:
    with pytest.raises(DataError, match="no such bucket"):
        read_manifest("s3://rapt-no-such-bucket/set")
    with pytest.raises(ShardError, match=r"no manifest\.json there"):
        read_manifest(bucket)
    with pytest.raises(DataError, match="no file there"):
        Source(bucket)


def test_rejects_travel_with_the_set(simulated_folder: Path, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "clips"
    shutil.copytree(simulated_folder, source)
    (source / "clips" / "nobody.mp4").write_bytes(b"x")
    build_shards(DATASETS["folder"](Source(source)), tmp_path / "set", preprocess=TINY_PREPROCESS, num_workers=2)
    copy_shards(tmp_path / "set", bucket)
    (reject,) = map(json.loads, open_store(bucket).read("rejects.jsonl").splitlines())
    assert reject["clip_id"] == "clips/nobody.mp4"
