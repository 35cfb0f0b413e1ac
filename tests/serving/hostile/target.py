"""A real server to be attacked, in a process of its own, watched from outside; run as a program it is that server."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.face_model import FACE_MODEL_VARIABLE
from tests.serving.hostile.attack import Address, converse
from tests.serving.hostile.clients import UPLOAD_PATIENCE_S
from tests.serving.hostile.credentials import TargetKeys, make_keys

if TYPE_CHECKING:
    from serving.http.settings import AppSettings
    from training.registry import RegisteredModel

__all__ = ["Canary", "Target", "attacked_server"]

ROOT = Path(__file__).parents[3]
_LOOK_S = 0.25
_KEYS, _LATER = "keys.json", "later.json"
_CONFINED = ("serving.confined.decode_worker", "serving.lesson.watch_worker")  # of clips, and of lessons


@dataclass
class Canary:
    """A listener on loopback that files name; touched counts who called."""

    address: str
    touched: int = 0


@dataclass
class Target:
    """A server of ours. address: where it answers; process: it, or what started its processes; temporary: its own temporary
    folder; home: where it keeps keys and lessons; keys: its keys, which it does not ask for before `ask_for_keys`.
    rss_mib over time: of what answers; children_mib: of what it decodes in. healthy_s: how long /healthz took each time it was
    asked, -1 where it did not answer."""

    address: Address
    process: "subprocess.Popen[bytes]"
    temporary: Path
    home: Path
    canary: Canary
    keys: TargetKeys
    on_ray: bool = False
    rss_mib: list[float] = field(default_factory=list)
    children_mib: list[float] = field(default_factory=list)
    healthy_s: list[float] = field(default_factory=list)

    @property
    def jobs(self) -> Path:
        """Where it keeps lessons."""
        return self.home / "jobs"

    def left_on_disk(self) -> list[str]:
        """What lies in its temporary folder, but for the empty scratch folder of the one child that it may have; and lessons."""
        found = [path for path in self.temporary.rglob("*") if not path.name.startswith("rapt-decode-")]
        folders = list(self.temporary.glob("rapt-decode-*"))
        lessons = list(self.jobs.rglob("*"))
        return [*sorted(str(path.relative_to(self.temporary)) for path in [*found, *folders[1:]]), *map(str, lessons)]

    def ask_for_keys(self) -> None:
        """From the next request on it answers to nobody without one."""
        if (self.home / _LATER).exists():
            (self.home / _LATER).replace(self.home / _KEYS)

    def servers(self) -> list[int]:
        """Of the processes that answer: of Ray's, the proxy and the replicas, as they are called."""
        if not self.on_ray:
            return [self.process.pid]
        return [pid for pid in _below(self.process.pid) if _title(pid).startswith(("ray::ServeReplica", "ray::ProxyActor"))]

    def now_mib(self) -> float:
        """The resident set of what answers."""
        return sum(map(_rss_mib, self.servers()))

    def children(self) -> list[int]:
        """Of the processes that strangers' files are decoded in."""
        return [pid for pid in _below(self.process.pid) if any(words in _title(pid) for words in _CONFINED)]

    def unhealthy(self) -> int:
        return sum(seconds < 0 for seconds in self.healthy_s)


