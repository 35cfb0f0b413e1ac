"""Checkpoints that are whole or not there: killed writers, flipped bytes, full disks, clocks that jump. Trials are counted."""

import errno
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from data_shards.errors import ModelError, StorageError
from data_shards.storage.store import LocalStore
from tests.conftest import ROOT
from tests.training.killed_writer import checkpoints, record, state, weights
from training.checkpoint import Checkpoints, Found, read_state
from training.checkpoint_writer import CheckpointWriter
from training.events import CheckpointFailed, CheckpointSaved
from training.host_copy import HostBuffers


def save(folder: Path, *steps: int) -> None:
    ours = checkpoints(folder)
    ours.find()
    for step in steps:
        ours.save(record(step), state(step), weights(step))


def step_of(found: Found) -> int:
    assert found.record is not None
    return found.record.step


def written(writer: CheckpointWriter, step: int, size: int = 500) -> CheckpointSaved | CheckpointFailed:
    """Have a checkpoint written, and wait for what is told of it."""
    content = {"engine": {"w": torch.rand(size)}}  # of no pattern that a file system could pack
    writer.submit(record(step), content, weights(step), due_s=time.perf_counter())
    while not (news := writer.news()):
        time.sleep(0.001)
    return news[0]


def test_a_writer_that_is_killed_anywhere_leaves_a_good_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.killed_writer", str(tmp_path), "50"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert len([trial for trial in trials if trial["killed"]]) == 50
    assert [trial for trial in trials if not trial["equal"] or trial["left"] or trial["skipped"]] == []
    # what was told is there; one that was whole when its writer died untold is there too
    assert {trial["found"] - max([1, *trial["told"]]) for trial in trials} == {0, 1}
    assert {trial["next"] - trial["found"] for trial in trials} == {1}
    assert len({trial["found"] for trial in trials}) == 5


@pytest.mark.parametrize("name", ["step-00000004/state.pt", "step-00000004/checkpoint.json", "best-epoch-000004.safetensors"])
def test_a_flipped_byte_is_never_taken(tmp_path: Path, name: str) -> None:
    save(tmp_path, 3, 4)
    path = tmp_path / "checkpoints" / name
    whole = path.read_bytes()
    rng = random.Random(name)
    places = rng.sample(range(len(whole)), 20)
    passed_over = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
        found = checkpoints(tmp_path).find()
        passed_over += (step_of(found), found.skipped) == (3, ("step-00000004",))
    assert passed_over == 20
    path.write_bytes(whole)
    assert step_of(checkpoints(tmp_path).find()) == 4


def test_what_is_damaged_is_removed_at_the_next_start_and_other_files_are_not(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    folder = tmp_path / "checkpoints"
    (folder / "step-00000002" / "state.pt").write_bytes(b"torn")
    (folder / "step-00000003").mkdir()
    (folder / "step-00000003" / ".state.pt.partial-77").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    ours = checkpoints(tmp_path)
    assert step_of(ours.find()) == 1
    ours.clean()
    assert {path.name for path in folder.iterdir()} == {"step-00000001", "best-epoch-000001.safetensors", "notes.txt"}


def test_a_store_that_does_not_answer_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir(mode=0o700)
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(StorageError):
        checkpoints(tmp_path).find()


def test_a_disk_that_fails_for_a_moment_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, 2)
    whole = Path.open

    def fail(path: Path, *rest: Any, **named: Any) -> Any:
        if path.name == "state.pt":
            raise OSError(errno.EIO, "Input/output error")
        return whole(path, *rest, **named)

    with monkeypatch.context() as failing:
        failing.setattr(Path, "open", fail)
        with pytest.raises(StorageError, match=r"step-00000002: cannot be read \(Input/output error\)"):
            checkpoints(tmp_path).find()
    assert step_of(checkpoints(tmp_path).find()) == 2


@pytest.mark.parametrize("kept", [1, 0])
def test_a_checkpoint_of_another_version_is_not_removed(tmp_path: Path, kept: int) -> None:
    save(tmp_path, *range(1, kept + 1), 4)
    path = tmp_path / "checkpoints" / "step-00000004" / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"world_size": 2}))
    before = sorted((tmp_path / "checkpoints").rglob("*"))
    ours = checkpoints(tmp_path)
    if kept:
        found = ours.find()
        assert (step_of(found), found.skipped) == (1, ("step-00000004",))
    else:
        with pytest.raises(ModelError, match=r"step-00000004: a checkpoint of another version of Rapt; resume the run with"):
            ours.find()
    ours.clean()
    assert sorted((tmp_path / "checkpoints").rglob("*")) == before


