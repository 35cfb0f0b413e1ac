"""Hostile files: damaged containers of real clips, bombs, giants, playlists that point elsewhere, and files of other kinds."""

import bz2
import gzip
import io
import lzma
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import partial

from tests.serving.hostile.attack import HostileFile

__all__ = ["flipped", "hostile_files"]

Clips = Mapping[str, bytes]

MAGICS = {
    "avi": b"RIFF\xff\xff\xff\xffAVI LIST",
    "mp4": b"\x00\x00\x00\x20ftypisom",
    "moov": b"\x00\x00\x10\x00moov",
    "mdat": b"\x00\x00\x10\x00mdat",
    "wide": b"\x00\x00\x00\x08wide",
    "free": b"\x00\x00\x00\x08free",
    "skip": b"\x00\x00\x00\x08skip",
    "mkv": b"\x1a\x45\xdf\xa3",
    "mpeg-ps": b"\x00\x00\x01\xba",
    "mpeg-v": b"\x00\x00\x01\xb3",
    "flv": b"FLV\x01\x05\x00\x00\x00\x09",
    "ogg": b"OggS\x00\x02",
    "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "ts": b"\x47" + bytes(187) + b"\x47",
}
OTHERS = {
    "gif": b"GIF89a\xff\xff\xff\xff\x00\x00\x00;",
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "wav": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "webp": b"RIFF\x24\x00\x00\x00WEBPVP8 ",
    "pdf": b"%PDF-1.7\n1 0 obj",
    "elf": b"\x7fELF\x02\x01\x01",
    "exe": b"MZ\x90\x00",
    "tar": b"clip.mp4".ljust(257, b"\0") + b"ustar",
    "mp3": b"ID3\x04\x00",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "html": b"<script>alert(1)</script>",
    "script": b"#!/bin/sh\nrm -rf /\n",
    "pickle": b"\x80\x04\x95\x1c\x00\x00\x00cos\nsystem\n(S'id'\ntR.",
    "class": b"\xca\xfe\xba\xbe",
    "sqlite": b"SQLite format 3\x00",
    "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O'",
}


def hostile_files(clips: Clips, canary: str, seed: int = 0) -> Iterator[HostileFile]:
    """All of them, of the clips by name; canary: the address of a listener that nobody may call."""
    yield from _truncated(clips)
    yield from _flipped_all(clips, seed)
    yield from _tiny_and_other(clips, seed)
    yield from _bombs(clips)
    yield from _giants(clips)
    yield from _elsewhere(clips, canary)


