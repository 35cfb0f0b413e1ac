"""Where a step's time goes, through the real loop."""

import gzip
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from data_shards.reading.reader import ShardSet
from data_shards.sample import Sample
from training.config import RunConfig, with_settings
from training.events import EventLog
from training.loop import Phase, train
from training.profile import StepProfile, Verdict, WorkerTimes, exposed_s, verdict_of
from training.world import World

from .test_loop import Shards, ddp_events

CPU = torch.device("cpu")


def profiled(run: RunConfig, shards: Shards, folder: Path) -> Verdict:
    with StepProfile(folder / "profile", world=World(), device=CPU) as profile:
        train(run, shards[0], folder, run_id="profiled", watch=profile)
    assert profile.verdict is not None
    stored = Verdict.from_bytes((folder / "profile" / "verdict.json").read_bytes(), origin="verdict.json")
    assert stored == profile.verdict
    assert sum(stored.shares.values()) == pytest.approx(1.0)
    return stored


@pytest.fixture(scope="module")
def two_epochs(tiny_run: RunConfig) -> RunConfig:
    return with_settings(tiny_run, ["loop.epochs=2"])  # of 5 steps


def test_a_run_that_computes_is_called_compute_bound(two_epochs: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    wide = with_settings(two_epochs, ["model.widths=[32,64]"])
    verdict = profiled(wide, simulated_shards, tmp_path)
    assert verdict.bound == "compute"
    assert verdict.sentence.startswith("compute-bound: of a step's ")
    assert verdict.shares["communication"] == 0.0
    assert verdict.workers[0].steps == 2  # from the fourth on, to the epoch's end
    assert set(verdict.workers[0].phases_s) == {"data", "forward", "backward", "update"}
    with gzip.open(tmp_path / "profile" / "trace-0.json.gz") as trace:
        names = {event.get("name") for event in json.load(trace)["traceEvents"]}
    assert {"rapt: forward", "rapt: backward", "aten::convolution"} <= names


def test_a_run_whose_reader_is_slow_is_called_data_bound(
    two_epochs: RunConfig, simulated_shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ShardSet.read
    began_s, step_s = 0.0, 0.1

    def slowly(self: ShardSet, number: int, inputs: Sequence[str] | None = None, optional: Sequence[str] = ()) -> Sample:
        time.sleep(step_s)  # for one clip of eight what a step computes for all, however busy the machine is
        return read(self, number, inputs, optional)

    def watch(phase: Phase, step: int) -> None:
        nonlocal began_s, step_s
        if phase == "data" and step > 1:
            step_s = time.perf_counter() - began_s
        elif phase == "forward":
            began_s = time.perf_counter()
        profile(phase, step)

    monkeypatch.setattr(ShardSet, "read", slowly)
    with StepProfile(tmp_path / "profile", world=World(), device=CPU) as profile:
        train(two_epochs, simulated_shards[0], tmp_path, run_id="slow", watch=watch, stop_after_step=5)
    assert profile.verdict is not None
    assert profile.verdict.bound == "data"
    assert profile.verdict.sentence.startswith("data-bound: ")


def _profiled_worker(rank: int, world_size: int, port: int, run_json: str, data: str, folder: str, cache: Path | None) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        EventLog(Path(folder) / "events.jsonl").close()
        world = World(rank, world_size)
        with StepProfile(Path(folder) / "profile", world=world, device=CPU) as profile:
            train(RunConfig.model_validate_json(run_json), data, Path(folder), run_id="p", world=world, watch=profile)
    finally:
        dist.destroy_process_group()


def test_workers_give_one_verdict_that_knows_their_communication(
    two_epochs: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    # few and small pictures, but four million weights to be exchanged
    heavy = with_settings(two_epochs, ["model.hidden=512", "model.levels=2", "model.kernel=4", "optimiser.name=sgd"])
    ddp_events(heavy, simulated_shards, tmp_path, 2, worker=_profiled_worker)
    verdict = Verdict.from_bytes((tmp_path / "profile" / "verdict.json").read_bytes(), origin="verdict.json")
    assert [worker.steps for worker in verdict.workers] == [2, 2]
    assert all(worker.communication_s > 0 for worker in verdict.workers)
    assert verdict.shares["communication"] > 0.02
    assert {path.name for path in (tmp_path / "profile").iterdir()} == {"trace-0.json.gz", "trace-1.json.gz", "verdict.json"}


def worker(data_s: float, compute_s: float, communication_s: float) -> WorkerTimes:
    phases = {"data": data_s, "forward": compute_s, "backward": communication_s, "update": 0.0, "evaluate": 100.0}
    return WorkerTimes(steps=2, phases_s=phases, communication_s=communication_s)


def test_who_waits_for_a_slow_peer_does_not_communicate() -> None:
    slow, waiting = worker(8.0, 1.0, 1.0), worker(0.0, 1.0, 9.0)
    verdict = verdict_of([slow, waiting])
    assert verdict.bound == "data"
    assert verdict.shares == pytest.approx({"data": 0.8, "compute": 0.1, "communication": 0.1})
    assert verdict.step_s == 5.0


def test_what_the_network_takes_of_all_workers_is_communication() -> None:
    verdict = verdict_of([worker(0.5, 3.0, 6.5), worker(0.0, 3.0, 7.0)])
    assert verdict.bound == "communication"
    assert verdict.sentence == ("communication-bound: of a step's 5 s, 5% is waiting for data, 30% computing, 65% communicating")


def test_communication_that_computing_hides_costs_nothing() -> None:
    assert exposed_s([(0.0, 4.0), (3.0, 6.0)], [(1.0, 2.0), (5.0, 9.0)]) == pytest.approx(4.0)
    assert exposed_s([(1.0, 2.0)], [(0.0, 3.0)]) == 0.0
    assert exposed_s([], []) == 0.0


def test_a_run_that_is_too_short_has_no_verdict(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    with StepProfile(tmp_path / "profile", world=World(), device=CPU) as profile:
        train(tiny_run, simulated_shards[0], tmp_path, run_id="short", watch=profile, stop_after_step=3)
    assert profile.verdict is None
    assert not (tmp_path / "profile").exists()


def test_a_run_that_fails_leaves_no_verdict_and_no_profiler_on(tmp_path: Path) -> None:
    def fail() -> None:
        with StepProfile(tmp_path / "profile", world=World(), device=CPU) as profile:
            for step in range(1, 6):
                profile("data", step)
                profile("update", step)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not (tmp_path / "profile").exists()
    with torch.profiler.profile():  # a second one may start
        pass
