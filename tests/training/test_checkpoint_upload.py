"""Checkpoints in a bucket that is away, slow, or cut off: a real S3 server behind a proxy that does it."""

import shutil
import time
from pathlib import Path

import pytest
import torch

from data_shards.errors import Stopped, StorageError
from data_shards.manifest import Manifest
from data_shards.storage.object_client import Connecting
from data_shards.storage.object_storage import S3Store
from data_shards.storage.store import open_store
from tests.fault_proxy import Fault, FaultProxy
from tests.training.killed_writer import record, state, weights
from tests.training.test_loop import losses, run_events
from training.checkpoint import Checkpoints
from training.checkpoint_writer import CheckpointWriter
from training.config import RunConfig, with_settings
from training.events import CheckpointFailed, CheckpointSaved, Event, RunFinished, RunStarted, StepDone
from training.loop import train

Shards = tuple[Path, Manifest]
IMPATIENT = Connecting(num_connections=2, num_attempts=2, connect_timeout_s=1.0, read_timeout_s=3.0)
AWAY = [Fault("status", "PUT"), Fault("status", "GET"), Fault("status", "HEAD"), Fault("status", "DELETE")]


def in_bucket(bucket: str, folder: Path) -> Checkpoints:
    return Checkpoints(S3Store(bucket, IMPATIENT), kept=2, scratch=folder / "scratch")


def submit(writer: CheckpointWriter, step: int) -> None:
    writer.submit(record(step), state(step), weights(step), due_s=time.perf_counter())


def told(writer: CheckpointWriter) -> CheckpointSaved | CheckpointFailed:
    while not (news := writer.news()):
        time.sleep(0.005)
    assert len(news) == 1
    return news[0]


