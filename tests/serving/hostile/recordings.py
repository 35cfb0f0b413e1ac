"""Hostile recordings of lessons: forms of thousands of parts, bodies without end, files that are none, and deletions and clients
that leave at the wrong moment."""

import contextlib
import json
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.serving.hostile.attack import ANSWERED, END, OR_CLOSED, HostileFile, Reply, converse, multipart, request
from tests.serving.hostile.credentials import bearer
from tests.serving.hostile.teacher import LessonAttack, Teacher

__all__ = ["recording_attacks"]

_KINDS = ("bomb", "elsewhere", "odd clip", "tiny", "another kind")
_OF_CLIPS = (" to 500 bytes", " to 50.0%", " to 90.0%", " 200 in anywhere", " 3 in head", " as 65535x65535")
_MOST_S = 150.0  # for a lesson's turn and its watching, on a busy machine
_MIB = 1 << 20


def recording_attacks(clip: bytes, files: Iterable[HostileFile]) -> Iterator[LessonAttack]:
    """All of them. clip: a recording that is taken. Of the hostile clips, of each real one five that are damaged and a giant,
    and every bomb, playlist and oddity."""
    yield from (*_forms(clip), *_endless(), *_ends(clip))
    for file in files:
        if file.kind in _KINDS or file.name.endswith(_OF_CLIPS):
            yield LessonAttack(f"recording, {file.kind}", file.name, lambda t, file=file: _handed_in(t, file.make()))


def _forms(clip: bytes) -> Iterator[LessonAttack]:
    """Whole recordings in forms of another make."""
    part = multipart(clip, field_name=b"recording")
    field = b"--rapt\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n"
    forms = {
        "50,000 fields": field * 50_000 + END, "50,000 fields behind it": part + field * 50_000 + END,
        "1,000 recordings": multipart(b"x", field_name=b"recording") * 1000 + END, "two recordings": part * 2 + END,
        "no end": part, "end alone": END, "another field": multipart(clip) + END, "nothing": b"",
        "a part of 10,000 headers": b"--rapt\r\n" + b"X: y\r\n" * 10_000 + b"\r\nx\r\n" + END,
        "a part header of 1 MB": b"--rapt\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\nx\r\n" + END,
        "a name of 1 MB": multipart(clip, field_name=b"a" * 1_000_000) + END,
        "a file name of 1 MB": multipart(clip, field_name=b"recording", name=b"a" * 1_000_000) + END,
        "a disposition of nonsense": b"--rapt\r\nContent-Disposition: ;;;===\r\n\r\nx\r\n" + END,
        "no disposition": b"--rapt\r\nContent-Type: video/mp4\r\n\r\nx\r\n" + END,
        "a field of 3 MB": b"--rapt\r\nContent-Disposition: form-data; name=x\r\n\r\n" + b"x" * 3_000_000 + b"\r\n" + END,
        "nested 2,000 deep": field[:-5] + (b"Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n") * 2000 + END,
        "a preamble of 10 MB": b"x" * 10_000_000 + b"\r\n" + part + END, "bare LF": (part + END).replace(b"\r\n", b"\n"),
        "boundaries alone": b"--rapt\r\n" * 100_000 + END,
        "almost boundaries": multipart(b"\r\n--rap" * 500_000, field_name=b"recording") + END,
        "an empty recording": multipart(b"", field_name=b"recording") + END,
    }  # fmt: skip
    for name, body in forms.items():
        yield _form("form", name, body)
    yield _form("form", "an epilogue of 10 MB", part + END + b"x" * 10_000_000, may={202, 422})
    for boundary in (
        b"",
        b" boundary=",
        b" boundary=other",
        b" boundary=" + b"a" * 60_000,
        b' boundary="rapt',
        b" boundary=r\xe4pt",
    ):
        kind = b"multipart/form-data;" + boundary
        yield _form("form", f"boundary {boundary[:24]!r}", part + END, content_type=kind, may=OR_CLOSED - {200})
    for name in (b"../../../../tmp/rapt-climbed.mp4", b"/etc/passwd", b"job.json", b"a\0b", b"$(id)", b"a.m3u8", b"\xff\xfe"):
        yield _form("form", f"named {name!r}", multipart(clip, field_name=b"recording", name=name) + END, may={202, 422})


