"""Hostile lessons: sizes and offsets that lie, pieces that overlap, ids that climb or are somebody else's."""

import json
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.serving.hostile.attack import OR_CLOSED, Attack, HostileFile, Reply, request
from tests.serving.hostile.credentials import TargetKeys, bearer
from tests.serving.hostile.recordings import recording_attacks
from tests.serving.hostile.teacher import LessonAttack, Teacher

__all__ = ["lesson_attacks"]

_MIB = 1 << 20


def lesson_attacks(clip: bytes, files: Iterable[HostileFile], keys: TargetKeys, jobs: Path) -> Iterator[Attack]:
    """All of them. clip: a recording that is taken; jobs: the folder where the server keeps lessons."""
    for attack in (*_sizes(), *_pieces(clip), *_ids(), *recording_attacks(clip, files)):
        yield Attack(attack.kind, attack.name, Teacher(keys, jobs).runs(attack), attack.may, keyed=True)


def _sizes() -> Iterator[LessonAttack]:
    """What is said of a recording's size before it comes."""
    texts = {
        "none": b"{}", "nothing": b"", "null": b'{"size_bytes": null}', "minus one": b'{"size_bytes": -1}',
        "zero": b'{"size_bytes": 0}', "a float": b'{"size_bytes": 1.5}', "an exponent": b'{"size_bytes": 1e400}',
        "a word": b'{"size_bytes": "10"}', "true": b'{"size_bytes": true}', "a list": b'{"size_bytes": [1]}',
        "NaN": b'{"size_bytes": NaN}', "2^63": b'{"size_bytes": 9223372036854775808}',
        "4 GiB and a byte": b'{"size_bytes": 4294967297}', "3,000 digits": b'{"size_bytes": ' + b"9" * 3000 + b"}",
        "10,000 digits": b'{"size_bytes": ' + b"9" * 10_000 + b"}", "100,000 deep": b"[" * 100_000,
        "objects 50,000 deep": b'{"a":' * 50_000, "10 MB": b'{"a": "' + b"a" * 10_000_000 + b'"}', "not UTF-8": b"\xff\xfe",
        "UTF-16": '{"size_bytes": 0}'.encode("utf-16"), "a pickle": b"\x80\x04cos\nsystem\n",
        "a list of sizes": b'[{"size_bytes": 10}]', "half": b'{"size_bytes": 1',
        "two": b'{"size_bytes": 10}{"size_bytes": 10}', "the last counts": b'{"size_bytes": 10, "size_bytes": -1}',
        "an owner": b'{"owner": "everybody", "id": "../x", "size_bytes": 0}',
    }  # fmt: skip
    for name, text in texts.items():
        yield LessonAttack(
            "size", name, lambda t, text=text: t.ask(b"POST", b"/v1/jobs", text, content_type=b"application/json"), {413, 422}
        )
    for kind in (
        None,
        b"",
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"video/mp4",
        b"application/jsonp",
        b"multipart/mixed",
    ):
        yield LessonAttack(
            "size",
            f"as {kind!r}",
            lambda t, kind=kind: t.ask(b"POST", b"/v1/jobs", b'{"size_bytes": 9}', content_type=kind),
            {415},
        )
    yield LessonAttack("size", "40 lessons at once", lambda t: _many(t, 1000, 40), {429, 503})
    yield LessonAttack("size", "40 of 4 GiB", lambda t: _many(t, 4 << 30, 40), {429, 503})


def _many(teacher: Teacher, size_bytes: int, count: int) -> Reply:
    """The last refusal; -1 where all were taken."""
    size = b'{"size_bytes": %d}' % size_bytes
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(teacher.ask, b"POST", b"/v1/jobs", size, content_type=b"application/json") for _ in range(count)]
        refused = [reply for each in asked if (reply := each.result()).status != 201]
    return refused[-1] if refused else Reply(-1, b"none of them was refused")


def _pieces(clip: bytes) -> Iterator[LessonAttack]:
    """Pieces that do not fit what is there, or what was said."""
    for offset in (
        b"-1", b"1", b"50", b"100", b"0x0", b"1e1", b"0.5", b"NaN", b"zero", b"0,0", b"0 0", b"99999999999999999999", b"9" * 5000,
        b"18446744073709551616", b"\xd9\xa0", b"null", b"0;x", b"[0]", b"1_0", b"0\0", b"", b" ",
    ):  # fmt: skip
        name = f"offset {offset[:24]!r}"
        may = OR_CLOSED - {200}
        yield LessonAttack("piece", name, lambda t, offset=offset: t.piece(t.begins(100), offset, b"x" * 10), may)
    for zero in (b"+0", b"-0.0", b"00", b"0.0"):  # true, if oddly said
        yield LessonAttack("piece", f"offset {zero!r}", lambda t, zero=zero: t.piece(t.begins(100), zero, b"x"), {200, 422})
    yield LessonAttack("piece", "no offset", lambda t: t.ask(b"PATCH", t.begins(100) + b"/recording", b"x"), {422})

    def two_offsets(t: Teacher) -> Reply:
        return t.ask(b"PATCH", t.begins(100) + b"/recording", b"x", b"Upload-Offset: 5", b"Upload-Offset: 0")

    yield LessonAttack("piece", "two offsets", two_offsets, {200, 409, 422})
    yield LessonAttack("piece", "more than was said", lambda t: t.piece(t.begins(10), b"0", clip), {413})
    yield LessonAttack("piece", "more than 32 MiB", lambda t: t.piece(t.begins(1 << 30), b"0", bytes(33 * _MIB)), {413})
    yield LessonAttack("piece", "empty", lambda t: t.piece(t.begins(10), b"0", b""), {200})
    yield LessonAttack("piece", "all of it, and no video", lambda t: t.piece(t.begins(10), b"0", b"#EXTM3U\nxx"), {422})
    yield LessonAttack("piece", "after the end", lambda t: _after_the_end(t, clip), {409})
    yield LessonAttack("piece", "overlapping", _overlapping, {409})
    yield LessonAttack("piece", "a gap between", _gap, {409})
    yield LessonAttack("piece", "ten at once at one offset", _at_once, {409})
    yield LessonAttack("piece", "one while another is under way", _while_another, {409})
    for name, length in {"twice as long": b"2000", "half as long": b"500", "1 TiB": b"1099511627776", "minus one": b"-1"}.items():
        yield LessonAttack("piece", f"said to be {name}", lambda t, length=length: _said(t, length), OR_CLOSED)
    for method in (b"PUT", b"POST", b"GET", b"HEAD", b"MERGE"):
        yield LessonAttack(
            "piece", method.decode(), lambda t, method=method: t.ask(method, t.begins(9) + b"/recording", b"x"), {405}
        )


