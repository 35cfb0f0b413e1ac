"""Runs on Ray that lose workers, nodes or their driver, and end as if nothing had happened.

One Ray cluster of a head and a second node, with room for a worker each, is started on loopback for the file.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from cluster.home import mlflow_uri, run_folder
from cluster.job import JobResult, TrainingJob
from cluster.launch import connect_ray, disconnect_ray, run_on_ray
from cluster.waiting import StopRequest
from data_shards.errors import ServiceError, Stopped
from data_shards.manifest import Manifest
from tests.cluster.ray_faults import Faults, random_kills, train_workers
from tests.conftest import ROOT
from training.config import RunConfig, with_settings
from training.events import Event, Notice, StepDone, WorkersChanged
from training.tracking import TrackingSettings

pytestmark = pytest.mark.slow
SETTINGS = ["loop.epochs=8", "loop.checkpoint_every_steps=4"]  # 40 steps
SEED = 20261121


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    connect_ray(cluster.address, num_cpus=2)
    yield cluster
    disconnect_ray()
    cluster.shutdown()


@pytest.fixture(scope="module")
def long_run(tiny_run: RunConfig) -> RunConfig:
    return with_settings(tiny_run, SETTINGS)


def job(run: RunConfig, shards: tuple[Path, Manifest], run_id: str, **settings: Any) -> TrainingJob:
    folder = run_folder(run_id)
    return TrainingJob(
        run=run, data=str(shards[0]), run_id=run_id, run_folder=folder, mlflow_uri=mlflow_uri(), **{"workers": 2, **settings}
    )


def bundle_bytes(folder: Path) -> bytes:
    return (folder / "bundle" / "model.safetensors").read_bytes()


class Undisturbed(NamedTuple):
    """What two workers do whom nothing happens: the events, how the job ended, the weights of the bundle."""

    faults: Faults
    result: JobResult
    weights: bytes

    @property
    def steps(self) -> dict[int, tuple[int, float]]:
        return self.faults.steps


@pytest.fixture(scope="module")
def undisturbed(
    ray_cluster: Any, long_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    """MLflow does not answer, and is waited for at the end for twice as long as makes a hang."""
    faults, home = Faults(), tmp_path_factory.mktemp("undisturbed")
    alone = TrainingJob(
        run=long_run,
        data=str(simulated_shards[0]),
        run_id="undisturbed",
        run_folder=home / "run",
        mlflow_uri="http://127.0.0.1:9",
        workers=2,
        hang_after_s=6.0,
        tracking=TrackingSettings(close_wait_s=12.0),
    )
    result = run_on_ray(alone, faults)
    assert sorted(faults.steps) == list(range(1, 41))
    return Undisturbed(faults, result, bundle_bytes(home / "run"))


def test_a_run_that_waits_for_mlflow_at_its_end_is_no_hang(undisturbed: Undisturbed) -> None:
    assert (undisturbed.result.version, undisturbed.result.mlflow_run_id) == ("", "")
    assert [(change.alive, change.reason) for change in undisturbed.faults.changes] == [(2, "")]
    assert undisturbed.faults.starts == [0]
    notices = [event.sentence for event in undisturbed.faults.events if isinstance(event, Notice)]
    assert any("does not answer" in sentence for sentence in notices), notices
    assert any("`rapt runs sync undisturbed` sends them" in sentence for sentence in notices), notices


def test_workers_that_are_killed_leave_no_trace(
    undisturbed: Undisturbed, long_run: RunConfig, simulated_shards: tuple[Path, Manifest]
) -> None:
    """The first kill is one more than the run may have, and its sentence is true: the run goes on, through four others."""
    print("seed", SEED)
    faults = random_kills(SEED, kills=5, last_step=36)
    killed = job(long_run, simulated_shards, "killed", max_failures=0)
    with pytest.raises(ServiceError, match=r"^run killed: worker [01] died; `rapt train --resume killed` goes on from the last"):
        run_on_ray(killed, faults)
    assert (faults.done, len(faults.starts)) == (1, 1)
    run_on_ray(replace(killed, max_failures=4), faults)
    assert faults.done == 5
    assert len(faults.starts) == 6
    assert faults.steps == undisturbed.steps
    assert bundle_bytes(killed.run_folder) == undisturbed.weights
    assert sum(change.alive == 1 and "died" in change.reason for change in faults.changes) == 5
    log = (killed.run_folder / "events.jsonl").read_text()
    assert log.count('"kind":"workers"') == 6


def test_a_notice_a_hang_and_a_stop_leave_no_trace(
    undisturbed: Undisturbed, long_run: RunConfig, simulated_shards: tuple[Path, Manifest]
) -> None:
    """SIGTERM to a worker, SIGSTOP to a worker, then a person's stop, then the run is taken up again.

    The timeout leaves time for a busy machine: the first worker alone imports MLflow while the others wait.
    """
    stop = StopRequest()
    faults = Faults().hit(6, signal.SIGTERM, 1).hit(16, signal.SIGSTOP, 1)
    faults.plan[28] = stop.ask
    bad = job(long_run, simulated_shards, "bad-day", timeout_s=20.0, hang_after_s=3.0)
    with pytest.raises(Stopped, match=r"run bad-day: stopped at step \d+; `rapt train --resume bad-day` goes on"):
        run_on_ray(bad, faults, stop=stop)
    reasons = [change.reason for change in faults.changes]
    assert any("got SIGTERM" in reason for reason in reasons)
    hangs = [reason for reason in reasons if "is behind" in reason]
    assert hangs, reasons
    assert "and silent" in hangs[0]
    assert list((bad.run_folder / "hangs").glob("rank-*.txt"))
    first = faults.starts[1]
    assert first >= 6, "the checkpoint of the step at which the notice was seen is what the next attempt starts from"
    assert not train_workers()
    run_on_ray(bad, faults)
    assert faults.steps == undisturbed.steps
    assert bundle_bytes(bad.run_folder) == undisturbed.weights


def test_a_stop_is_heard_where_no_worker_can_start(
    ray_cluster: Any, long_run: RunConfig, simulated_shards: tuple[Path, Manifest]
) -> None:
    """A Ray Train worker takes as long as it likes to get a CPU that somebody else has."""
    import ray

    taken = ray.util.placement_group([{"CPU": 1.0}])
    ray.get(taken.ready())
    stop, said = StopRequest(), []  # type: tuple[StopRequest, list[str]]

    def listen(event: Event) -> None:
        said.append(getattr(event, "reason", ""))
        stop.ask()

    try:
        with pytest.raises(Stopped, match=r"^run waits: stopped; `rapt train --resume waits` goes on"):
            run_on_ray(job(long_run, simulated_shards, "waits"), listen, stop=stop)
    finally:
        ray.util.remove_placement_group(taken)
    assert said == ["waiting for 2 CPUs, 1 are free"]


def test_a_run_goes_down_with_its_nodes_and_up_again(
    ray_cluster: Any, long_run: RunConfig, simulated_shards: tuple[Path, Manifest]
) -> None:
    import ray

    run = with_settings(long_run, ["loop.epochs=40", "loop.checkpoint_every_steps=0"])  # each epoch ends in a checkpoint
    lent = list(ray_cluster.worker_nodes)
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)  # what an earlier test took is given back a little later
    began_s = time.monotonic()
    sizes: list[int] = []
    steps: dict[int, int] = {}

    def listen(event: Event) -> None:
        if isinstance(event, WorkersChanged):
            print(f"{time.monotonic() - began_s:.1f} s: {event.alive} of {event.wanted}, {event.reason}")
            if event.alive:  # none is at work while it waits for room, which on a slow machine is said
                sizes.append(event.alive)
            if event.alive == 1 and event.reason.startswith("started again"):
                ray_cluster.add_node(num_cpus=1)
        if isinstance(event, StepDone):
            steps[event.step] = event.position
            if lent:
                ray_cluster.remove_node(lent.pop(), allow_graceful=False)

    elastic = job(run, simulated_shards, "elastic", workers=2, min_workers=1)
    run_on_ray(elastic, listen, resize_every_s=1.0)
    assert (sizes[0], sizes[-1]) == (2, 2)
    assert 1 in sizes
    # whoever read them, and however many they were: each global batch once, none left out
    assert steps == {step: step * run.loop.global_batch for step in range(1, 201)}


def test_workers_end_by_themselves_when_their_driver_is_killed(
    ray_cluster: Any, long_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path: Path
) -> None:
    settings = [f"--set={setting}" for setting in ("loop.epochs=4000", "loop.checkpoint_every_steps=4", "model.widths=[4,8]")]
    command = [sys.executable, "-m", "cluster", "train", "demo", "--data", str(simulated_shards[0]), "--workers", "2"]
    with subprocess.Popen([*command, *settings, "--address", ray_cluster.address], cwd=ROOT, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 180
        runs = run_folder("x").parent
        while not list(runs.glob("*/checkpoints/step-*")) and time.monotonic() < deadline:
            time.sleep(0.2)
        there = train_workers()
        driver.kill()
    assert len(there) == 2
    _, left = psutil.wait_procs(there, timeout=30)
    assert not left
    (folder,) = list(runs.iterdir())
    assert list(folder.glob("checkpoints/step-*/checkpoint.json"))
