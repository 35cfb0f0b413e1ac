"""Hostile requests: lengths that lie, content types, headers, paths, methods."""

import random
from collections.abc import Iterable, Iterator

from tests.serving.hostile.attack import END, OR_CLOSED, Attack, HostileFile, converse, multipart, post, raw, request, upload

__all__ = ["explain_attacks", "request_attacks"]

_HEAD = b"POST /v1/score HTTP/1.1\r\nHost: rapt\r\nConnection: close\r\n"
_FORM = b"Content-Type: multipart/form-data; boundary=rapt\r\n"


def request_attacks(clip: bytes) -> Iterator[Attack]:
    """All of them; clip: one that is scored."""
    yield from _lengths(clip)
    yield from _content_types(clip)
    yield from _headers(clip)
    yield from _paths_and_methods(clip)


def explain_attacks(files: Iterable[HostileFile]) -> Iterator[Attack]:
    """Moments that are none, and at a moment some of the files."""
    form = multipart(b"\0" * 1000) + END
    for moment in (
        b"", b"nan", b"inf", b"-inf", b"-1", b"1e308", b"1e400", b"9" * 1000, b"0x1", b"one", b"1,2", b"[1]", b"1&at_s=-1",
        b"%00", b"1;2", b"%d9%a1", b"86401", b"-0.1", b"null", b"1%20",
    ):  # fmt: skip
        yield raw("moment", repr(moment)[:40], request(b"POST", b"/v1/explain?at_s=" + moment, form))
    yield raw("moment", "none", request(b"POST", b"/v1/explain", form), may={422})
    wanted = (" to 50.0%", " 200 in anywhere", " as 65535x65535")
    for file in files:
        if file.name.endswith(wanted) or file.kind in ("bomb", "odd clip"):
            yield upload(HostileFile(f"explain, {file.kind}", file.name, file.make), path=b"/v1/explain?at_s=0.5")