def _form(
    kind: str,
    name: str,
    body: bytes,
    *,
    content_type: bytes = b"multipart/form-data; boundary=rapt",
    may: Iterable[int] = (400, 413, 415, 422),
) -> LessonAttack:
    return LessonAttack(kind, name, lambda t: t.ask(b"POST", b"/v1/jobs", body, content_type=content_type), may)


def _endless() -> Iterator[LessonAttack]:
    """Bodies that never end, or hardly come."""
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    head = multipart(b"", field_name=b"recording")[:-2]
    start = b"%x\r\n" % len(head) + head + b"\r\n"
    beside = b"--rapt\r\nContent-Disposition: form-data; name=x\r\n\r\n"
    for name, (first, chunk) in {
        "a recording": (start, piece),
        "a field beside it": (b"%x\r\n" % len(beside) + beside + b"\r\n", piece),
        "headers of a part": (b"8\r\n--rapt\r\n\r\n", b"8\r\nX-A: b\r\n\r\n" * 5000),
        "boundaries": (b"", b"8\r\n--rapt\r\n\r\n" * 5000),
    }.items():
        yield LessonAttack("endless", name, lambda t, f=first, c=chunk: _chunks(t, b"POST /v1/jobs", f, c, 2500), ANSWERED)
    for size in (10, 1 << 30):
        name = f"a piece of {size:,}"
        yield LessonAttack(
            "endless", name, lambda t, s=size: _chunks(t, b"PATCH " + t.begins(s) + b"/recording", b"", piece, 2500), {413}
        )
    yield LessonAttack(
        "endless",
        "JSON",
        lambda t: _chunks(t, b"POST /v1/jobs", b"", b"10000\r\n" + b"[" * 65536 + b"\r\n", 2500, b"application/json"),
    )
    yield LessonAttack(
        "slow", "a piece a byte at a time",
        lambda t: _chunks(t, b"PATCH " + t.begins(1000) + b"/recording", b"", b"1\r\n\0\r\n", 60, pause_s=0.2), {408},
    )  # fmt: skip
    yield LessonAttack("slow", "a piece that never begins", lambda t: _said_and_silent(t, t.begins(1000)), {408})


def _chunks(
    t: Teacher,
    first: bytes,
    begin: bytes,
    chunk: bytes,
    count: int,
    kind: bytes = b"multipart/form-data; boundary=rapt",
    *,
    pause_s: float = 0.0,
) -> Reply:
    """A body in chunks, without its end."""
    lines = (
        first + b" HTTP/1.1",
        b"Host: rapt",
        b"Connection: close",
        bearer(t.keys.whole),
        b"Upload-Offset: 0",
        b"Content-Type: " + kind,
    )
    head = b"\r\n".join((*lines, b"Transfer-Encoding: chunked", b"", b""))
    return converse(
        t.address, (piece for part in ([head + begin], (chunk for _ in range(count))) for piece in part), pause_s=pause_s
    )


def _said_and_silent(t: Teacher, path: bytes) -> Reply:
    lines = (
        b"PATCH " + path + b"/recording HTTP/1.1",
        b"Host: rapt",
        bearer(t.keys.whole),
        b"Upload-Offset: 0",
        b"Content-Length: 500",
    )
    return t.send(b"\r\n".join((*lines, b"", b"")))


