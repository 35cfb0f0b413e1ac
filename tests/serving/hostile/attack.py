"""One hostile input: what is sent, and what may come back."""

import json
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = [
    "ANSWERED",
    "CLOSED",
    "OR_CLOSED",
    "Attack",
    "HostileFile",
    "Reply",
    "converse",
    "multipart",
    "post",
    "raw",
    "request",
    "upload",
]

ANSWERED = frozenset({200, *range(400, 500)})
CLOSED = 0  # the connection was closed without an answer, which is one to who speaks no HTTP
OR_CLOSED = frozenset({CLOSED, *ANSWERED})
BOUNDARY = "rapt"
_PATIENCE_S = 45.0
Address = tuple[str, int]


@dataclass(frozen=True)
class Reply:
    """status: of the first answer, CLOSED where there was none, -1 where nothing came in time; body: its first bytes."""

    status: int
    body: bytes = b""
    took_s: float = 0.0

    @property
    def sentence(self) -> str:
        """The reason in it, empty where it has none."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return ""


@dataclass(frozen=True)
class Attack:
    """run: does it to the server at an address. may: the statuses that are right. sentences: how the one reason must begin, any
    where empty. keyed: for a server that asks for keys."""

    kind: str
    name: str
    run: Callable[[Address], Reply] = field(repr=False)
    may: frozenset[int] = ANSWERED
    sentences: tuple[str, ...] = ()
    keyed: bool = False


@dataclass(frozen=True)
class HostileFile:
    """What is sent as a clip or as a lesson's recording; made when it is sent, for there are many and some are large."""

    kind: str
    name: str
    make: Callable[[], bytes] = field(repr=False)


def converse(address: Address, pieces: Iterable[bytes], *, pause_s: float = 0.0, patience_s: float = _PATIENCE_S) -> Reply:
    """Send pieces, stop early where the server closes, and read the first answer."""
    begun_s = time.monotonic()

    def reply(status: int, body: bytes = b"") -> Reply:
        return Reply(status, body, time.monotonic() - begun_s)

    try:
        with socket.create_connection(address, timeout=patience_s) as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                    if pause_s:
                        connection.settimeout(pause_s)
                        try:
                            if early := connection.recv(65536):
                                return reply(*_parsed(early + _rest(connection, patience_s, early)))
                            return reply(CLOSED)
                        except TimeoutError:
                            connection.settimeout(patience_s)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before all was sent; the answer may still lie there
            return reply(*_parsed(_rest(connection, patience_s)))
    except TimeoutError:
        return reply(-1)
    except OSError:
        return reply(CLOSED)


def _rest(connection: socket.socket, patience_s: float, begun: bytes = b"") -> bytes:
    """The first answer whole: to its Content-Length, or until the connection ends."""
    connection.settimeout(patience_s)
    content = begun
    while len(content) < 1 << 20:
        head, gap, body = content.partition(b"\r\n\r\n")
        length = next((line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None)
        if gap and length is not None and len(body) >= int(length) and not head.startswith(b"HTTP/1.1 1"):
            break
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            break
        if not piece:
            break
        content += piece
    return content[len(begun) :]


def _parsed(content: bytes) -> tuple[int, bytes]:
    while content.startswith(b"HTTP/1.1 1"):  # 100 Continue and 101
        content = content.partition(b"\r\n\r\n")[2]
    head, _, body = content.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]), body) if len(words) > 1 and words[1].isdigit() else (CLOSED, b"")


def multipart(content: bytes, *, name: bytes = b"clip.mp4", field_name: bytes = b"clip", kind: bytes = b"video/mp4") -> bytes:
    """One file as a part, without the end."""
    disposition = b'Content-Disposition: form-data; name="' + field_name + b'"; filename="' + name + b'"'
    return b"--" + BOUNDARY.encode() + b"\r\n" + disposition + b"\r\nContent-Type: " + kind + b"\r\n\r\n" + content + b"\r\n"


END = b"--" + BOUNDARY.encode() + b"--\r\n"


def request(
    method: bytes, path: bytes, body: bytes, *headers: bytes, content_type: bytes | None = b"multipart/form-data; boundary=rapt"
) -> bytes:
    """A request with this body and its true length."""
    lines = [
        method + b" " + path + b" HTTP/1.1",
        b"Host: rapt",
        b"Connection: close",
        b"Content-Length: %d" % len(body),
        *headers,
    ]
    if content_type is not None:
        lines.append(b"Content-Type: " + content_type)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(body: bytes, *headers: bytes, content_type: bytes | None = b"multipart/form-data; boundary=rapt") -> bytes:
    """POST /v1/score with this body and its true length."""
    return request(b"POST", b"/v1/score", body, *headers, content_type=content_type)


def upload(file: HostileFile, *, filename: bytes = b"clip.mp4", path: bytes = b"/v1/score") -> Attack:
    """A file as a clip."""

    def run(address: Address) -> Reply:
        return converse(address, [request(b"POST", path, multipart(file.make(), name=filename) + END)])

    return Attack(file.kind, file.name, run)


def raw(kind: str, name: str, *pieces: bytes, may: Iterable[int] = ANSWERED, pause_s: float = 0.0) -> Attack:
    """Bytes as they are."""
    return Attack(kind, name, lambda address: converse(address, pieces, pause_s=pause_s), frozenset(may))