@contextmanager
def attacked_server(bundle: Path, folder: Path, *, face_model: Path | None = None, on_ray: bool = False) -> Iterator[Target]:
    """The endpoint over uvicorn, or on Ray Serve as `rapt serve` has it; its files below `folder`. Ended by its pid when the
    block ends, and seen to leave nothing behind."""
    temporary, home = folder / "tmp", folder / "home"
    for each in (temporary, home):
        each.mkdir(parents=True, exist_ok=True)
    keys = make_keys(home / _LATER)
    environment = {**os.environ, "TMPDIR": str(temporary), "RAPT_HOME": str(home), "RAY_TMPDIR": tempfile.gettempdir()}
    if face_model is not None:
        environment[FACE_MODEL_VARIABLE] = str(face_model)
    program = [sys.executable, "-m", "tests.serving.hostile.target", str(bundle), str(home), *(["--on-ray"] if on_ray else [])]
    process = subprocess.Popen(program, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        canary = Canary(f"127.0.0.1:{listener.getsockname()[1]}")
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline() or b"0")
            assert port, "the server did not start"
            target = Target(("127.0.0.1", port), process, temporary, home, canary, keys, on_ray)
            threads = [
                threading.Thread(target=_watch, args=(target, stop)),
                threading.Thread(target=_ask, args=(target, stop)),
                threading.Thread(target=_listen, args=(listener, canary, stop)),
            ]
            for thread in threads:
                thread.start()
            yield target
        finally:
            stop.set()
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _watch(target: Target, stop: threading.Event) -> None:
    while not stop.wait(_LOOK_S) and target.process.poll() is None:
        target.rss_mib.append(target.now_mib())
        target.children_mib.append(sum(map(_rss_mib, target.children())))


def _ask(target: Target, stop: threading.Event) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: rapt\r\nConnection: close\r\n\r\n"
    while not stop.wait(2 * _LOOK_S):
        reply = converse(target.address, [request], patience_s=30)
        if not stop.is_set():
            target.healthy_s.append(reply.took_s if reply.status == 200 else -1.0)


def _listen(listener: socket.socket, canary: Canary, stop: threading.Event) -> None:
    while not stop.is_set():
        if select.select([listener], [], [], _LOOK_S)[0]:
            listener.accept()[0].close()
            canary.touched += 1


def _rss_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


def _below(pid: int) -> list[int]:
    """The processes that it started, and theirs."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [found for child in children for found in (child, *_below(child))]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _serve(bundle: Path, home: Path) -> None:
    import uvicorn

    from serving.access.guard import owner_check
    from serving.confined.decode_child import DecodeChild
    from serving.http.http_api import build_app
    from serving.jobs.runner import JobRunner
    from serving.jobs.store import JobStore
    from serving.predictor import Predictor
    from serving.scoring import LocalScoring

    predictor = Predictor(_registered(bundle))
    child = DecodeChild(predictor.recipe)
    child.start()
    scoring = LocalScoring(predictor, child)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        settings = _app_settings(home)
        jobs = JobRunner(JobStore(home / "jobs"), scoring, may_ask=owner_check(settings))
        app = build_app(scoring, settings, jobs=jobs)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises it again when all is answered
        try:
            uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=5)).run(sockets=[listener])
        finally:
            child.close()


def _serve_on_ray(bundle: Path, home: Path) -> None:
    """As `rapt serve` does; one replica of each kind, so that it can be seen whether one has died."""
    from cluster.waiting import wait_for_stop
    from serving.replicas.endpoint_settings import EndpointSettings
    from serving.service import drain_service, start_service
    from tests.serving.ray_serve import ray_for_endpoint

    settings = EndpointSettings(
        model=str(bundle), max_decoders=1, max_scorers=1, drain_s=20, app=_app_settings(home), jobs_folder=home / "jobs"
    )
    with ray_for_endpoint(num_cpus=max(4, os.cpu_count() or 1)):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        start_service(_registered(bundle), host="127.0.0.1", port=port, settings=settings)
        print(port, flush=True)
        wait_for_stop()
        drain_service(settings)


def _registered(bundle: Path) -> "RegisteredModel":
    from training.registry import RegisteredModel

    return RegisteredModel(name="engagement", version="", folder=bundle)


def _app_settings(home: Path) -> "AppSettings":
    from serving.http.settings import AppSettings

    return AppSettings(keys_file=home / _KEYS, upload_s=UPLOAD_PATIENCE_S, open_rate_per_minute=1_000_000)


if __name__ == "__main__":
    serve = _serve_on_ray if "--on-ray" in sys.argv else _serve
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
