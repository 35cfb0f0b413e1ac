"""The journey on real Ray: shards -> two Ray Train workers -> MLflow -> registry -> Ray Serve -> an HTTP answer.

One Ray instance is started for the whole file and listens on loopback alone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.home import mlflow_uri, run_folder
from cluster.job import TrainingJob
from cluster.launch import connect_ray, disconnect_ray, run_local, run_on_ray
from data_shards.building.build import build_shards
from data_shards.datasets import DATASETS
from data_shards.errors import ConfigError, ModelError, ServiceError
from data_shards.manifest import Manifest
from data_shards.storage.source import Source
from serving.predictor import Predictor
from serving.service import start_service, stop_service
from tests.conftest import TINY_PREPROCESS
from tests.object_server import free_ports
from training.config import RunConfig, with_settings
from training.events import Event, RunStarted, StepDone
from training.registry import RegisteredModel, resolve

pytestmark = pytest.mark.slow
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    connect_ray(None, num_cpus=4)
    yield
    disconnect_ray()


def job(run: RunConfig, shards: tuple[Path, Manifest], run_id: str, workers: int) -> TrainingJob:
    folder = run_folder(run_id)
    return TrainingJob(run=run, data=str(shards[0]), run_id=run_id, run_folder=folder, mlflow_uri=mlflow_uri(), workers=workers)


def test_shards_made_on_ray_have_the_bytes_of_those_made_here_though_a_task_is_killed(
    simulated_folder: Path, simulated_shards: tuple[Path, Manifest], tmp_path: Path
) -> None:
    from cluster.ray_build import write_on_ray

    listing = DATASETS["simulated"](Source(simulated_folder))
    killed = []

    def kill_the_first_writer(done: int, total: int) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if not killed and process.name().startswith("ray::_write_shard"):
                    killed.append(process.pid)
                    process.kill()

    manifest = build_shards(
        listing,
        tmp_path,
        preprocess=TINY_PREPROCESS,
        clips_per_shard=16,
        num_workers=2,
        write=write_on_ray,
        progress=kill_the_first_writer,
    )
    assert killed
    assert manifest == simulated_shards[1]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in simulated_shards[0].iterdir()}


def listening_beyond_loopback() -> set[tuple[str, str, int]]:
    """(process, address, port) of everything that this process and its children listen on, but loopback."""
    found = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):  # one that ends while it is looked at
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in LOOPBACK:
                    found.add((process.name(), connection.laddr.ip, connection.laddr.port))
    return found


def losses(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepDone)]


def test_ray_train_has_the_losses_of_the_plain_loop_and_its_model_is_served(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], simulated_folder: Path
) -> None:
    run = with_settings(tiny_run, ["loop.precision=fp64", "model.dropout=0.3"])
    alone: list[Event] = []
    together: list[Event] = []
    run_local(job(run, simulated_shards, "alone", 1), alone.append)
    beyond_loopback: set[tuple[str, str, int]] = set()

    def listen(event: Event) -> None:
        together.append(event)
        beyond_loopback.update(listening_beyond_loopback())

    result = run_on_ray(job(run, simulated_shards, "together", 2), listen)
    assert beyond_loopback == set()
    assert losses(together) == pytest.approx(losses(alone), rel=1e-7)
    assert len(losses(together)) == 5
    assert result.version == "2"

    registered = resolve("models:/engagement/2", mlflow_uri())
    port = free_ports(1)[0]
    url = start_service(registered, host="127.0.0.1", port=port)
    try:
        clip = sorted((simulated_folder / "clips").iterdir())[0]
        answer = httpx.post(f"{url}/v1/score", files={"clip": (clip.name, clip.read_bytes())}, timeout=60)
        assert answer.status_code == 200, answer.text
        expected = Predictor(RegisteredModel("engagement", "2", result.bundle)).score_file(clip)
        assert answer.json()["probabilities"] == expected.probabilities
        assert answer.json()["model"]["version"] == "2"
        assert httpx.get(f"{url}/readyz").json()["status"] == "ready"
        assert "Drop a webcam clip here" in httpx.get(url).text
        bad = httpx.post(f"{url}/v1/score", files={"clip": ("a.mp4", b"junk")}, timeout=60)
        assert bad.status_code == 422
        with pytest.raises(ServiceError, match=f"port {port} on 127.0.0.1: Address already in use"):
            start_service(registered, host="127.0.0.1", port=port)
        assert listening_beyond_loopback() == set()
    finally:
        stop_service()


def test_a_workers_own_error_comes_back_as_its_sentence(tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest]) -> None:
    run = with_settings(tiny_run, ["optimiser.name=sgd", "optimiser.lr=1e30", "optimiser.clip_norm=0", "loop.epochs=3"])
    told: list[Event] = []
    with pytest.raises(ModelError, match=r"is (nan|inf); the run has diverged: start a new one"):
        run_on_ray(job(run, simulated_shards, "diverges", 2), told.append)
    assert [type(event) for event in told].count(RunStarted) == 1, "what no retry mends is not retried"


def test_a_batch_that_cannot_be_shared_starts_nothing(tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest]) -> None:
    with pytest.raises(ConfigError, match="3 workers cannot share evenly"):
        run_on_ray(job(tiny_run, simulated_shards, "odd", 3), lambda event: None)
    assert not run_folder("odd").exists()


def test_the_demo_runs_from_clips_to_a_score(tmp_path: Path) -> None:
    settings = ["--set", "loop.epochs=1", "--set", "model.widths=[4,8]"]
    command = [sys.executable, "-m", "cluster", "demo", "--clips", "64", "--port", str(free_ports(1)[0]), *settings]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    for sentence in ("held-out simulated people", "majority class", "made as 'very low'", "made as 'very high'", "mlflow ui"):
        assert sentence in result.stdout
    assert "no figure on these clips is a result on people" in result.stdout


def test_more_gpus_than_there_are_is_one_sentence(tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest]) -> None:
    with pytest.raises(ConfigError, match=r"2 workers need 128 GPUs, the cluster has"):
        run_on_ray(replace(job(tiny_run, simulated_shards, "greedy", 2), gpus_per_worker=64), lambda event: None)


def test_a_cluster_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"Ray at 127\.0\.0\.1:9: nothing answers"):
        connect_ray("127.0.0.1:9", num_cpus=1)


@contextlib.contextmanager
def serving(bundle: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`rapt serve` as a person starts it, in a process group of its own as a terminal makes one, and its port."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "cluster", "serve", str(bundle), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as server:
        assert server.stdout is not None
        try:
            assert f"http://127.0.0.1:{port}" in server.stdout.readline()
            yield server, port
        finally:
            server.kill()


def test_serve_as_a_person_calls_it(tiny_bundle: Path, simulated_folder: Path, tmp_path: Path) -> None:
    clip = sorted((simulated_folder / "clips").iterdir())[0]

    def ask(port: int) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{port}/v1/score", files={"clip": (clip.name, clip.read_bytes())}, timeout=60)

    with serving(tiny_bundle) as (server, port):
        answer = ask(port)
        assert answer.status_code == 200
        assert answer.json()["model"]["simulated"]
        second = subprocess.run(server.args, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert f"port {port}" in second.stderr
        with ThreadPoolExecutor(4) as pool:
            under_way = [pool.submit(ask, port) for _ in range(4)]
            time.sleep(0.3)
            os.killpg(server.pid, signal.SIGINT)  # Ctrl-C reaches Ray's processes too
            answers = [each.result() for each in under_way]
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert 200 in {answer.status_code for answer in answers}, "those under way are answered"
        assert {answer.headers.get("Retry-After") for answer in answers if answer.status_code == 503} <= {"5"}
        assert server.wait(timeout=60) == 0
        assert server.stdout is not None
        assert "the endpoint has stopped; every request was answered" in server.stdout.read()


def test_a_second_ctrl_c_ends_the_endpoint_at_once(tiny_bundle: Path, real_data: Path) -> None:
    clip = (real_data / "videos" / "crowd_1080p.mp4").read_bytes()

    def ask(port: int) -> str:
        try:
            return str(httpx.post(f"http://127.0.0.1:{port}/v1/score", files={"clip": clip}, timeout=60).status_code)
        except httpx.HTTPError:
            return "cut off"

    with serving(tiny_bundle) as (server, port), ThreadPoolExecutor(8) as pool:
        under_way = [pool.submit(ask, port) for _ in range(8)]
        time.sleep(1)
        os.killpg(server.pid, signal.SIGINT)
        time.sleep(0.5)
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait(timeout=60) == 130
        assert "cut off" in {each.result() for each in under_way}
        assert server.stderr is not None
        assert server.stderr.read().strip().endswith("stopped")