def _ends(clip: bytes) -> Iterator[LessonAttack]:
    """Deletions, and clients who leave."""
    yield LessonAttack("end", "deleted in mid-upload", _deleted_in_mid_upload, {404})
    yield LessonAttack("end", "deleted while it runs", lambda t: _deleted_while_it_runs(t, clip), {404})
    yield LessonAttack("end", "deleted 20 times at once", _deleted_often, {404})
    yield LessonAttack("end", "gone in mid-piece", lambda t: _gone(t, b"PATCH " + t.begins(10_000) + b"/recording"), {200})
    yield LessonAttack("end", "gone in mid-form", lambda t: _gone(t, b"POST /v1/jobs"), {200})
    yield LessonAttack("end", "30 gone in mid-form", lambda t: [_gone(t, b"POST /v1/jobs") for _ in range(30)][-1], {200})
    for rest in (b"/result", b"/result.csv", b"/report"):
        yield LessonAttack("end", f"{rest.decode()} before there is one", lambda t, r=rest: t.ask(b"GET", t.begins(9) + r), {409})


def _deleted_in_mid_upload(t: Teacher) -> Reply:
    """What the upload is answered, whose lesson is gone."""
    path = t.begins(10 * _MIB)
    sent = request(b"PATCH", path + b"/recording", bytes(5 * _MIB), bearer(t.keys.whole), b"Upload-Offset: 0")

    def pieces() -> Iterator[bytes]:
        yield sent[: 3 * _MIB]
        time.sleep(0.3)
        t.ask(b"DELETE", path)
        yield sent[3 * _MIB :]

    return converse(t.address, pieces())


def _deleted_while_it_runs(t: Teacher, clip: bytes) -> Reply:
    path = t.begins(len(clip))
    t.piece(path, b"0", clip)
    until_s = time.monotonic() + _MOST_S
    while json.loads(t.ask(b"GET", path).body)["state"] == "queued" and time.monotonic() < until_s:
        time.sleep(0.05)
    deleted = t.ask(b"DELETE", path)
    return t.ask(b"GET", path) if deleted.status == 204 else deleted


def _deleted_often(t: Teacher) -> Reply:
    path = t.begins(1000)
    t.piece(path, b"0", b"\0" * 500)
    with ThreadPoolExecutor(20) as pool:
        replies = [each.result() for each in [pool.submit(t.ask, b"DELETE", path) for _ in range(20)]]
    wrong = [reply for reply in replies if reply.status not in (204, 404)]
    return wrong[0] if wrong else t.ask(b"GET", path)


def _gone(t: Teacher, first: bytes) -> Reply:
    """Half a body, and nobody there any more; how somebody else is answered then."""
    body = multipart(bytes(5000), field_name=b"recording")
    lines = (first + b" HTTP/1.1", b"Host: rapt", bearer(t.keys.whole), b"Upload-Offset: 0", b"Content-Length: 9000")
    head = b"\r\n".join((*lines, b"Content-Type: multipart/form-data; boundary=rapt", b"", b""))
    with contextlib.suppress(OSError), socket.create_connection(t.address, timeout=5) as connection:
        connection.sendall(head + body)
    time.sleep(0.2)
    return t.ask(b"GET", b"/v1/jobs")


def _handed_in(t: Teacher, content: bytes) -> Reply:
    """A refusal as it came; of a failed lesson its error as 422, with nothing of its recording left; 200 where it is done."""
    form = multipart(content, field_name=b"recording") + END
    reply = t.ask(b"POST", b"/v1/jobs", form, content_type=b"multipart/form-data; boundary=rapt")
    if reply.status != 202:
        return reply
    job_id = json.loads(reply.body)["id"]
    until_s = time.monotonic() + _MOST_S
    while time.monotonic() < until_s:
        job = json.loads(t.ask(b"GET", b"/v1/jobs/" + job_id.encode()).body)
        if job["state"] in ("done", "failed"):
            left = {path.name for path in (t.jobs / job_id).iterdir()} - {"job.json", "result.json"}
            if left:
                return Reply(-1, f"of a lesson that is over there is left: {', '.join(left)}".encode())
            return Reply(200) if job["state"] == "done" else Reply(422, json.dumps({"error": job["error"]}).encode())
        time.sleep(0.1)
    return Reply(-1, f"the lesson was {job['state']} for {_MOST_S:.0f} s".encode())
