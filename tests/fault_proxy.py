"""A proxy on loopback between a client of S3 or MLflow and its server that does, on demand, what networks and servers do.

Requests pass unchanged, the Host header too (their signatures cover it); answers pass unchanged but for the faults.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.object_server import ObjectServer

__all__ = ["Fault", "FaultProxy", "Request", "fault_proxy", "proxy"]

Kind = Literal["status", "delay", "drop", "drop-upload", "short", "long", "corrupt", "corrupt-upload", "lose-answer", "etag"]


@dataclass
class Fault:
    """What happens to the next `times` requests of `method` whose path has `part` in it, after `skip` of them.

    status          answered with that status, never forwarded
    delay           forwarded after delay_s
    drop            the connection ends after half of the answer's body
    drop-upload     the connection ends after half of the request's body, which is not forwarded
    short, long     half of the body, or all, under a Content-Length that says half as much, or twice as much
    corrupt         one byte of the answer's body is flipped; corrupt-upload: of the request's
    etag            the ETag is no MD5, as of an object that the server encrypted
    lose-answer     forwarded and done, but the connection ends before the answer
    """

    kind: Kind
    method: str = "GET"
    part: str = ""
    times: int = 1_000_000
    skip: int = 0
    status: int = 503
    delay_s: float = 0.0


class Request(NamedTuple):
    """One that came: the bytes of its body, and of its answer's as it was sent on; status 0 where none was."""

    method: str
    path: str
    sent_bytes: int
    received_bytes: int
    status: int


class FaultProxy:
    """endpoint: where to connect. faults: those in force, the first that fits happens. requests: all that are done."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.num_open = self.most_open = 0
        self.stopped = threading.Event()  # ends the delays
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            def relay(self) -> None:
                with proxy._counted():
                    self.relay_through(proxy)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = relay

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.method == method and fault.part in path:
                    if fault.skip:
                        fault.skip -= 1
                    elif fault.times:
                        fault.times -= 1
                        return fault
        return None

    def record(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def of(self, method: str, part: str = "") -> list[Request]:
        """Answered requests of `method` whose path has `part` in it."""
        with self._lock:
            return [r for r in self.requests if r.method == method and part in r.path and r.status]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)
        try:
            yield
        finally:
            with self._lock:
                self.num_open -= 1


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A running proxy to `upstream`."""
    proxy = FaultProxy(upstream)
    thread = threading.Thread(target=proxy.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopped.set()
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def relay_through(self, proxy: FaultProxy) -> None:
        size = int(self.headers.get("Content-Length", 0))
        fault = proxy.fault_for(self.command, self.path)
        kind = fault.kind if fault else None
        try:
            body = self.rfile.read(size // 2 if kind == "drop-upload" else size)
            if fault and kind == "delay":
                proxy.stopped.wait(fault.delay_s)
            if fault and kind == "status":
                status, received = self.refuse(fault.status)
            elif kind == "drop-upload":
                status, received = 0, 0
                self.hang_up()
            else:
                status, received = self.forward(proxy.upstream, _flipped(body) if kind == "corrupt-upload" else body, kind)
        except OSError:  # the client is gone
            body, status, received = b"", 0, 0
            self.hang_up()
        proxy.record(Request(self.command, self.path, len(body), received, status))

    def forward(self, upstream: str, body: bytes, kind: str | None) -> tuple[int, int]:
        """Ask the server and send its answer on; (status, bytes of the answer's body that were sent)."""
        connection = http.client.HTTPConnection(upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if kind == "lose-answer":
            self.hang_up()
            return 0, 0
        said = int(answer.headers.get("Content-Length", len(content))) if self.command == "HEAD" else len(content)
        said = {"short": said // 2, "long": said * 2}.get(kind or "", said)
        content = {"short": content[:said], "drop": content[: len(content) // 2], "corrupt": _flipped(content)}.get(
            kind or "", content
        )
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, '"encrypted"' if kind == "etag" and name.lower() == "etag" else value)
        if answer.status != 204:
            self.send_header("Content-Length", str(said))
        self.end_headers()
        self.wfile.write(content)
        if kind in ("drop", "long"):
            self.hang_up()
        return answer.status, len(content)

    def refuse(self, status: int) -> tuple[int, int]:
        content = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>made by the test</Message></Error>"
        self.send_response_only(status, "made by the test")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)
        return status, len(content)

    def hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at `requests`."""


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else content


@pytest.fixture
def proxy(object_server: ObjectServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before the server, through which boto3 goes from here on."""
    with fault_proxy(object_server.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.endpoint)
        yield running
