"""Hostile clients: slow ones, many at once, such as leave."""

import contextlib
import socket
import time
from collections.abc import Iterator

from tests.serving.hostile.attack import CLOSED, END, Address, Attack, Reply, converse, multipart, post

__all__ = ["UPLOAD_PATIENCE_S", "client_attacks"]

UPLOAD_PATIENCE_S = 3.0  # what the attacked server gives a body, so that a campaign of slow clients ends today


def client_attacks(clip: bytes) -> Iterator[Attack]:
    """All of them; clip: one that is scored."""
    yield from _slow(clip)
    yield from _many(clip)


def _slow(clip: bytes) -> Iterator[Attack]:
    """Some of these are answered only when the server's patience is over, which is what is to be seen."""
    head = b"POST /v1/score HTTP/1.1\r\nHost: rapt\r\nContent-Length: 100000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=rapt\r\n\r\n"
    may = frozenset({408, CLOSED})
    yield Attack(
        "slow",
        "a body a byte at a time",
        lambda address: converse(address, [head, *(b"%c" % byte for byte in multipart(clip)[:60])], pause_s=0.2),
        may,
    )
    yield Attack("slow", "a body that stops", lambda address: converse(address, [head, multipart(clip)[:500]]), may)
    yield Attack("slow", "a body that never begins", lambda address: converse(address, [head]), may)
    # no server of ours reads these: they keep a connection and nothing else, and others must not notice
    yield Attack("slow", "200 that never end their headers", _slow_headers, frozenset({200}))
    yield Attack(
        "slow",
        "50 that ask for a clip and never read",
        lambda address: _hold(address, 50, post(multipart(clip) + END)),
        frozenset({200}),
    )
    yield Attack("slow", "gone before the answer", lambda address: _gone(address, post(multipart(clip) + END)), frozenset({200}))


def _many(clip: bytes) -> Iterator[Attack]:
    yield Attack("many", "2,000 connections that say nothing", lambda address: _hold(address, 2000, b""), frozenset({200}))
    half = post(multipart(clip) + END)[:-100]
    yield Attack("many", "300 clips that stop short of their end", lambda address: _hold(address, 300, half), frozenset({200}))
    yield Attack(
        "many", "1,000 connections opened and closed", lambda address: _hold(address, 1000, b"", hold=False), frozenset({200})
    )


def _healthy(address: Address) -> Reply:
    return converse(address, [b"GET /healthz HTTP/1.1\r\nHost: rapt\r\nConnection: close\r\n\r\n"])


def _hold(address: Address, count: int, content: bytes, *, hold: bool = True) -> Reply:
    """So many connections that each send this; how somebody else is answered meanwhile."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(address, timeout=5)
                if hold:
                    stack.callback(connection.close)
                connection.settimeout(2)
                connection.sendall(content)
                if not hold:
                    connection.close()
        return _healthy(address)


def _slow_headers(address: Address) -> Reply:
    return _hold(address, 200, b"POST /v1/score HTTP/1.1\r\nHost: rapt\r\nX-Slow: ")


def _gone(address: Address, content: bytes) -> Reply:
    """20 who leave after their clip is sent."""
    for _ in range(20):
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=5) as connection:
            connection.sendall(content)
    time.sleep(0.5)
    return _healthy(address)
