"""A real MLflow server that goes away, is slow, loses answers and refuses: the run never waits, and the record is whole."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cluster.command_line import rapt
from cluster.home import run_folder
from cluster.job import TrainingJob
from cluster.launch import run_local
from data_shards.manifest import Manifest, read_manifest
from tests.conftest import ROOT
from tests.fault_proxy import Fault, FaultProxy, fault_proxy
from training.bundle import read_record
from training.config import RunConfig
from training.events import CheckpointSaved, EpochDone, Event, Notice, RunFinished, RunStarted, StepDone
from training.tracking import MlflowTracker, TrackingSettings, mlflow_client
from training.tracking.client import EXPERIMENT, find_run
from training.tracking.entries import Metrics, RunOpened
from training.tracking.spool import Spool, read_position, waiting_records
from training.tracking.sync import sync_run

Shards = tuple[Path, Manifest]
METHODS = ("GET", "POST", "PATCH", "PUT")


@pytest.fixture
def way(tracking_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before the server, through which Rapt's commands go from here on. A request may take 2 s."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with fault_proxy(tracking_server) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.endpoint)
        yield proxy


def everything(kind: Any, **settings: Any) -> list[Fault]:
    return [Fault(kind, method=method, **settings) for method in METHODS]


def step_done(step: int) -> StepDone:
    return StepDone(
        step=step,
        position=8 * step,
        epoch=step / 10,
        loss=1 / step,
        lr=0.1,
        grad_norm=1.0,
        samples_per_s=9.0,
        data_wait_share=0.1,
    )


def events_of(bundle: Path, *, first: int = 1, last: int = 200) -> Iterator[Event]:
    """A run of `last` steps, ten an epoch, from step `first` on: as the loop tells it."""
    record = read_record(bundle)
    yield RunStarted(run_id="r", start_step=first - 1, total_steps=last, steps_per_epoch=10.0, global_batch=8, num_parameters=1)
    for step in range(first, last + 1):
        yield step_done(step)
        if step % 10 == 0:
            yield EpochDone(epoch=step // 10, step=step, train_loss=2 / step, validation=record.validation, is_best=step <= 50)
            yield CheckpointSaved(step=step, path=f"checkpoints/step-{step:08d}")
    yield RunFinished(bundle=str(bundle), best_epoch=5, test=record.test)


def tracker_of(uri: str, run: RunConfig, shards: Shards, name: str, said: list[str], **settings: float) -> MlflowTracker:
    return MlflowTracker(
        uri,
        run,
        name=name,
        tags={"recipe": run.recipe},
        run_folder=run_folder(name),
        manifest=shards[1],
        data=str(shards[0]),
        settings=TrackingSettings(**settings),
        notify=said.append,
    )


def run_named(uri: str, name: str) -> Any:
    client = mlflow_client(uri)
    found = find_run(client, client.get_experiment_by_name(EXPERIMENT).experiment_id, name)
    assert found is not None
    return found


def record_of(uri: str, name: str) -> dict[str, Any]:
    """All that a server holds of a run, but its name and its times."""
    client, run = mlflow_client(uri), run_named(uri, name)
    history = {key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}
    files = {file.path for folder in ("", "bundle") for file in client.list_artifacts(run.info.run_id, folder)}
    tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.runName"}
    digests = [data.dataset.digest for data in run.inputs.dataset_inputs]
    return {
        "status": run.info.status,
        "params": run.data.params,
        "history": history,
        "files": files,
        "tags": tags,
        "data": digests,
    }


def until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_a_server_that_was_away_and_lost_answers_has_the_record_of_an_undisturbed_run(
    way: FaultProxy, tracking_server: str, tiny_run: RunConfig, simulated_shards: Shards, tiny_bundle: Path
) -> None:
    said: list[str] = []
    for name in ("undisturbed", "disturbed"):
        tracker = tracker_of(way.endpoint, tiny_run, simulated_shards, name, said, close_wait_s=120)
        for number, event in enumerate(events_of(tiny_bundle)):
            if name == "disturbed" and number == 60:
                until(lambda: read_position(run_folder("disturbed") / "tracking").num_sent > 30)
                way.faults += everything("status", status=503)
            if name == "disturbed" and number == 120:
                until(lambda: any("does not answer" in sentence for sentence in said))
                way.faults.clear()
                way.faults += everything("lose-answer", times=3)
            tracker(event)
        tracker.close("FINISHED")
        assert tracker.mlflow_run_id, said
        assert waiting_records(run_folder(name) / "tracking") == 0
    undisturbed, disturbed = (record_of(tracking_server, name) for name in ("undisturbed", "disturbed"))
    assert disturbed == undisturbed
    assert undisturbed["history"]["loss"] == [(step, 1 / step) for step in range(1, 201)]
    assert undisturbed["status"] == "FINISHED"
    assert undisturbed["tags"]["best_step"] == "50"
    assert {"bundle/model.safetensors", "bundle/MLmodel", "curves.png"} <= undisturbed["files"]
    assert any("does not answer" in sentence for sentence in said)
    assert any(sentence.endswith("answers again") for sentence in said)


def test_a_run_ends_while_no_request_is_answered_and_sync_sends_and_registers(
    way: FaultProxy, tracking_server: str, tiny_run: RunConfig, simulated_shards: Shards
) -> None:
    way.faults += everything("delay", delay_s=3600.0)
    told: list[Event] = []
    job = TrainingJob(
        run=tiny_run,
        data=str(simulated_shards[0]),
        run_id="held",
        run_folder=run_folder("held"),
        mlflow_uri=way.endpoint,
        tracking=TrackingSettings(close_wait_s=0.2),
    )
    result = run_local(job, told.append)
    assert result is not None
    assert (result.version, result.mlflow_run_id) == ("", "")
    assert way.of("POST") == way.of("GET") == []  # nothing was answered, and five steps were made
    assert sum(isinstance(event, StepDone) for event in told) == 5
    waiting = waiting_records(run_folder("held") / "tracking")
    sentences = [event.sentence for event in told if isinstance(event, Notice)]
    assert sentences[-1] == f"{waiting} records wait for MLflow at {way.endpoint}; `rapt runs sync held` sends them"

    way.faults.clear()
    way.faults += everything("status", status=503)
    away = CliRunner().invoke(rapt, ["runs", "sync", "held"])
    assert "does not answer" in str(away.exception)
    way.faults.clear()
    synced = CliRunner().invoke(rapt, ["runs", "sync"], catch_exceptions=False)
    assert synced.output == f"held: {waiting} records sent, engagement version 1\n"
    run = run_named(tracking_server, "held")
    assert run.info.status == "FINISHED"
    assert run.data.tags["data_digest"] == simulated_shards[1].digest
    assert mlflow_client(tracking_server).get_model_version("engagement", "1").tags["run"] == "held"
    started = read_manifest(simulated_shards[0])
    assert started.digest == run.data.tags["data_digest"]
    assert CliRunner().invoke(rapt, ["runs", "sync"]).output == "nothing waits for MLflow\n"
    assert CliRunner().invoke(rapt, ["runs", "sync", "held"]).output == "held: 0 records sent, engagement version 1\n"


def test_a_server_that_refuses_is_told_once_and_asked_no_more(
    way: FaultProxy, tiny_run: RunConfig, simulated_shards: Shards
) -> None:
    way.faults += everything("status", status=401)
    said: list[str] = []
    tracker = tracker_of(way.endpoint, tiny_run, simulated_shards, "refused", said, close_wait_s=120)
    until(lambda: bool(said))
    asked = len(way.requests)
    for step in range(1, 100):
        tracker(step_done(step))
    tracker.close("FINISHED")  # does not wait for what will never come
    assert len(way.requests) == asked == 1
    assert len(said) == 2
    assert f"MLflow at {way.endpoint} refuses" in said[0]
    assert "rapt runs sync refused" in said[1]


def test_a_run_that_was_deleted_ends_the_sending_and_one_bad_name_does_not(
    tracking_server: str, tiny_run: RunConfig, simulated_shards: Shards
) -> None:
    said: list[str] = []
    tracker = tracker_of(tracking_server, tiny_run, simulated_shards, "names", said, close_wait_s=120)
    tracker(step_done(1))
    tracker._told.tell(Metrics(at_ms=1, step=1, values={"no such name?": 1.0}))
    tracker(step_done(2))
    tracker.close("FINISHED")
    assert [step for step, _ in record_of(tracking_server, "names")["history"]["loss"]] == [1, 2]
    assert said == [f"MLflow at {tracking_server} did not take 1 record, which the spool still has"]

    said.clear()
    tracker = tracker_of(tracking_server, tiny_run, simulated_shards, "deleted", said, close_wait_s=120)
    until(lambda: bool(read_position(run_folder("deleted") / "tracking").mlflow_run_id))
    mlflow_client(tracking_server).delete_run(run_named(tracking_server, "deleted").info.run_id)
    tracker(step_done(1))
    tracker.close("FINISHED")
    assert "has deleted the run" in said[0]
    assert len(said) == 2


def test_a_killed_run_goes_on_with_its_spool_and_each_step_is_there_once(
    way: FaultProxy, tracking_server: str, tiny_run: RunConfig, simulated_shards: Shards, tiny_bundle: Path
) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
from tests.training.test_tracking_faults import *
from training.config import RunConfig
bundle = Path({str(tiny_bundle)!r})
run, shards = read_record(bundle).run, Path({str(simulated_shards[0])!r})
tracker = tracker_of({way.endpoint!r}, run, (shards, read_manifest(shards)), "killed", [])
for event in events_of(bundle):
    if isinstance(event, StepDone) and event.step == 57:
        until(lambda: read_position(run_folder("killed") / "tracking").num_sent > 20)
        os.kill(os.getpid(), signal.SIGKILL)
    tracker(event)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ.copy(), check=False)
    assert done.returncode == -signal.SIGKILL
    spool = run_folder("killed") / "tracking"
    with (spool / "spool.jsonl").open("ab") as file:
        file.write(b'{"kind":"metrics","at_ms":17')  # of the write in which it was killed
    position = read_position(spool)
    assert 20 < position.num_sent < 90
    (spool / "position.json").unlink()  # the worst: nobody knows what was sent, so all is sent again
    said: list[str] = []
    tracker = tracker_of(way.endpoint, tiny_run, simulated_shards, "killed", said, close_wait_s=120)
    for event in events_of(tiny_bundle, first=51):  # from the checkpoint of step 50
        tracker(event)
    tracker.close("FINISHED")
    record = record_of(tracking_server, "killed")
    assert record["history"]["loss"] == [(step, 1 / step) for step in range(1, 201)]
    assert [step for step, _ in record["history"]["train_loss"]] == list(range(10, 201, 10))
    assert (record["status"], said) == ("FINISHED", [])


def test_a_nodes_metrics_wait_for_the_run_that_another_worker_makes(
    tracking_server: str, tiny_run: RunConfig, simulated_shards: Shards
) -> None:
    tracker = tracker_of(tracking_server, tiny_run, simulated_shards, "nodes", [], close_wait_s=120)
    node = Spool(run_folder("nodes") / "tracking" / "other-node")
    node.append(RunOpened(name="nodes", makes_it=False, at_ms=1))
    node.append(Metrics(at_ms=2, step=0, values={"system/other-node/cpu_utilization_percentage": 50.0}))
    node.close()
    tracker.close("FINISHED")
    assert sync_run(run_folder("nodes"), tracking_server).num_sent == 2
    assert run_named(tracking_server, "nodes").data.metrics["system/other-node/cpu_utilization_percentage"] == 50.0
