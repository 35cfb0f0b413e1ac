"""Jobs on a real Ray head that `rapt cluster up` starts once for the file, through the commands that a person types.

Everything of Ray runs in other processes: it reads what it listens on when it is imported, and other files need it otherwise.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from data_shards.manifest import Manifest
from tests.cluster.ray_faults import train_workers
from tests.cluster.test_command_line import rapt_run
from tests.conftest import ROOT, TINY_SETTINGS
from tests.object_server import free_ports

pytestmark = pytest.mark.slow
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
SECRET = "of-the-clusters-environment"


class Cluster(NamedTuple):
    """A cluster that is up: its status, RAPT_HOME, and the environment in which `rapt` finds it."""

    status: dict[str, Any]
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"RAPT_HOME": str(self.home)}

    @property
    def token(self) -> str:
        return (self.home / "cluster" / "token").read_text()

    def processes(self) -> list[psutil.Process]:
        head = psutil.Process(self.status["pid"])
        return [head, *head.children(recursive=True)]

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cluster", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def submit_program(self, run_id: str, program: str) -> str:
        """A job that runs a Python program instead of training; returns its id."""
        code = (
            "import shlex, sys; from cluster.jobs import *; from cluster.ray_address import *\n"
            "entrypoint = shlex.join(['python', '-c', sys.argv[2]])\n"
            "request = JobRequest(run_id=sys.argv[1], recipe='none', entrypoint=entrypoint)\n"
            "print(Jobs(find_job_server(None)).submit(request))"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        command = [sys.executable, "-c", code, run_id, program]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("cluster-home")
    ray_port, http_port = free_ports(2)
    ports = ["--port", str(ray_port), "--dashboard-port", str(http_port)]
    started = rapt_run("cluster", "up", "--cpus", "2", *ports, "--json", RAPT_HOME=str(home), SECRET_OF_UP=SECRET)
    assert started.returncode == 0, started.stderr
    yield Cluster(json.loads(started.stdout), home)
    rapt_run("cluster", "down", RAPT_HOME=str(home))


def listening_beyond_loopback(processes: list[psutil.Process]) -> set[tuple[str, str, int]]:
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in LOOPBACK:
                    found.add((process.name(), connection.laddr.ip, connection.laddr.port))
    return found


def mlflow_runs(home: Path) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("engagement").experiment_id])
    return {run.info.run_name: (run, client.get_metric_history(run.info.run_id, "loss")) for run in found}


def tiny(*further: str) -> list[str]:
    return [f"--set={setting}" for setting in (*TINY_SETTINGS, *further)]


def test_up_says_where_it_is_and_is_there_once(ray_head: Cluster) -> None:
    assert (ray_head.status["up"], ray_head.status["answers"], ray_head.status["cpus"]) == (True, True, 2.0)
    again = rapt_run("cluster", "up", **ray_head.environment)
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "the cluster is up already")
    seen = json.loads(rapt_run("cluster", "status", "--json", **ray_head.environment).stdout)
    assert seen == ray_head.status
    assert seen["dashboard"] in again.stdout
    assert (ray_head.home / "cluster" / "token").stat().st_mode & 0o777 == 0o600
    nowhere = json.loads(rapt_run("cluster", "status", "--json").stdout)
    assert nowhere["up"] is False


def test_a_job_trains_with_its_log_here_and_its_id_in_mlflow(ray_head: Cluster, simulated_shards: tuple[Path, Manifest]) -> None:
    beyond_loopback: set[tuple[str, str, int]] = set()
    token_on_a_command_line = False
    with ray_head.start(
        "submit", "demo", "--data", simulated_shards[0], "--workers", "2", "--run", "first", *tiny()
    ) as submitted:
        while submitted.poll() is None:
            for process in ray_head.processes():
                with contextlib.suppress(psutil.Error):
                    token_on_a_command_line |= ray_head.token in " ".join(process.cmdline())
            beyond_loopback |= listening_beyond_loopback(ray_head.processes())
            time.sleep(0.5)
        output, errors = submitted.communicate()
    assert submitted.returncode == 0, output + errors
    assert beyond_loopback == set()
    assert not token_on_a_command_line
    assert "epoch   1" in output
    assert "registered as engagement version 1" in output
    assert "job first-job1 succeeded" in errors
    commit = re.search(r"commit ([0-9a-f]{40}(\+changes)?)\n", errors)
    assert commit, errors
    run, losses = mlflow_runs(ray_head.home)["first"]
    assert run.info.status == "FINISHED"
    assert (run.data.tags["ray_job"], run.data.tags["commit"]) == ("first-job1", commit[1])
    assert [loss.step for loss in losses] == [1, 2, 3, 4, 5]
    (listed,) = json.loads(rapt_run("jobs", "list", "--json", **ray_head.environment).stdout)["jobs"]
    assert (listed["job"], listed["run"], listed["recipe"], listed["state"]) == ("first-job1", "first", "demo", "succeeded")
    refused = rapt_run("jobs", "resume", "first", **ray_head.environment)
    assert (refused.returncode, "nothing to go on with" in refused.stderr) == (1, True)


@contextlib.contextmanager
def slowed(processes: list[psutil.Process]) -> Iterator[None]:
    """Let the processes run for 50 ms of every 200."""
    done = threading.Event()

    def pace() -> None:
        while not done.wait(0.05):
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.suspend()
            done.wait(0.15)
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.resume()

    pacing = threading.Thread(target=pace)
    pacing.start()
    try:
        yield
    finally:
        done.set()
        pacing.join()


def test_a_stopped_job_goes_on_from_its_last_checkpoint_as_the_same_run(
    ray_head: Cluster, simulated_shards: tuple[Path, Manifest]
) -> None:
    settings = tiny("loop.epochs=30", "loop.checkpoint_every_steps=5")
    submit = ("submit", "demo", "--data", simulated_shards[0], "--run", "long", *settings)
    with ray_head.start(*submit) as submitted:
        deadline_s = time.monotonic() + 120
        while not list((ray_head.home / "runs" / "long").glob("checkpoints/step-*")):
            assert submitted.poll() is None, submitted.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        workers = train_workers(ray_head.status["pid"])
        assert workers
        with slowed(workers):  # else it may be over before it is stopped
            submitted.send_signal(signal.SIGINT)
            _, errors = submitted.communicate(timeout=240)
            assert submitted.returncode == 130
            assert "job long-job1 goes on; look at it with `rapt jobs logs long-job1 --follow`" in errors
            second = rapt_run(*submit, **ray_head.environment)
            assert "job long-job1 is running; stop it first" in second.stderr
            stopped = rapt_run("jobs", "stop", "long", **ray_head.environment)
    assert stopped.stdout.startswith("job long-job1 is stopped"), stopped.stdout + stopped.stderr
    resumed = rapt_run("jobs", "resume", "long-job1", "--json", **ray_head.environment)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert {"job": "long-job2", "state": "succeeded", "exit_code": 0}.items() <= json.loads(resumed.stdout).items()
    found = re.search(r"150 steps of 8 clips, resumed at step (\d+)", resumed.stderr)
    assert found, resumed.stderr
    assert 5 <= int(found[1]) < 150
    run, losses = mlflow_runs(ray_head.home)["long"]
    assert run.info.status == "FINISHED"
    assert {loss.step for loss in losses} == set(range(1, 151))


def test_a_job_that_fails_has_its_sentence_and_its_code(ray_head: Cluster, tmp_path: Path) -> None:
    failed = rapt_run("submit", "demo", "--data", tmp_path, "--run", "fails", **ray_head.environment)
    assert failed.returncode == 1
    assert "no manifest.json" in failed.stdout
    assert "job fails-job1 failed" in failed.stderr
    assert "(exit code 1)" in failed.stderr


class CuttableProxy:
    """A TCP proxy on loopback whose connections can be cut, and refused for a while."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: list[socket.socket] = []
        self.port = free_ports(1)[0]
        self._listen()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open = []

    def mend(self) -> None:
        self._listen()