def _after_the_end(t: Teacher, clip: bytes) -> Reply:
    path = t.begins(len(clip))
    first = t.piece(path, b"0", clip)
    return t.piece(path, b"%d" % len(clip), b"more") if first.status == 200 else first


def _overlapping(t: Teacher) -> Reply:
    path = t.begins(3000)
    t.piece(path, b"0", b"\0" * 1000)
    reply = t.piece(path, b"500", b"\1" * 1000)
    return reply if _uploaded(t, path) == 1000 else Reply(-1, b"a piece was laid over another")


def _gap(t: Teacher) -> Reply:
    path = t.begins(3000)
    reply = t.piece(path, b"2000", b"\1" * 1000)
    return reply if _uploaded(t, path) == 0 else Reply(-1, b"a hole was taken")


def _at_once(t: Teacher) -> Reply:
    """The last refusal, where one alone was taken."""
    path = t.begins(20 * _MIB)
    with ThreadPoolExecutor(10) as pool:
        sent = [pool.submit(t.piece, path, b"0", bytes([number]) * 2 * _MIB) for number in range(10)]
        replies = [each.result() for each in sent]
    refused = [reply for reply in replies if reply.status != 200]
    is_right = len(refused) == 9 and _uploaded(t, path) == 2 * _MIB
    return refused[-1] if is_right else Reply(-1, f"{[reply.status for reply in replies]}, {_uploaded(t, path)} bytes".encode())


def _while_another(t: Teacher) -> Reply:
    path = t.begins(10_000)
    sent = request(b"PATCH", path + b"/recording", b"\0" * 5000, bearer(t.keys.whole), b"Upload-Offset: 0")
    with socket.create_connection(t.address, timeout=10) as first:
        first.sendall(sent[:-1000])
        time.sleep(0.5)
        return t.piece(path, b"%d" % _uploaded(t, path), b"\1" * 100)


def _said(t: Teacher, length: bytes) -> Reply:
    head = b"PATCH " + t.begins(10_000) + b"/recording HTTP/1.1\r\nHost: rapt\r\nConnection: close\r\nUpload-Offset: 0\r\n"
    return t.send(head + bearer(t.keys.whole) + b"\r\nContent-Length: " + length + b"\r\n\r\n" + b"\0" * 1000)


def _uploaded(t: Teacher, path: bytes) -> int:
    return int(json.loads(t.ask(b"GET", path).body)["uploaded_bytes"])


def _ids() -> Iterator[LessonAttack]:
    """Lessons that are nowhere, elsewhere, or somebody else's."""
    ids = (
        b"..", b"../..", b"%2e%2e", b"%2e%2e%2f%2e%2e%2fetc%2fpasswd", b"..%5c..", b".", b"0" * 32, b"F" * 32, b"f" * 31,
        b"a" * 1500, b"%00", b"job.json", b"*", b"null", b"-1", b"everybody", b"%0d%0aSet-Cookie:%20a", b"\xc3\xa9", b"%ff", b"~",
        b"$HOME", b"<script>", b"%25", b"0" * 32 + b"%00", b"%20" + b"0" * 32,
    )  # fmt: skip
    for job_id in ids:
        for method, rest in ((b"GET", b""), (b"DELETE", b""), (b"GET", b"/result"), (b"PATCH", b"/recording")):
            name = f"{method.decode()} {job_id[:24]!r}{rest.decode()}"
            path = b"/v1/jobs/" + job_id + rest

            def run(t: Teacher, method: bytes = method, path: bytes = path) -> Reply:
                return t.ask(method, path, b"x" if method == b"PATCH" else b"", b"Upload-Offset: 0")

            yield LessonAttack("id", name, run, (OR_CLOSED | {307}) - {200})
    for method, rest in (
        (b"GET", b""), (b"GET", b"/result"), (b"GET", b"/result.csv"), (b"GET", b"/report"), (b"PATCH", b"/recording"),
        (b"DELETE", b""),
    ):  # fmt: skip
        name = f"{method.decode()} another key's{rest.decode()}"
        yield LessonAttack("id", name, lambda t, method=method, rest=rest: _of_another(t, method, rest), {404})


def _of_another(t: Teacher, method: bytes, rest: bytes) -> Reply:
    """As for a lesson that never was, and it is still its owner's."""
    path = t.begins(1000)
    sent = [
        request(method, at + rest, b"x", bearer(t.keys.other), b"Upload-Offset: 0") for at in (path, b"/v1/jobs/" + b"0" * 32)
    ]
    of_another, of_nobody = (t.send(each) for each in sent)
    if of_another.body != of_nobody.body or _uploaded(t, path) != 0:
        return Reply(-1, b"another key's lesson is told from none, or was reached")
    return of_another
