"""A Ray head on this machine for people who have no cluster: loopback alone, a token of its own, only its own processes.

.rapt/cluster/cluster.json   where it answers, and its head process
.rapt/cluster/token          the token, mode 0600; nowhere else, and never on a command line
.rapt/cluster/log            what the head says
.rapt/cluster/logs/          Ray's logs of the cluster that ran last
"""

import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.home import home
from cluster.ray_address import ON_LOOPBACK
from data_shards.atomic import write_whole
from data_shards.errors import ConfigError, ServiceError

__all__ = ["ClusterStatus", "LocalCluster", "local_cluster", "local_token_path", "start_cluster", "status_of", "stop_cluster"]

_MARK = "RAPT_CLUSTER_ID"  # in the environment of every process of the cluster
_RAY_PORT, _DASHBOARD_PORT = 6379, 8265
_START_S = 120.0
_STOP_S = 10.0  # then whatever is left is killed: nothing of a cluster outlives it, so nothing can be spoilt


class LocalCluster(BaseModel):
    """A cluster of this machine, as cluster.json has it. cluster_id: the mark that its processes carry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cluster_id: str
    pid: int
    dashboard: str
    ray_address: str
    session_folder: str


class ClusterStatus(BaseModel):
    """What `rapt cluster status` says. answers: whether the dashboard does; the figures are None where it does not."""

    up: bool
    answers: bool = False
    dashboard: str | None = None
    ray_address: str | None = None
    pid: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    jobs_running: int | None = None


def local_token_path() -> Path:
    """Where the local cluster's token lies."""
    return _folder() / "token"


def local_cluster() -> LocalCluster | None:
    """The cluster whose head runs here with this RAPT_HOME; None where there is none."""
    recorded = _recorded()
    return recorded if recorded and _head(recorded) else None


def start_cluster(
    *, cpus: int | None, gpus: int | None, port: int | None, dashboard_port: int | None
) -> tuple[LocalCluster, bool]:
    """Start the head and wait until its Jobs API answers. Returns the cluster, and whether it was started just now.

    Ports that are not named are Ray's own, or free ones where those are taken. ConfigError where a named one is taken,
    ServiceError where the head does not come up; nothing is left running then.
    """
    with _locked():
        if there := local_cluster():
            return there, False
        if left := _recorded():
            _end_processes(left)  # a head that died may have left workers
        cluster_id = secrets.token_hex(8)
        ray_port = _port(port, _RAY_PORT, "--port")
        http_port = _port(dashboard_port, _DASHBOARD_PORT, "--dashboard-port")
        _write_token()
        # Ray's sockets have room for 107 letters of path, which a RAPT_HOME may not leave; 0700 by mkdtemp
        session_folder = tempfile.mkdtemp(prefix="rapt-ray-", dir="/tmp")
        process = _start_head(cluster_id, ray_port, http_port, session_folder, cpus=cpus, gpus=gpus)
        started = LocalCluster(
            cluster_id=cluster_id,
            pid=process.pid,
            dashboard=f"http://127.0.0.1:{http_port}",
            ray_address=f"127.0.0.1:{ray_port}",
            session_folder=session_folder,
        )
        try:
            write_whole(_folder() / "cluster.json", started.model_dump_json(indent=2).encode() + b"\n")
            _wait_until_it_answers(process, started)
        except BaseException:
            _end_processes(started)
            _forget(started)
            raise
    return started, True


def stop_cluster() -> bool:
    """End every process of the local cluster, and no other, and wait for them. False where there was none."""
    with _locked():
        there = _recorded()
        if there is None:
            return False
        was_up = bool(_processes(there))
        _end_processes(there)
        _forget(there)
    return was_up


def status_of(there: LocalCluster | None) -> ClusterStatus:
    """Whether the cluster answers, what it has and how many jobs run."""
    if there is None:
        return ClusterStatus(up=False)
    known = {"dashboard": there.dashboard, "ray_address": there.ray_address, "pid": there.pid}
    try:
        nodes = _ask(there, "/api/v0/nodes")["data"]["result"]["result"]
        jobs = _ask(there, "/api/jobs/")
    except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError):
        return ClusterStatus(up=True, **known)
    alive = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]
    return ClusterStatus(
        up=True,
        answers=True,
        cpus=sum(resources.get("CPU", 0.0) for resources in alive),
        gpus=sum(resources.get("GPU", 0.0) for resources in alive),
        jobs_running=sum(job["type"] == "SUBMISSION" and job["status"] in ("RUNNING", "PENDING") for job in jobs),
        **known,
    )


def _folder() -> Path:
    return home() / "cluster"


def _recorded() -> LocalCluster | None:
    path = _folder() / "cluster.json"
    try:
        return LocalCluster.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise ConfigError(f"{path}: damaged; end the processes whose environment has {_MARK}, then delete it") from None


