"""Hostile forms: huge counts, nesting, names that climb, transcripts that are bombs."""

import random
from collections.abc import Iterator

from tests.serving.hostile.attack import END, Attack, HostileFile, multipart, post, raw, upload

__all__ = ["form_attacks"]


def form_attacks(clip: bytes, seed: int = 0) -> Iterator[Attack]:
    """All of them; clip: one that is scored."""
    yield from _forms(clip)
    yield from _names(clip)
    yield from _transcripts(clip, seed)


def _forms(clip: bytes) -> Iterator[Attack]:
    end = END
    inner = b"Content-Type: multipart/mixed; boundary=inner\r\n"
    for name, body in {
        "5,000 fields": b"".join(multipart(b"x", field_name=b"f%d" % number) for number in range(5000)) + end,
        "50,000 fields": b"--rapt\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n" * 50_000 + end,
        "1,000 clips": multipart(b"x") * 1000 + end,
        "two clips": multipart(clip) * 2 + end,
        "no end": multipart(clip),
        "end alone": end,
        "a part without headers": b"--rapt\r\n\r\nx\r\n" + end,
        "a part of 10,000 headers": b"--rapt\r\n" + b"X: y\r\n" * 10_000 + b"\r\nx\r\n" + end,
        "a part header of 1 MB": b"--rapt\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\nx\r\n" + end,
        "a name of 1 MB": multipart(b"x", field_name=b"a" * 1_000_000) + end,
        "a field's text of 3 MB": b"--rapt\r\nContent-Disposition: form-data; name=clip\r\n\r\n"
        + b"x" * 3_000_000
        + b"\r\n"
        + end,
        "the clip as text": b"--rapt\r\nContent-Disposition: form-data; name=clip\r\n\r\nx\r\n" + end,
        "no disposition": b"--rapt\r\nContent-Type: video/mp4\r\n\r\nx\r\n" + end,
        "a disposition of nonsense": b"--rapt\r\nContent-Disposition: ;;;===\r\n\r\nx\r\n" + end,
        "nested": b"--rapt\r\nContent-Disposition: form-data; name=clip\r\n"
        + inner
        + b"\r\n--inner\r\n\r\nx\r\n--inner--\r\n"
        + end,
        "nested 2,000 deep": b"--rapt\r\nContent-Disposition: form-data; name=clip; filename=a\r\n"
        + (inner + b"\r\n--inner\r\n") * 2000
        + end,
        "a preamble of 10 MB": b"x" * 10_000_000 + b"\r\n" + multipart(clip) + end,
        "an epilogue of 10 MB": multipart(clip) + end + b"x" * 10_000_000,
        "bare LF": (multipart(clip) + end).replace(b"\r\n", b"\n"),
        "base64": multipart(clip).replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1) + end,
        "boundaries alone": b"--rapt\r\n" * 100_000 + end,
        "almost boundaries": multipart(b"\r\n--rap" * 500_000) + end,
        "CRs alone": multipart(b"\r" * 2_000_000) + end,
    }.items():
        yield raw("form", name, post(body))


def _names(clip: bytes) -> Iterator[Attack]:
    names = (
        b"../../../../tmp/rapt-climbed.mp4",
        b"/etc/passwd",
        b"..\\..\\windows\\system32\\a.mp4",
        b"a\0b.mp4",
        b"a" * 60_000 + b".mp4",
        b"",
        b".",
        b"..",
        b"CON",
        b"file:///etc/passwd",
        b"http://127.0.0.1/a.mp4",
        b"|id",
        b"$(id).mp4",
        b"`id`.mp4",
        b"; rm -rf /.mp4",
        b"%s%s%s%n.mp4",
        b"{0.__class__}.mp4",
        "\u202egp4.exe".encode(),
        "\U0001f600.mp4".encode(),
        b"\xff\xfe\xfd.mp4",
        b"<script>alert(1)</script>.mp4",
        b"=cmd|' /C calc'!A0.mp4",
        b"a.m3u8",
        b"a.ffconcat",
        b"concat:/etc/passwd",
        b"pipe:0",
        b"%2e%2e%2f.mp4",
        b"a\tb.mp4",
        b"-i.mp4",
        b"clip.mp4/../../x",
    )
    for name in names:
        yield upload(HostileFile("file name", repr(name)[:60], lambda: clip), filename=name)
    for name in names[:3]:
        yield upload(HostileFile("file name", f"{name!r} and no clip"[:60], lambda: b"junk"), filename=name)


def _transcripts(clip: bytes, seed: int) -> Iterator[Attack]:
    rng = random.Random(seed)
    cue = "00:00:01.000 --> 00:00:02.000\n"
    texts: dict[str, bytes] = {
        "a million cues": b"WEBVTT\n\n" + (cue + "a\n\n").encode() * 100_000,
        "a cue of 5 MB": ("WEBVTT\n\n" + cue + "a" * 5_000_000).encode(),
        "tags": ("WEBVTT\n\n" + cue + "<v " * 1_000_000).encode(),
        "entities": ("WEBVTT\n\n" + cue + "&#99999999999;" * 100_000).encode(),
        "JSON 100,000 deep": b"[" * 100_000,
        "JSON of long numbers": b'{"text": "a", "start": ' + b"9" * 100_000 + b"}",
        "times that end before": b"WEBVTT\n\n00:00:09.000 --> 00:00:01.000\na\n",
        "empty": b"",
        "NULs": b"\0" * 100_000,
        "a UTF-16 mark alone": b"\xff\xfe",
        "not UTF-8": b"WEBVTT\n\n\xff\xff",
        "a clip": clip,
        "30 MB": b"a" * (30 << 20),
        "a pickle": b"\x80\x04cos\nsystem\n",
        "YAML": b"!!python/object/apply:os.system ['id']",
        "NaN": b'[{"start": NaN, "end": Infinity, "text": "a"}]',
    }
    texts |= {f"noise {number}": bytes(rng.choice(b'\n0:->.WEBVTT<v{}[]",') for _ in range(3000)) for number in range(8)}
    for name, text in texts.items():
        body = multipart(clip) + multipart(text, field_name=b"transcript", name=b"words.vtt", kind=b"text/vtt") + END
        yield raw("transcript", name, post(body))