def test_the_log_survives_a_dashboard_that_goes_away_and_jobs_have_the_environment_of_up(
    ray_head: Cluster, tmp_path: Path
) -> None:
    program = "import os, time\nprint(os.environ['SECRET_OF_UP'], os.environ['RAPT_HOME'])\n"
    program += "for i in range(40): print('line', i, flush=True); time.sleep(0.25)\nraise SystemExit(7)"
    job = ray_head.submit_program("talks", program)
    proxy = CuttableProxy(int(ray_head.status["dashboard"].rpartition(":")[2]))
    command = [sys.executable, "-m", "cluster", "jobs", "logs", job, "--follow", "--address", f"http://127.0.0.1:{proxy.port}"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "RAY_AUTH_TOKEN_PATH": str(ray_head.home / "cluster" / "token"),
    }
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.PIPE, text=True) as follower,
    ):
        deadline_s = time.monotonic() + 60
        while "\nline 3" not in log.read_text():
            assert follower.poll() is None, follower.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        proxy.cut()
        time.sleep(3)
        proxy.mend()
        _, errors = follower.communicate(timeout=120)
    proxy.cut()
    said = log.read_text()
    assert re.findall(r"^line (\d+)$", said, flags=re.MULTILINE) == [str(number) for number in range(40)]
    assert f"{SECRET} {ray_head.home}" in said
    assert errors.count("does not answer; the job goes on") == 1, errors
    assert follower.returncode == 7


