"""Clips that are whole and odd, written by PyAV: what a decoder must take or refuse, and never fall over."""

import io
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from tests.serving.hostile.attack import HostileFile

__all__ = ["odd_clips"]


def odd_clips() -> Iterator[HostileFile]:
    """Each is a 4xx with a reason, or scored where it is in truth a clip."""
    made: dict[str, Any] = {
        "one frame": partial(_clip, frames=1),
        "two frames": partial(_clip, frames=2),
        "1,000,000 frames a second": partial(_clip, fps=1_000_000),
        "a frame an hour": partial(_clip, fps=Fraction(1, 3600)),
        "negative times": partial(_clip, first_pts=-100_000),
        "times of 2^40": partial(_clip, first_pts=1 << 40),
        "times that jump": partial(_clip, step=100_000),
        "no keyframe": partial(_clip, container="avi", codec="mpeg4", without_key=True),
        "20,000 small frames": partial(_clip, frames=20_000, size=(16, 16)),
        "16x16": partial(_clip, size=(16, 16)),
        "16x128": partial(_clip, size=(16, 128)),
        "16x256": partial(_clip, size=(16, 256)),
        "odd sides": partial(_clip, size=(31, 33), codec="mjpeg", pixels="yuvj444p"),
        "grey 10 bits": partial(_clip, codec="ffv1", container="matroska", pixels="gray10le"),
        "with alpha": partial(_clip, codec="png", container="mov", pixels="rgba"),
        "raw pictures": partial(_clip, codec="rawvideo", container="avi", pixels="bgr24"),
        "20 streams": partial(_clip, streams=20),
        "a size that changes (ts)": partial(_two_sizes, "mpegts", "mpeg2video"),
        "a size that changes (mpeg)": partial(_two_sizes, "mpeg", "mpeg1video"),
        "a size that changes (h264)": partial(_two_sizes, "mpegts", "libx264"),
        "sound alone": partial(_sound, "mp4"),
        "sound alone (mkv)": partial(_sound, "matroska"),
        "title of 1 MB": partial(_clip, title="a" * 1_000_000),
        "title of format words": partial(_clip, title="%s%n<script>"),
        "nothing but subtitles": _subtitles,
        "no duration": partial(_clip, container="matroska", live=True),
        "600 s in two frames": partial(_clip, frames=2, fps=Fraction(1, 300)),
        "2 hours": partial(_clip, frames=8, fps=Fraction(1, 900)),
    }
    for name, make in made.items():
        yield HostileFile("odd clip", name, make)


def _clip(
    *,
    frames: int = 12,
    size: tuple[int, int] = (64, 48),
    fps: Any = 10,
    container: str = "mp4",
    codec: str = "libx264",
    pixels: str = "yuv420p",
    first_pts: int = 0,
    step: int = 1,
    without_key: bool = False,
    streams: int = 1,
    title: str = "",
    live: bool = False,
) -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container, options={"live": "1"} if live else {}) as out:
        if title:
            out.metadata["title"] = title
        tracks = [out.add_stream(codec, rate=Fraction(fps)) for _ in range(streams)]
        for track in tracks:
            track.width, track.height, track.pix_fmt = *size, pixels
        picture_HWC = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        for track in tracks:
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.roll(picture_HWC, number, axis=1), format="rgb24")
                frame.pts, frame.time_base = first_pts + number * step, 1 / Fraction(fps)
                for packet in track.encode(frame):
                    if not (without_key and packet.is_keyframe):
                        out.mux(packet)
            for packet in track.encode():
                out.mux(packet)
    return file.getvalue()


def _two_sizes(container: str, codec: str) -> bytes:
    """One stream after another of another size, as one file."""
    return b"".join(_clip(container=container, codec=codec, size=size, fps=25) for size in ((64, 48), (320, 240), (16, 16)))


def _sound(container: str) -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        track = out.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in (*track.encode(frame), *track.encode()):
            out.mux(packet)
    return file.getvalue()


def _subtitles() -> bytes:
    """A Matroska file with one track of words."""
    from tests.serving.hostile.files import _element, _matroska

    track = _element("d7", b"\1") + _element("83", b"\x11") + _element("86", b"S_TEXT/UTF8")
    cluster = _element("1f43b675", _element("e7", b"\0") + _element("a3", b"\x81\0\0\x80" + b"<b>" * 300_000))
    return _matroska(track, cluster)