def _lengths(clip: bytes) -> Iterator[Attack]:
    body = multipart(clip) + END
    for name, length in {
        "twice as long": b"%d" % (2 * len(body)),
        "half as long": b"%d" % (len(body) // 2),
        "nothing": b"0",
        "minus one": b"-1",
        "plus": b"+10",
        "hexadecimal": b"0x10",
        "a word": b"many",
        "a list": b"10, 10",
        "huge": b"9" * 30,
        "over 64 bits": b"18446744073709551617",
        "1 TiB": b"1099511627776",
        "empty": b"",
        "a digit of another script": "٣".encode(),
    }.items():
        yield raw("lying length", name, _HEAD + _FORM + b"Content-Length: " + length + b"\r\n\r\n" + body, may=OR_CLOSED)
    two = b"Content-Length: %d\r\nContent-Length: 5\r\n\r\n" % len(body)
    yield raw("lying length", "two that differ", _HEAD + _FORM + two + body, may=OR_CLOSED)
    chunked = _HEAD + _FORM + b"Transfer-Encoding: chunked\r\n"
    yield raw("lying length", "a length and chunks", chunked + b"Content-Length: 5\r\n\r\n0\r\n\r\n", may=OR_CLOSED)
    for name, rest in {
        "no chunk": b"",
        "no last chunk": b"5\r\nhello\r\n",
        "a chunk of 2^63": b"7fffffffffffffff\r\nx",
        "a chunk of 2^64": b"10000000000000000\r\nx",
        "a chunk of -1": b"-1\r\nx",
        "a chunk of nothing": b"\r\nx",
        "a long chunk extension": b"5;" + b"a" * 300_000 + b"\r\nhello\r\n0\r\n\r\n",
        "a million trailers": b"0\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
        "a chunk that lies": b"2\r\nhello\r\n0\r\n\r\n",
    }.items():
        yield raw("lying length", name, chunked + b"\r\n", rest, may=OR_CLOSED)
    endless = (b"10000\r\n" + bytes(65536) + b"\r\n" for _ in range(3000))
    yield Attack(
        "endless",
        "chunks without end",
        lambda address: converse(address, (piece for part in ([chunked + b"\r\n"], endless) for piece in part)),
    )
    start = chunked + b"\r\n%x\r\n" % len(multipart(b"")) + multipart(b"")[:-2] + b"\r\n"
    yield Attack(
        "endless",
        "a file without end",
        lambda address: converse(address, [start, *([b"10000\r\n" + bytes(65536) + b"\r\n"] * 2000)]),
    )
    one_by_one = b"".join(b"1\r\n%c\r\n" % byte for byte in body[:60_000])
    yield raw("endless", "a chunk a byte", chunked + b"\r\n" + one_by_one + b"0\r\n\r\n")
    for coding in (b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip, gzip"):
        yield raw("bomb", f"a body that says {coding.decode()}", post(body, b"Content-Encoding: " + coding))


def _content_types(clip: bytes) -> Iterator[Attack]:
    body = multipart(clip) + END
    for kind in (
        None,
        b"",
        b"text/plain",
        b"application/json",
        b"application/x-www-form-urlencoded",
        b"video/mp4",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=other",
        b"multipart/form-data; boundary=" + b"a" * 60_000,
        b'multipart/form-data; boundary="rapt',
        b"multipart/form-data; boundary=r\xe4pt",
        b"multipart/mixed; boundary=rapt",
        b"multipart/form-data; boundary=rapt; charset=utf-7",
        b"multipart/form-data; boundary=rapt; charset=nonsense",
        b"multipart/form-data; boundary=rapt; boundary=other",
        b"application/x-python-pickle",
        b"application/xml",
        b"*/*",
        b";;;;",
    ):
        yield raw("content type", repr(kind)[:50], post(body, content_type=kind), may=OR_CLOSED)
    yield raw("content type", "JSON that is none", post(b"{" * 100_000, content_type=b"application/json"))
    yield raw(
        "content type", "a form of a million fields", post(b"a&" * 1_000_000, content_type=b"application/x-www-form-urlencoded")
    )


def _headers(clip: bytes) -> Iterator[Attack]:
    for name, header in {
        "10,000 of them": b"\r\n".join(b"X-%d: y" % number for number in range(10_000)),
        "one of 1 MB": b"X: " + b"a" * 1_000_000,
        "a name of 100 kB": b"a" * 100_000 + b": y",
        "a NUL": b"X: a\0b",
        "a bare CR": b"X: a\rY: b",
        "a bare LF": b"X: a\nY: b",
        "a name with a space": b"X Y: z",
        "no colon": b"nonsense",
        "folded": b"X: a\r\n b",
        "no name": b": x",
        "not ASCII": b"X: \xff\xfe",
        "two hosts": b"Host: other",
        "a host that climbs": b"Host: ../../etc",
        "a transfer coding of nonsense": b"Transfer-Encoding: nonsense",
        "chunked twice": b"Transfer-Encoding: chunked, chunked",
        "chunked with a tab": b"Transfer-Encoding:\tchunked\x0b",
        "expects": b"Expect: 100-continue",
        "expects nonsense": b"Expect: nonsense",
        "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        "a range": b"Range: bytes=0-0,0-0,0-0," + b"1-2," * 5000,
        "a cookie": b"Cookie: " + b"a=b; " * 10_000,
        "forwarded": b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: evil",
        "a bearer": b"Authorization: Bearer rapt_../../etc_\xff",
        "a key": b"X-API-Key: " + b"a" * 60_000,
        "another method": b"X-HTTP-Method-Override: DELETE",
        "an id with lines": b"X-Request-ID: a%0d%0aSet-Cookie: b",
    }.items():
        yield raw("header", name, post(multipart(clip) + END, header), may=OR_CLOSED)
        yield raw(
            "header",
            f"{name}, GET",
            b"GET /healthz HTTP/1.1\r\nHost: rapt\r\nConnection: close\r\n" + header + b"\r\n\r\n",
            may=OR_CLOSED,
        )
    for name, first in {
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        "noise": random.Random(1).randbytes(2000),
        "nothing but lines": b"\r\n" * 50_000,
        "no version": b"GET /healthz\r\n\r\n",
        "HTTP/1.0": b"GET /healthz HTTP/1.0\r\n\r\n",
        "HTTP/3.7": b"GET /healthz HTTP/3.7\r\nHost: a\r\n\r\n",
        "a pickle": b"\x80\x04\x95cos\nsystem\n",
        "SSH": b"SSH-2.0-OpenSSH_9.0\r\n",
        "RTSP": b"DESCRIBE rtsp://a/b RTSP/1.0\r\n\r\n",
    }.items():
        yield Attack(
            "no HTTP/1.1",
            name,
            lambda address, first=first: converse(address, [first], patience_s=10),
            frozenset({-1, 505, *OR_CLOSED}),
        )


def _paths_and_methods(clip: bytes) -> Iterator[Attack]:
    for path in (
        b"/page/../http_api.py",
        b"/page/..%2fhttp_api.py",
        b"/page/%2e%2e/%2e%2e/etc/passwd",
        b"/page//etc/passwd",
        b"/page/page.js%00.css",
        b"//etc/passwd",
        b"/\\etc\\passwd",
        b"/" + b"a" * 60_000,
        b"/?" + b"a=b&" * 15_000,
        b"/%",
        b"/%ff%fe",
        b"/v1/score/",
        b"/v1/score;x",
        b"http://169.254.169.254/latest",
        b"*",
        b"/-/routes",
        b"/docs",
        b"/redoc",
        b"/.git/config",
        b"/.env",
        b"/openapi.json?" + b"a" * 1000,
        b"/v1/../v1/score",
        b"/page/<script>alert(1)</script>",
        b"/\xc3\xa9",
    ):
        yield raw(
            "path",
            repr(path)[:50],
            b"GET " + path + b" HTTP/1.1\r\nHost: rapt\r\nConnection: close\r\n\r\n",
            may={307, *OR_CLOSED},
        )
    for method in (
        b"PUT",
        b"PATCH",
        b"DELETE",
        b"TRACE",
        b"CONNECT",
        b"OPTIONS",
        b"HEAD",
        b"PROPFIND",
        b"FOO",
        b"post",
        b"A" * 5000,
        b"G\0T",
    ):
        request = method + b" /v1/score HTTP/1.1\r\nHost: rapt\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        yield raw("method", repr(method)[:30], request, may=OR_CLOSED)
    for path in (b"/", b"/v1/score", b"/nothing"):
        upgrade = b" HTTP/1.1\r\nHost: rapt\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        yield Attack(
            "websocket",
            path.decode(),
            lambda address, path=path, upgrade=upgrade: converse(address, [b"GET " + path + upgrade], patience_s=10),
            OR_CLOSED,
        )
    ask = b"GET /healthz HTTP/1.1\r\nHost: rapt\r\n\r\n"
    yield raw("pipelined", "500 requests at once", ask * 500)
    yield raw("pipelined", "a request smuggled behind a length", post(b"x") + ask)
    yield raw(
        "pipelined",
        "clips without waiting",
        post(multipart(clip) + END).replace(b"Connection: close", b"Connection: keep-alive") * 5,
    )