def _forget(gone: LocalCluster) -> None:
    """Keep the last session's logs, and nothing else of it."""
    kept = _folder() / "logs"
    shutil.rmtree(kept, ignore_errors=True)
    for logs in Path(gone.session_folder).glob("session_*_*/logs"):
        if not logs.parent.is_symlink():  # session_latest
            with suppress(OSError):
                shutil.move(logs, kept)
    shutil.rmtree(gone.session_folder, ignore_errors=True)
    (_folder() / "cluster.json").unlink(missing_ok=True)
    local_token_path().unlink(missing_ok=True)


@contextmanager
def _locked() -> Iterator[None]:
    """One `up` or `down` at a time."""
    _folder().mkdir(mode=0o700, exist_ok=True)
    with (_folder() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{_folder()}: another `rapt cluster` starts or stops it just now; try again after that") from None
        yield


def _write_token() -> None:
    path = local_token_path()
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def _port(named: int | None, usual: int, option: str) -> int:
    """The named port; else the usual one, or any free one where that is taken."""
    for port in (named,) if named else (usual, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise ConfigError(f"{option} {named}: taken on 127.0.0.1; name another, or leave it out to have a free one")


def _start_head(
    cluster_id: str, ray_port: int, http_port: int, session_folder: str, *, cpus: int | None, gpus: int | None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", f"--port={ray_port}", f"--temp-dir={session_folder}"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={http_port}"]
    # any free port for what nobody has to know, so that clusters of several people do not meet
    command += ["--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--ray-client-server-port={_port(None, 0, '')}"]
    command += [f"--num-cpus={cpus or os.cpu_count() or 1}"] + ([f"--num-gpus={gpus}"] if gpus is not None else [])
    with open(os.open(_folder() / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
        return subprocess.Popen(
            command,
            cwd=home(),
            env=_head_environment(cluster_id),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C here is not for the cluster, and its session tells its processes
        )


def _head_environment(cluster_id: str) -> dict[str, str]:
    """This environment, which the cluster's jobs get, and what makes Ray ask for the token and keep to loopback."""
    not_for_a_new_cluster = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_CONFIG_JSON_ENV_VAR")
    environment = {name: value for name, value in os.environ.items() if name not in not_for_a_new_cluster}
    return environment | {
        _MARK: cluster_id,
        "RAPT_HOME": str(home()),
        # a job's `python` is this one
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(local_token_path()),
        "RAY_USAGE_STATS_ENABLED": "0",
        **ON_LOOPBACK,
        "DASHBOARD_METRIC_PORT": str(_port(None, 0, "")),
        "AUTOSCALER_METRIC_PORT": str(_port(None, 0, "")),
    }


def _wait_until_it_answers(process: subprocess.Popen[bytes], started: LocalCluster) -> None:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise ServiceError(f"Ray: the head did not start ({_last_words()}); look at {_folder() / 'log'}")
        if status_of(started).cpus:  # the dashboard answers before the node is there
            return
        time.sleep(0.25)
    raise ServiceError(f"Ray: the head was not ready after {_START_S:g} s; look at {_folder() / 'log'}, then try again")


def _last_words() -> str:
    said = (_folder() / "log").read_text(errors="replace").strip().splitlines()
    return re.sub(r"\x1b\[\d+m", "", said[-1]) if said else "it said nothing"


def _ask(there: LocalCluster, path: str) -> Any:
    headers = {"Authorization": f"Bearer {local_token_path().read_text()}"}
    answer = httpx.get(there.dashboard + path, headers=headers, timeout=10, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def _head(there: LocalCluster) -> psutil.Process | None:
    """The head's process: its number alone could be somebody else's by now, the mark in its environment is not."""
    with suppress(psutil.Error):
        process = psutil.Process(there.pid)
        if process.environ().get(_MARK) == there.cluster_id and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _processes(there: LocalCluster) -> set[psutil.Process]:
    """Every process of the cluster: the head's descendants and session, and whatever carries the mark.

    Ray's workers overwrite their environment with their title, but stay in the head's session; the drivers of jobs have
    sessions of their own, but carry the mark. A session's number is taken as long as one process is in it, so it is the
    head's as long as no other process has the head's number.
    """
    head = _head(there)
    found = {head, *head.children(recursive=True)} if head else set()
    is_heads_session = head is not None or not psutil.pid_exists(there.pid)
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            in_session = is_heads_session and os.getsid(process.pid) == there.pid
            if in_session or process.environ().get(_MARK) == there.cluster_id:
                found.add(process)
    return {process for process in found if _is_alive(process)}


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _end_processes(there: LocalCluster) -> None:
    """SIGTERM to the head, which ends its own; SIGKILL for what is left after a while. Returns when all are gone."""
    if head := _head(there):
        head.send_signal(signal.SIGTERM)
    deadline_s = time.monotonic() + (_STOP_S if head else 0)
    while left := _processes(there):
        if time.monotonic() > deadline_s:
            for process in left:
                with suppress(psutil.Error):
                    process.kill()  # psutil compares the start time first
        with suppress(ChildProcessError):
            os.waitpid(there.pid, os.WNOHANG)  # where this process is its parent, it would stay as a zombie
        time.sleep(0.1)
