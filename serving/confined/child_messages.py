"""What a decode child and its parent say to each other over pipes: JSON and named bytes, never a pickle.

A child that somebody has taken over would else hand its parent a pickle, and with it any code: multiprocessing's pools and
pipes read what a child sends that way.
"""

import json
import os
import select
import struct
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["ChildGone", "receive", "send"]

_LENGTH = struct.Struct(">I")
_MAX_HEADER_BYTES = 1 << 20
_MAX_PARTS_BYTES = 512 << 20  # more than 1,000 frames of 1024 x 1024, the most that a model reads
_PIECE_BYTES = 1 << 20


class ChildGone(Exception):  # noqa: N818  # what happened, not a fault of the program
    """The other end of the pipe has ended, or sends what is no message."""


def send(
    pipe: int, words: Mapping[str, Any], parts: Mapping[str, bytes] | None = None, *, timeout_s: float | None = None
) -> None:
    """Write a message: words as JSON, and parts by name. TimeoutError where it is not taken in time, ChildGone where nobody
    reads any more."""
    parts = parts or {}
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    header = json.dumps({"words": words, "parts": {name: len(content) for name, content in parts.items()}}).encode()
    try:
        for content in (_LENGTH.pack(len(header)), header, *parts.values()):
            _write(pipe, content, until_s)
    except TimeoutError:
        raise
    except OSError as error:
        raise ChildGone(str(error)) from None


def receive(pipe: int, *, timeout_s: float | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The next message: its words and its parts. TimeoutError where it is not whole in time, ChildGone where none comes."""
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    (length,) = _LENGTH.unpack(_read(pipe, _LENGTH.size, until_s))
    if length > _MAX_HEADER_BYTES:
        raise ChildGone("a header of no sensible length")
    try:
        header = json.loads(_read(pipe, length, until_s))
        words, sizes = dict(header["words"]), {str(name): int(size) for name, size in header["parts"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ChildGone(f"no message ({type(error).__name__})") from None
    if min(sizes.values(), default=0) < 0 or sum(sizes.values()) > _MAX_PARTS_BYTES:
        raise ChildGone("parts of no sensible length")
    return words, {name: _read(pipe, size, until_s) for name, size in sizes.items()}


def _write(pipe: int, content: bytes, until_s: float | None) -> None:
    rest = memoryview(content)
    os.set_blocking(pipe, False)  # who reads may stop anywhere
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    while rest:
        if not poll.poll(_left_ms(until_s)):
            raise TimeoutError
        try:
            rest = rest[os.write(pipe, rest[:_PIECE_BYTES]) :]
        except BlockingIOError:  # less room than a page
            time.sleep(0.001)


def _left_ms(until_s: float | None) -> float | None:
    return None if until_s is None else max(0.0, (until_s - time.monotonic()) * 1000)


def _read(pipe: int, size: int, until_s: float | None) -> bytes:
    content = bytearray()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while len(content) < size:
        if not poll.poll(_left_ms(until_s)):
            raise TimeoutError
        try:
            piece = os.read(pipe, min(size - len(content), _PIECE_BYTES))
        except OSError as error:
            raise ChildGone(str(error)) from None
        if not piece:
            raise ChildGone("it has ended")
        content += piece
    return bytes(content)