class _NoRay(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def no_ray() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NoRay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


REFUSED = {
    "jobs, wrong token": (["jobs", "list", "--address", "{dashboard}"], "wrong", "does not take this token"),
    "jobs, no token": (["jobs", "list", "--address", "{dashboard}"], "", "asks for a token"),
    "train, wrong token": (["train", "demo", "--data", "{shards}", "--address", "{ray}"], "wrong", "does not take this token"),
    "train, no token": (["train", "demo", "--data", "{shards}", "--address", "{ray}"], "", "asks for a token"),
    "build, no token": (["shards", "build", "folder", "{clips}", "{out}", "--address", "{ray}"], "", "asks for a token"),
    "train, the dashboard": (["train", "demo", "--data", "{shards}", "--address", "{place}"], "", "not as Ray does"),
    "no cluster at all": (["submit", "demo", "--data", "{shards}"], "", "start one with `rapt cluster up`"),
    "nothing answers": (["jobs", "list", "--address", "http://127.0.0.1:9"], "", "nothing answers"),
    "not a Ray": (["jobs", "list", "--address", "http://127.0.0.1:{no_ray}"], "", "not as Ray's dashboard does"),
    "unknown recipe": (["submit", "best", "--data", "{shards}"], "", "no recipe named 'best'"),
    "a run with a path": (["submit", "demo", "--data", "{shards}", "--run", "../first"], "", "a run's name has up to"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_is_refused_is_one_sentence(
    mistake: str,
    ray_head: Cluster,
    simulated_shards: tuple[Path, Manifest],
    simulated_folder: Path,
    no_ray: int,
    tmp_path: Path,
) -> None:
    arguments, token, sentence = REFUSED[mistake]
    places = {
        "dashboard": ray_head.status["dashboard"],
        "place": ray_head.status["dashboard"].removeprefix("http://"),
        "ray": ray_head.status["ray_address"],
        "shards": str(simulated_shards[0]),
        "clips": str(simulated_folder),
        "out": str(tmp_path / "out"),
        "no_ray": str(no_ray),
    }
    environment = {"HOME": str(tmp_path)}  # where Ray keeps the token of a person
    if token:
        (tmp_path / "token").write_text(token)
        environment["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "token")
    result = rapt_run(*[argument.format(**places) for argument in arguments], **environment)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
    assert "Traceback" not in result.stderr


def test_down_leaves_no_process_no_token_and_the_logs_without_it(ray_head: Cluster) -> None:
    job = ray_head.submit_program("stays", "import subprocess; subprocess.run(['sleep', '600'])")
    deadline_s = time.monotonic() + 60
    while not any(process.name() == "sleep" for process in ray_head.processes()):
        assert time.monotonic() < deadline_s, job
        time.sleep(0.2)
    processes, token = ray_head.processes(), ray_head.token
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "ray start raylet gcs_server"])
    try:
        assert rapt_run("cluster", "down", **ray_head.environment).stdout == "the cluster is down\n"
        assert [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    kept = [path for path in (ray_head.home / "cluster").rglob("*") if path.is_file()]
    assert any(path.name == f"job-driver-{job}.log" for path in kept)
    assert [path for path in kept if token.encode() in path.read_bytes()] == []
    assert rapt_run("cluster", "down", **ray_head.environment).stdout == "no cluster was up\n"
