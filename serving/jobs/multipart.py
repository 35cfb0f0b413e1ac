"""The one file of a multipart upload, as it comes: nothing is spooled, so gigabytes go straight to where they belong."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from serving.jobs.record import JobRefused

__all__ = ["body_pieces", "file_pieces"]

_MAX_HEAD_BYTES = 16 << 10  # of the parts' headers and of fields beside the file, all together
_PIECE_BYTES = 1 << 20


async def body_pieces(request: Request, *, idle_s: float) -> AsyncIterator[bytes]:
    """A request's body in pieces of about 1 MiB, the last as it is, also where the client leaves. JobRefused (408) where nothing
    comes for idle_s seconds."""
    stream = request.stream()
    piece = bytearray()
    while True:
        try:
            piece += await asyncio.wait_for(anext(stream), idle_s)
        except (StopAsyncIteration, ClientDisconnect):
            break
        except TimeoutError:
            if piece:
                yield bytes(piece)
            raise JobRefused(408, f"nothing came for {idle_s:.0f} s; send the rest from where it broke off") from None
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


async def file_pieces(request: Request, field: str, *, idle_s: float) -> AsyncIterator[bytes]:
    """The content of the form's file `field`. JobRefused (422) where there is none, or it is not all there."""
    parts = _Parts(field, _boundary(request))
    async for piece in body_pieces(request, idle_s=idle_s):
        for content in parts.read(piece):
            yield content
    if not parts.is_whole:
        raise JobRefused(422, f"the upload broke off, or has no file '{field}'; send a recording as the form field '{field}'")


def _boundary(request: Request) -> bytes:
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary: bytes = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 256:
        raise JobRefused(415, "send the recording as multipart/form-data with a boundary, or JSON with size_bytes")
    return boundary


class _Parts:
    """What the parser of python-multipart finds: the wanted part's content, and whether the form is whole."""

    def __init__(self, field: str, boundary: bytes) -> None:
        from python_multipart import MultipartParser

        self._field = field
        self._found: list[bytes] = []
        self._head: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._wanted = self._had_file = False
        self._beside_bytes = 0
        self.is_whole = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def read(self, piece: bytes) -> list[bytes]:
        from python_multipart.exceptions import MultipartParseError

        try:
            self._parser.write(piece)
        except MultipartParseError:
            raise JobRefused(422, "the form cannot be read; send it as multipart/form-data") from None
        found, self._found = self._found, []
        return found

    def _on_part_begin(self) -> None:
        self._head, self._wanted = {}, False

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._head[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._head.get(b"content-disposition", b""))
        self._wanted = options.get(b"name") == self._field.encode() and not self._had_file
        self._had_file = self._had_file or self._wanted

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self._found.append(data[start:end])
        else:
            self._count(end - start)

    def _on_end(self) -> None:
        self.is_whole = self._had_file

    def _count(self, num_bytes: int) -> None:
        self._beside_bytes += num_bytes
        if self._beside_bytes > _MAX_HEAD_BYTES:
            raise JobRefused(422, f"the form holds more than the file '{self._field}'; send that alone")