def test_order_is_by_step_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, jumps = time.time, iter([0.0, -1e9, 1e9, -5.0, 3e8, -3e8] * 1000)
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    writer = CheckpointWriter(checkpoints(tmp_path))
    for step in range(1, 7):
        told = written(writer, step)
        assert isinstance(told, CheckpointSaved)
        assert 0 <= told.stall_s <= told.took_s < 60
        for path in (tmp_path / "checkpoints").rglob("*"):
            os.utime(path, (2e9 - step * 1e8, 2e9 - step * 1e8))  # the newest looks oldest
    writer.drain(retry=False)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == ["step-00000005", "step-00000006"]
    assert step_of(checkpoints(tmp_path).find()) == 6


def test_a_full_disk_takes_older_checkpoints_first_and_never_the_last_good_one(small_disk: Path) -> None:
    ours = Checkpoints(LocalStore(small_disk / "checkpoints"), kept=9, scratch=small_disk / "scratch")
    writer = CheckpointWriter(ours)
    assert [type(written(writer, step, 7_000)) for step in (1, 2, 3)] == [CheckpointSaved] * 3  # of 40 kB each
    assert isinstance(written(writer, 4, 7_000), CheckpointSaved)
    there = sorted(path.name for path in (small_disk / "checkpoints").glob("step-*"))
    assert there == ["step-00000003", "step-00000004"]
    told = written(writer, 5, 50_000)
    assert isinstance(told, CheckpointFailed)
    assert "No space left on device" in told.reason
    assert not list(small_disk.rglob("*partial*"))
    assert step_of(Checkpoints(ours.store, kept=9, scratch=small_disk / "scratch").find()) == 4
    assert isinstance(written(writer, 6), CheckpointSaved)
    writer.drain(retry=False)


def test_a_slow_store_neither_stalls_training_nor_fills_memory(tmp_path: Path) -> None:
    ours = checkpoints(tmp_path)
    writer = CheckpointWriter(ours)
    # 40 are due at once: one is written, one waits, and that is always the newest
    for step in range(1, 41):
        writer.submit(record(step), state(step), weights(step), due_s=time.perf_counter())
    assert len({id(due.buffers) for due in (writer._waiting, writer._writing) if due}) <= 2
    writer.drain(retry=False)
    saved = [event.step for event in writer.news() if isinstance(event, CheckpointSaved)]
    assert saved == sorted(saved)
    assert saved[-1] == 40
    assert step_of(checkpoints(tmp_path).find()) == 40


def test_a_stopped_run_waits_once_for_a_store_that_hangs_and_names_its_last_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 3)
    store, hung = LocalStore(tmp_path / "checkpoints"), threading.Event()

    class Hanging(LocalStore):
        def local_path(self, name: str) -> Path:
            hung.wait()
            return super().local_path(name)

    ours = Checkpoints(store, kept=2, scratch=tmp_path / "scratch")
    ours.find()
    ours.store = Hanging(store.folder)
    writer = CheckpointWriter(ours, drain_s=0.5)
    writer.submit(record(4), state(4), weights(4), due_s=time.perf_counter())
    writer.drain(retry=True)
    writer.drain(retry=False)
    assert [(type(event), event.step) for event in writer.news()] == [(CheckpointFailed, 4)]
    assert writer.saved_step == 3
    hung.set()


def test_the_copy_keeps_memory_layouts_and_what_is_shared(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32)
    frames = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    nested = {
        "whole": base,
        "part": base[4:10],
        "turned": base.view(4, 6).t(),
        "list": [frames, {"half": torch.ones(3, dtype=torch.bfloat16), 7: torch.tensor(3)}],
        "plain": ("x", 1, 2.5, None, True),
        "empty": torch.empty(0, dtype=torch.int64),
    }
    buffers = HostBuffers()
    copied = buffers.copy(nested)
    assert copied["plain"] == nested["plain"]
    pairs = [
        (copied["whole"], base.clone()),
        (copied["part"], base[4:10].clone()),
        (copied["list"][0], frames.clone()),
        (copied["list"][1]["half"], torch.ones(3, dtype=torch.bfloat16)),
    ]
    base.zero_()
    frames.zero_()
    for ours, was in pairs:
        assert (ours.dtype, ours.shape) == (was.dtype, was.shape)
        assert torch.equal(ours, was)
    assert copied["list"][0].is_contiguous(memory_format=torch.channels_last)
    assert (copied["turned"].stride(), copied["turned"][2, 1].item()) == ((1, 6), 8)
    copied["whole"][4] = 77.0
    assert copied["part"][0] == 77.0
    again = buffers.copy(nested)
    assert again["whole"].data_ptr() == copied["whole"].data_ptr()
    assert again["whole"].sum() == 0


def test_a_modules_state_is_copied_with_its_versions(tmp_path: Path) -> None:
    module = torch.nn.BatchNorm1d(3)
    copied = HostBuffers().copy(module.state_dict())
    assert copied._metadata == module.state_dict()._metadata  # type: ignore[attr-defined]
    save(tmp_path, 1)
    assert read_state(checkpoints(tmp_path).find().state or b"")["engine"]["w"].tolist() == state(1)["engine"]["w"].tolist()
