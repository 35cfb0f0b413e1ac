"""A real server to be attacked, in a process of its own, watched from outside; run as a program it is that server."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.serving.hostile.attack import Address, converse
from tests.serving.hostile.clients import UPLOAD_PATIENCE_S

__all__ = ["Canary", "Target", "attacked_server"]

ROOT = Path(__file__).parents[3]
_LOOK_S = 0.25


@dataclass
class Canary:
    """A listener on loopback that files name; touched counts who called."""

    address: str
    touched: int = 0


@dataclass
class Target:
    """address of the server, pid of it, its own temporary folder. rss_mib over time: the server's, and its children's sum.
    healthy_s: how long /healthz took each time it was asked, -1 where it did not answer."""

    address: Address
    process: "subprocess.Popen[bytes]"
    temporary: Path
    canary: Canary
    rss_mib: list[float] = field(default_factory=list)
    children_mib: list[float] = field(default_factory=list)
    healthy_s: list[float] = field(default_factory=list)

    def left_on_disk(self) -> list[str]:
        """What lies in its temporary folder, but for the empty scratch folder of the one child that it may have."""
        found = [path for path in self.temporary.rglob("*") if not path.name.startswith("rapt-decode-")]
        folders = list(self.temporary.glob("rapt-decode-*"))
        return sorted(str(path.relative_to(self.temporary)) for path in [*found, *folders[1:]])

    def children(self) -> list[int]:
        return _children(self.process.pid)

    def unhealthy(self) -> int:
        return sum(seconds < 0 for seconds in self.healthy_s)


@contextmanager
def attacked_server(bundle: Path, temporary: Path) -> Iterator[Target]:
    """The endpoint over uvicorn, without Ray; ended by its pid when the block ends, and seen to leave nothing behind."""
    temporary.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-m", "tests.serving.hostile.target", str(bundle)]
    process = subprocess.Popen(
        program, cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        canary = Canary(f"127.0.0.1:{listener.getsockname()[1]}")
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline() or b"0")
            assert port, "the server did not start"
            target = Target(("127.0.0.1", port), process, temporary, canary)
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
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _watch(target: Target, stop: threading.Event) -> None:
    while not stop.wait(_LOOK_S) and target.process.poll() is None:
        target.rss_mib.append(_rss_mib(target.process.pid))
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


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _serve(bundle: Path) -> None:
    import uvicorn

    from serving.confined.decode_child import DecodeChild
    from serving.http.http_api import build_app
    from serving.http.settings import AppSettings
    from serving.predictor import Predictor
    from serving.scoring import LocalScoring
    from training.registry import RegisteredModel

    predictor = Predictor(RegisteredModel(name="engagement", version="1", folder=bundle))
    child = DecodeChild(predictor.recipe)
    child.start()
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        app = build_app(LocalScoring(predictor, child), AppSettings(upload_s=UPLOAD_PATIENCE_S))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises it again when all is answered
        try:
            uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=5)).run(sockets=[listener])
        finally:
            child.close()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