def flipped(content: bytes, seed: int, *, begin: int = 0, end: int | None = None, flips: int = 20) -> bytes:
    """The content with so many bits between begin and end turned, chosen by the seed."""
    rng, changed = random.Random(seed), bytearray(content)
    for _ in range(flips):
        changed[rng.randrange(begin, min(end or len(changed), len(changed)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncated(clips: Clips) -> Iterator[HostileFile]:
    for name, content in clips.items():
        lengths = {f"{length} bytes": length for length in (2, 12, 48, 500)}
        lengths |= {f"{share:.1%}": int(len(content) * share) for share in (0.01, 0.1, 0.5, 0.9, 0.999)}
        for what, length in lengths.items():
            yield HostileFile("truncated", f"{name} to {what}", partial(content.__getitem__, slice(length)))


def _flipped_all(clips: Clips, seed: int) -> Iterator[HostileFile]:
    for number, (name, content) in enumerate(clips.items()):
        places = {"head": (0, 4096), "tail": (len(content) * 9 // 10, None), "anywhere": (0, None), "sizes": (0, 64)}
        for place, (begin, end) in places.items():
            for flips in (3, 200):
                made = partial(flipped, content, seed * 1000 + number, begin=begin, end=end, flips=flips)
                yield HostileFile("bits flipped", f"{name}, {flips} in {place}", made)


def _tiny_and_other(clips: Clips, seed: int) -> Iterator[HostileFile]:
    yield HostileFile("tiny", "empty", bytes)
    for byte in (0, 1, 0x1A, 0x47, 0x52, 0xFF):
        yield HostileFile("tiny", f"one byte {byte:#x}", partial(bytes, [byte]))
    noise = random.Random(seed).randbytes(4096)
    for name, magic in MAGICS.items():
        for what, rest in {"nothing": b"", "zeros": bytes(4096), "ones": b"\xff" * 4096, "noise": noise}.items():
            yield HostileFile("magic alone", f"{name} and {what}", partial(bytes.__add__, magic, rest))
    clip = next(content for name, content in clips.items() if name.endswith(".mp4"))
    for name, magic in OTHERS.items():
        yield HostileFile("another kind", f"{name} named .mp4", partial(bytes.__add__, magic, bytes(2000)))
        yield HostileFile("polyglot", f"{name} before a clip", partial(bytes.__add__, magic, clip))
    yield HostileFile("polyglot", "a clip, then a zip", lambda: clip + _zip({"x": b"x"}))
    yield HostileFile("polyglot", "a clip, then a script", lambda: clip + b"<script>alert(1)</script>")
    yield HostileFile("large", "100 MiB of zeros", lambda: bytes((100 << 20) - 300))
    yield HostileFile("large", "101 MiB of zeros", lambda: bytes(101 << 20))
    yield HostileFile("large", "99 MiB of a container of nothing", lambda: MAGICS["mdat"] + bytes(99 << 20))


def _zip(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _bombs(clips: Clips) -> Iterator[HostileFile]:
    zeros = bytes(32 << 20)
    yield HostileFile("bomb", "zip of zeros", lambda: _zip({"clip.mp4": zeros}))
    yield HostileFile("bomb", "zip in zip in zip", lambda: _zip({"a.zip": _zip({"b.zip": _zip({"clip.mp4": zeros})})}))
    yield HostileFile("bomb", "zip that climbs", lambda: _zip({"../../../../tmp/rapt-climbed": b"x"}))
    for name, pack in {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zlib": zlib.compress}.items():
        yield HostileFile("bomb", f"{name} of zeros", partial(pack, zeros))
    for megabytes in (1, 64, 512):
        yield HostileFile("bomb", f"QuickTime's compressed header of {megabytes} MiB", partial(_compressed_moov, megabytes << 20))
        yield HostileFile(
            "bomb", f"Matroska's compressed header of {megabytes} MiB", partial(_compressed_matroska, megabytes << 20)
        )
    for depth in (10, 1000, 50_000):
        yield HostileFile("bomb", f"mp4 boxes {depth} deep", partial(_nested_boxes, depth))
        yield HostileFile("bomb", f"Matroska elements {depth} deep", partial(_nested_elements, depth))
        yield HostileFile("bomb", f"{depth} tracks", partial(_many_tracks, depth))


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _deflated_zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def _compressed_moov(size: int) -> bytes:
    packed = _box(b"dcom", b"zlib") + _box(b"cmvd", struct.pack(">I", size) + _deflated_zeros(size))
    return _box(b"ftyp", b"qt  \0\0\0\0qt  ") + _box(b"moov", _box(b"cmov", packed))


def _element(number: str, content: bytes) -> bytes:
    return bytes.fromhex(number) + struct.pack(">Q", len(content) | 1 << 56) + content


def _matroska(track: bytes, rest: bytes = b"") -> bytes:
    head = _element("1a45dfa3", _element("4282", b"matroska"))
    return head + _element("18538067", _element("1654ae6b", _element("ae", track)) + rest)


def _compressed_matroska(size: int) -> bytes:
    """A track whose private data and frames are packed by zlib, as Matroska allows."""
    packing = _element(
        "6d80", _element("6240", _element("5033", b"\0") + _element("5032", b"\3") + _element("5034", _element("4254", b"\0")))
    )
    video = (
        _element("d7", b"\1")
        + _element("83", b"\1")
        + _element("86", b"V_MPEG4/ISO/AVC")
        + _element("63a2", _deflated_zeros(size))
    )
    picture = _element("e0", _element("b0", b"\0\x40") + _element("ba", b"\0\x40"))
    cluster = _element("1f43b675", _element("e7", b"\0") + _element("a3", b"\x81\0\0\x80" + _deflated_zeros(size)))
    return _matroska(video + picture + packing, cluster)


def _nested_boxes(depth: int) -> bytes:
    inner = b""
    for _ in range(min(depth, 20_000)):
        inner = struct.pack(">I4s", 8 + len(inner), b"moov") + inner
    return _box(b"ftyp", b"isom\0\0\0\0isom") + inner


def _nested_elements(depth: int) -> bytes:
    inner = b""
    for _ in range(min(depth, 20_000)):
        inner = _element("ae", inner)
    return _matroska(inner)


def _many_tracks(count: int) -> bytes:
    return _box(b"ftyp", b"isom\0\0\0\0isom") + _box(b"moov", _box(b"trak", _box(b"mdia", b"")) * count)


def _giants(clips: Clips) -> Iterator[HostileFile]:
    sizes = ((65535, 65535), (16384, 16384), (65535, 16), (16, 65535), (0, 0), (1, 1), (4096, 1), (32767, 32767))
    for name, content in clips.items():
        patch = {"avi": _sized_avi, "mp4": _sized_mp4, "mov": _sized_mp4, "mpg": _sized_mpeg}[name.rsplit(".", 1)[-1]]
        for width, height in sizes[: 8 if name in ("5100462069.avi", "no_face.mp4", "swiz3n.mpg", "rot_90.mov") else 2]:
            yield HostileFile("giant", f"{name} as {width}x{height}", partial(patch, content, width, height))
    for width, height in sizes:
        size = _element("b0", struct.pack(">I", width)) + _element("ba", struct.pack(">I", height))
        track = _element("d7", b"\1") + _element("83", b"\1") + _element("86", b"V_MJPEG") + _element("e0", size)
        frame = _element("1f43b675", _element("e7", b"\0") + _element("a3", b"\x81\0\0\x80\xff\xd8\xff"))
        yield HostileFile("giant", f"Matroska of {width}x{height}", partial(_matroska, track, frame))


def _sized_avi(content: bytes, width: int, height: int) -> bytes:
    """The sizes of the main header and of the picture's format."""
    changed = bytearray(content)
    if (at := content.find(b"avih")) >= 0:
        struct.pack_into("<II", changed, at + 8 + 32, width, height)
    if (at := content.find(b"strf")) >= 0:
        struct.pack_into("<ii", changed, at + 8 + 4, width, height)
    return bytes(changed)


def _sized_mp4(content: bytes, width: int, height: int) -> bytes:
    """The sizes of every picture's sample entry and of every track."""
    changed = bytearray(content)
    for found in re.finditer(rb"stsd.{12}(?:avc1|hvc1|hev1|mp4v)", content, re.DOTALL):
        struct.pack_into(">HH", changed, found.end() + 24, width, height)
    for found in re.finditer(rb"tkhd", content):
        struct.pack_into(">II", changed, found.start() + 4 + 76, (width << 16) & 0xFFFFFFFF, (height << 16) & 0xFFFFFFFF)
    return bytes(changed)


def _sized_mpeg(content: bytes, width: int, height: int) -> bytes:
    """Every sequence header: 12 bits each, so 4,095 is the most."""
    size = bytes([(width & 0xFFF) >> 4, (width & 0xF) << 4 | (height & 0xFFF) >> 8, height & 0xFF])
    parts = content.split(b"\x00\x00\x01\xb3")
    return b"\x00\x00\x01\xb3".join([parts[0], *(size + part[3:] for part in parts[1:])])


def _elsewhere(clips: Clips, canary: str) -> Iterator[HostileFile]:
    address = f"http://{canary}"
    texts = {
        "m3u8": f"#EXTM3U\n#EXTINF:10,\n{address}/a.ts\n",
        "m3u8 of a file": "#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
        "m3u8 with a key": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{address}/k"\n#EXTINF:1,\na.ts\n',
        "ffconcat": f"ffconcat version 1.0\nfile '{address}/a.mp4'\n",
        "concat": "file '/etc/passwd'\nfile '/etc/hostname'\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {canary.split(':')[1]} RTP/AVP 96\n",
        "mpd": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{address}/</BaseURL></MPD>',
        "mpd with an entity": f'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY x SYSTEM "{address}">]><MPD>&x;</MPD>',
        "url": f"[InternetShortcut]\nURL={address}/a.mp4\n",
        "pls": f"[playlist]\nFile1={address}/a.mp4\n",
        "asx": f'<asx version="3.0"><entry><ref href="{address}/a"/></entry></asx>',
        "smil": f'<smil><video src="{address}/a"/></smil>',
        "xspf": f"<playlist><location>{address}/a</location></playlist>",
        "ram": f"{address}/a.rm\n",
        "asf reference": f"[Reference]\nRef1={address}/a\n",
        "protocol": f"concat:{address}/a|{address}/b",
        "subfile": f"subfile,,start,0,end,9,,:{address}/",
        "avisynth": f'AviSource("{address}/a.avi")',
        "vapoursynth": "import os; os.system('id')",
        "ass": f"[Script Info]\n; {address}",
        "ism": f'<SmoothStreamingMedia><c n="0" Url="{address}"/></SmoothStreamingMedia>',
        "webvtt": f"WEBVTT\n\n00:00.000 --> 00:01.000\n{address}",
    }
    for name, text in texts.items():
        yield HostileFile("elsewhere", name, partial(text.encode))
        for magic in ("avi", "mp4", "ts", "mkv"):
            if name in ("m3u8", "ffconcat", "sdp", "mpd"):
                yield HostileFile(
                    "elsewhere",
                    f"{name} behind {magic}'s first bytes",
                    partial(bytes.__add__, MAGICS[magic] + b"\n", text.encode()),
                )
    url = _box(b"rdrf", struct.pack(">I4sI", 0, b"url ", len(address) + 1) + address.encode() + b"\0")
    yield HostileFile(
        "elsewhere",
        "QuickTime reference movie",
        lambda: _box(b"ftyp", b"qt  \0\0\0\0qt  ") + _box(b"moov", _box(b"rmra", _box(b"rmda", url))),
    )
    for name, content in clips.items():
        if name.endswith((".mp4", ".mov")):
            for target in (f"{address}/d", "file:///etc/passwd", "/etc/passwd"):
                yield HostileFile(
                    "elsewhere", f"{name} with its data in {target.split(':')[0]}", partial(_external, content, target.encode())
                )


def _external(content: bytes, target: bytes) -> bytes:
    """An mp4 whose samples are said to lie in another file: its `dref` entry has the flag "in this file" taken away, and
    where there is room behind it a path."""
    at = content.find(b"dref")
    if at < 0:
        return content
    changed = bytearray(content)
    entry = at + 4 + 8  # version, flags and count
    changed[entry + 4 : entry + 8] = b"url "
    changed[entry + 8 : entry + 12] = bytes(4)
    room = len(target) + 1
    changed[entry + 12 : entry + 12 + room] = target + b"\0"
    struct.pack_into(">I", changed, entry, 12 + room)
    return bytes(changed)
