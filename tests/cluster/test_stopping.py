"""SIGTERM and Ctrl-C: the step is ended, a checkpoint written, and the run that goes on is the undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster.waiting import StopRequest
from data_shards.errors import Stopped
from data_shards.manifest import Manifest
from tests.conftest import ROOT, TINY_SETTINGS
from tests.training.test_loop import losses, run_events
from training.config import RunConfig, with_settings
from training.events import CheckpointSaved, Event, RunStarted, StepDone
from training.loop import train

Shards = tuple[Path, Manifest]
NUM_MOMENTS = 10


def test_sigterm_at_any_moment_leaves_a_run_that_goes_on_bit_for_bit(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    run = with_settings(tiny_run, ["loop.global_batch=4", "model.dropout=0.3"])
    whole = run_events(run, simulated_shards, tmp_path / "whole")
    weights = (tmp_path / "whole" / "bundle" / "model.safetensors").read_bytes()
    step_s = sum(4 / event.samples_per_s for event in whole if isinstance(event, StepDone)) / 10
    rng = random.Random(5)
    equal = 0
    for number in range(NUM_MOMENTS):
        folder, stop, events = tmp_path / str(number), StopRequest(), []  # type: tuple[Path, StopRequest, list[Event]]
        after_step, delay_s = rng.randrange(1, 7), rng.uniform(0, 2 * step_s)
        killer = threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGTERM))

        def listen(event: Event, events: list[Event] = events, at: int = after_step, killer: threading.Timer = killer) -> None:
            events.append(event)
            if isinstance(event, StepDone) and event.step == at:
                killer.start()
            if isinstance(event, StepDone) and event.step == at + 2:
                killer.join()  # a machine may be faster than it was before

        with stop.on_signals():
            with pytest.raises(Stopped) as stopped:
                train(run, simulated_shards[0], folder, run_id="r", listeners=[listen], should_stop=stop)
            killer.join()
        last = [event for event in events if isinstance(event, StepDone)][-1].step
        assert after_step < last < 10
        assert f"stopped at step {last}; `rapt train --resume r` goes on from there" in str(stopped.value)
        assert [event.step for event in events if isinstance(event, CheckpointSaved)][-1] == last
        train(run, simulated_shards[0], folder, run_id="r", listeners=[events.append])
        assert [event.start_step for event in events if isinstance(event, RunStarted)] == [0, last]
        equal += losses(events) == losses(whole) and (folder / "bundle" / "model.safetensors").read_bytes() == weights
    assert equal == NUM_MOMENTS
    assert (stop.signal_number, stop.exit_code) == (signal.SIGTERM, 143)


def test_a_second_signal_stops_at_once_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stop = StopRequest()

    def two_signals() -> None:
        with stop.on_signals():
            os.kill(os.getpid(), signal.SIGINT)
            assert stop()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        two_signals()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert stop.exit_code == 130


def test_a_request_is_asked_from_any_thread() -> None:
    stop = StopRequest()
    with stop.on_signals():
        asking = threading.Thread(target=stop.ask)
        asking.start()
        asking.join()
    assert stop()
    assert stop.exit_code == 143  # that of a node which is taken away


@pytest.mark.slow
def test_rapt_train_ends_with_a_sentence_and_goes_on(simulated_shards: Shards, tmp_path: Path) -> None:
    settings = [part for setting in (*TINY_SETTINGS, "loop.epochs=200") for part in ("--set", setting)]
    command = [sys.executable, "-m", "cluster", "train", "demo", "--data", str(simulated_shards[0]), "--local", *settings]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAPT_HOME": str(tmp_path),
        "RAPT_TRAIN_CHECKPOINTS": str(tmp_path / "c"),
    }
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as training:
        while not any(b'"step"' in log.read_bytes() for log in tmp_path.glob("runs/*/events.jsonl")):
            assert training.poll() is None, training.communicate()
            time.sleep(0.1)
        training.send_signal(signal.SIGTERM)
        said = training.communicate(timeout=60)[1]
    (folder,) = (tmp_path / "runs").iterdir()
    assert training.returncode == 143, said
    assert f"run {folder.name}: stopped at step" in said
    assert f"`rapt train --resume {folder.name}` goes on from there" in said
    assert "Error" not in said
    assert json.loads((folder / "run.json").read_text())["checkpoints"] == str(tmp_path / "c")
    (checkpoint,) = (tmp_path / "c" / folder.name).glob("step-*")
    last = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()][-1]
    assert (last["kind"], last["path"]) == ("checkpoint", str(checkpoint))