FAULTS = {
    "away": AWAY,
    "cut in the middle of a body": [Fault("drop-upload", "PUT", part="state.pt")],
    "spoiled on the way": [Fault("corrupt-upload", "PUT", part="state.pt")],
    "away at the record": [Fault("status", "PUT", part="checkpoint.json")],
    "no answer in time": [Fault("delay", "PUT", part="state.pt", delay_s=4.0)],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_upload_that_fails_is_told_and_the_next_is_tried(proxy: FaultProxy, bucket: str, tmp_path: Path, fault: str) -> None:
    writer = CheckpointWriter(in_bucket(bucket, tmp_path))
    submit(writer, 1)
    assert isinstance(told(writer), CheckpointSaved)
    proxy.faults = [Fault(**vars(each)) for each in FAULTS[fault]]
    submit(writer, 2)
    failed = told(writer)
    proxy.faults = []
    assert isinstance(failed, CheckpointFailed)
    assert failed.step == 2
    found = in_bucket(bucket, tmp_path).find()
    assert found.record is not None
    assert found.record.step == 1
    submit(writer, 3)
    assert isinstance(told(writer), CheckpointSaved)
    writer.drain(retry=False)
    assert not list((tmp_path / "scratch").iterdir())
    ours = in_bucket(bucket, tmp_path)
    assert ours.find().record == record(3).sealed(ours._records[3].files)
    kept = {"step-00000001", "best-epoch-000001.safetensors", "step-00000003", "best-epoch-000003.safetensors"}
    deadline_s = time.monotonic() + 30
    ours.clean()
    while {name.split("/")[0] for name in open_store(bucket).names()} != kept:  # what was given up may still come in
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
        ours.clean()


def test_while_a_slow_upload_goes_on_only_the_newest_waits(proxy: FaultProxy, bucket: str, tmp_path: Path) -> None:
    writer = CheckpointWriter(in_bucket(bucket, tmp_path))
    proxy.faults = [Fault("delay", "PUT", part="step-00000001/state.pt", delay_s=1.0, times=1)]
    submit(writer, 1)
    while writer._writing is None:
        time.sleep(0.001)
    for step in (2, 3, 4):
        submit(writer, step)
    writer.drain(retry=False)
    assert [event.step for event in writer.news() if isinstance(event, CheckpointSaved)] == [1, 4]


def test_the_last_checkpoint_is_tried_until_the_store_is_back(proxy: FaultProxy, bucket: str, tmp_path: Path) -> None:
    writer = CheckpointWriter(in_bucket(bucket, tmp_path), drain_s=30.0)
    proxy.faults = [Fault("status", "PUT", times=5)]
    submit(writer, 1)
    writer.drain(retry=True)
    assert [type(event) for event in writer.news()] == [CheckpointSaved]
    assert writer.saved_step == 1


def test_a_store_that_stays_away_is_waited_for_as_long_as_is_said(proxy: FaultProxy, bucket: str, tmp_path: Path) -> None:
    writer = CheckpointWriter(in_bucket(bucket, tmp_path), drain_s=0.5)
    proxy.faults = [Fault("delay", "PUT", delay_s=20.0)]
    submit(writer, 1)
    begun_s = time.perf_counter()
    writer.drain(retry=True)
    assert time.perf_counter() - begun_s < 20.0  # the fault's own length, not a speed
    (failed,) = writer.news()
    assert isinstance(failed, CheckpointFailed)
    assert failed.reason.startswith("not written within 0.5 s of the run's end")


def test_a_run_whose_bucket_goes_away_for_ever_ends_well(
    tiny_run: RunConfig, simulated_shards: Shards, proxy: FaultProxy, bucket: str, tmp_path: Path
) -> None:
    events: list[Event] = []

    def cut(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepDone) and event.step == 2:
            proxy.faults = list(AWAY)

    store = S3Store(bucket, IMPATIENT)
    bundle = train(tiny_run, simulated_shards[0], tmp_path, run_id="r", listeners=[cut], checkpoints=store)
    assert bundle is not None
    assert [event.step for event in events if isinstance(event, CheckpointFailed)] == [5]
    assert isinstance(events[-1], RunFinished)
    proxy.faults = []
    assert open_store(bucket).names() == {}


def test_a_run_does_not_start_afresh_where_its_bucket_is_away(
    tiny_run: RunConfig, simulated_shards: Shards, proxy: FaultProxy, bucket: str, tmp_path: Path
) -> None:
    proxy.faults = list(AWAY)
    with pytest.raises(StorageError, match="answered SlowDown"):
        train(tiny_run, simulated_shards[0], tmp_path, run_id="r", checkpoints=S3Store(bucket, IMPATIENT))


def test_a_run_goes_on_where_none_of_its_files_are(
    tiny_run: RunConfig, simulated_shards: Shards, bucket: str, tmp_path: Path
) -> None:
    run = with_settings(tiny_run, ["loop.epochs=2"])
    whole = run_events(run, simulated_shards, tmp_path / "whole")
    parts: list[Event] = []
    asked = iter([False] * 6 + [True])
    with pytest.raises(Stopped, match="stopped at step 7"):
        train(
            run,
            simulated_shards[0],
            tmp_path / "here",
            run_id="r",
            listeners=[parts.append],
            checkpoints=bucket,
            should_stop=lambda: next(asked),
        )
    shutil.rmtree(tmp_path / "here", ignore_errors=True)
    bundle = train(run, simulated_shards[0], tmp_path / "there", run_id="r", listeners=[parts.append], checkpoints=bucket)
    assert bundle is not None
    assert [event.start_step for event in parts if isinstance(event, RunStarted)] == [0, 7]
    assert losses(parts) == losses(whole)
    ours, other = (folder / "bundle" / "model.safetensors" for folder in (tmp_path / "whole", tmp_path / "there"))
    assert ours.read_bytes() == other.read_bytes()


def test_a_full_disk_on_the_way_to_a_bucket_costs_no_checkpoint_there(bucket: str, small_disk: Path) -> None:
    ours = Checkpoints(S3Store(bucket, IMPATIENT), kept=9, scratch=small_disk / "scratch")
    writer = CheckpointWriter(ours)
    for step in (1, 2):
        submit(writer, step)
        assert isinstance(told(writer), CheckpointSaved)
    too_large = {"engine": {"w": torch.zeros(50_000)}}
    writer.submit(record(3), too_large, weights(3), due_s=time.perf_counter())
    assert isinstance(told(writer), CheckpointFailed)
    assert {name.split("/")[0] for name in ours.store.names()} >= {"step-00000001", "step-00000002"}
