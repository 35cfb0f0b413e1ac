"""Video file to evenly spread RGB frames: by decord, and by PyAV where a container has no index.

Letters: T frames, H height in pixels, W width in pixels, C = 3 RGB channels.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.decode_in_order import PickedFrames, decode_in_order
from data_shards.errors import ClipError
from data_shards.schema import Stored

__all__ = [
    "DecodeLimits",
    "DecodedClip",
    "check_container",
    "check_header",
    "decodable_width",
    "decode_clip",
    "decoder_versions",
    "decoding",
    "has_no_index",
    "is_container",
    "load_decoder",
    "on_screen",
    "open_indexed",
    "open_reader",
    "part_centres_s",
]

# The containers Rapt opens, by their first bytes. ffmpeg would follow a playlist or a concat script to other
# files and addresses, so what a file is gets decided here, from its own bytes, before ffmpeg sees it.
_CONTAINERS: tuple[tuple[int, bytes], ...] = (
    (8, b"AVI "),
    (4, b"ftyp"),  # mp4, mov, m4v, 3gp
    (4, b"moov"),  # old QuickTime
    (4, b"mdat"),
    (4, b"wide"),
    (4, b"free"),
    (4, b"skip"),
    (0, b"\x1a\x45\xdf\xa3"),  # mkv, webm
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"\x00\x00\x01\xb3"),  # MPEG video
    (0, b"FLV"),
    (0, b"OggS"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # asf, wmv
)


_HEADERS_BYTES = 2**20
_NO_INDEX = (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")
_MATROSKA = b"\x1a\x45\xdf\xa3"
_TIE_S = 0.001
_ROTATING_FORMATS = ("mov", "matroska")  # ffmpeg's names of the containers that can say "turn me"
_RGBA_WIDTHS = frozenset({16, 24, 48, 72})  # decord 0.6.0 gives four channels at these widths and fails: its issues 93, 336


class DecodeLimits(Stored):
    """What a clip may ask of the decoder before it is refused."""

    max_pixels: int = 4096 * 2304
    max_aspect: float = 8.0
    max_duration_s: float = 3 * 3600.0
    max_frames: int = 1_500_000


@dataclass(frozen=True)
class DecodedClip:
    """T frames spread evenly over a clip: frames_THWC uint8 RGB, upright; times_T seconds from the first frame.

    source_width_px and source_height_px are the clip's own, upright; num_frames counts the frames it holds.
    """

    frames_THWC: npt.NDArray[np.uint8]
    times_T: npt.NDArray[np.float64]
    fps: float
    duration_s: float
    num_frames: int
    source_width_px: int
    source_height_px: int


def decode_clip(
    path: Path,
    *,
    num_frames: int,
    frame_size: Callable[[int, int], tuple[int, int]],
    limits: DecodeLimits | None = None,
) -> DecodedClip:
    """Decode `num_frames` frames at the centres of equal parts of the clip, scaled inside the decoder.

    The clip is cut into `num_frames` equal parts by time and the frame on screen at each centre is taken, so a
    variable frame rate is sampled evenly in seconds; a clip with fewer frames repeats them. `frame_size` maps the
    upright (width, height) to the size to scale to; a few widths come out one pixel wider. Rotation metadata is
    applied.
    Raises ClipError with the reason: missing, empty, no video, too large, too long, or damaged.
    """
    limits = limits or DecodeLimits()
    check_container(path)
    width_px, height_px, may_be_rotated = check_header(path, limits)

    def pick(starts_N: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return on_screen(starts_N, num_frames)

    with decoding(path):
        if has_no_index(path):
            found = decode_in_order(path, pick=pick, size=frame_size(width_px, height_px), max_frames=limits.max_frames)
        else:
            if may_be_rotated:  # only a decoded frame tells which way up it is
                height_px, width_px = (int(side) for side in open_reader(path)[0].shape[:2])
            found = _decode_by_index(path, pick=pick, size=frame_size(width_px, height_px), max_frames=limits.max_frames)
    starts_N = found.starts_N
    return DecodedClip(
        frames_THWC=np.ascontiguousarray(found.frames_THWC),
        times_T=np.round(starts_N[found.picked_T] - starts_N[0], 4),
        fps=round(found.fps, 4),
        duration_s=round(float(starts_N[-1] - starts_N[0]), 4),
        num_frames=len(starts_N) - 1,
        source_width_px=width_px,
        source_height_px=height_px,
    )


def _decode_by_index(
    path: Path,
    *,
    pick: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.int64]],
    size: tuple[int, int],
    max_frames: int,
) -> PickedFrames:
    """The same as `decode_in_order`, by decord: only what leads to the picked frames is decoded."""
    reader, starts_N, fps = open_indexed(path, size=size, max_frames=max_frames)
    picked_T = pick(starts_N)
    return PickedFrames(reader.get_batch(picked_T.tolist()).asnumpy(), starts_N, picked_T, fps)


def open_indexed(path: Path, *, size: tuple[int, int], max_frames: int) -> tuple[Any, npt.NDArray[np.float64], float]:
    """(decord's reader that scales to (width, height), every frame's start in seconds and the end of the last, frames a
    second). The width may come one pixel wider. ClipError where it cannot be opened, or has no or too many frames."""
    reader = open_reader(path, width=decodable_width(size[0]), height=size[1])
    if not 0 < len(reader) <= max_frames:
        raise ClipError(f"{path.name}: {len(reader)} frames where 1 to {max_frames} can be used")
    spans_N2 = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)
    return reader, np.append(spans_N2[:, 0], spans_N2[-1, 1]), float(reader.get_avg_fps())


def on_screen(
    starts_N: npt.NDArray[np.float64], num_parts: int, span_s: tuple[float, float] | None = None
) -> npt.NDArray[np.int64]:
    """The numbers, not falling, of the frames on screen at the centres of equal parts of a video, or of a span of it.

    starts_N: every frame's start in seconds, and the end of the last. span_s: (start, end) in seconds from the video's start.
    """
    begin_s, end_s = span_s or (0.0, float(starts_N[-1] - starts_N[0]))
    centres = starts_N[0] + begin_s + part_centres_s(num_parts, end_s - begin_s)
    # decord's time stamps are float32, and a centre often is a frame's very start: a millisecond settles the tie
    shown = np.searchsorted(starts_N[:-1], centres + _TIE_S, side="right") - 1
    return np.asarray(np.clip(shown, 0, len(starts_N) - 2), dtype=np.int64)


def part_centres_s(num_parts: int, duration_s: float) -> npt.NDArray[np.float64]:
    """The centres of equal parts of a duration, in seconds from its start."""
    return np.asarray((np.arange(num_parts) + 0.5) * duration_s / num_parts)


def decoder_versions() -> dict[str, str]:
    """Name to version of the packages that a stored frame's bytes depend on."""
    return {name: version(name) for name in ("av", "decord", "pillow")}


def load_decoder() -> None:
    """Import the decoder now, so that the first clip does not wait for it."""
    import av  # noqa: F401
    import decord  # noqa: F401


def check_container(path: Path) -> None:
    """ClipError where the file is missing, empty, or by its own first bytes no container that Rapt opens."""
    try:
        if path.exists() and not path.is_file():
            raise ClipError(f"{path.name}: not a plain file")
        with path.open("rb") as file:
            head = file.read(189)
    except OSError as error:
        raise ClipError(f"{path.name}: cannot be read ({error.strerror})") from None
    if not head:
        raise ClipError(f"{path.name}: empty file")
    if not is_container(head):
        raise ClipError(f"{path.name}: not a video container Rapt reads (avi, mp4, mov, mkv, webm, mpeg, ts, flv, ogg, wmv)")


def is_container(head: bytes) -> bool:
    """Whether a file's first 189 bytes are those of a container that Rapt opens."""
    is_transport_stream = head[:1] == head[188:189] == b"\x47"  # MPEG-TS has no magic, but a sync byte every 188
    return is_transport_stream or any(head[offset:].startswith(magic) for offset, magic in _CONTAINERS)


def check_header(path: Path, limits: DecodeLimits) -> tuple[int, int, bool]:
    """(width, height, may be rotated) from the header alone: a bomb is refused before a frame of it is decoded."""
    import av

    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise ClipError(f"{path.name}: no video stream")
            # decord takes the best of several streams, so the limits hold for the largest
            if any(stream.codec_context is None for stream in container.streams.video):
                raise ClipError(f"{path.name}: a video codec that is not known here; re-encode it as H.264")
            sizes = [(s.codec_context.width, s.codec_context.height) for s in container.streams.video]
            size = max(sizes, key=lambda width_height: width_height[0] * width_height[1])
            duration_s = (container.duration or 0) / av.time_base
            may_be_rotated = any(name in container.format.name for name in _ROTATING_FORMATS)
    except av.error.FFmpegError as error:
        raise ClipError(f"{path.name}: damaged, its header cannot be read ({error.strerror}); re-encode it") from None
    if min(size) < 1:
        raise ClipError(f"{path.name}: its header says no size of its pictures; re-encode it")
    if size[0] * size[1] > limits.max_pixels:
        raise ClipError(f"{path.name}: {size[0]}x{size[1]} pixels a frame, over the limit of {limits.max_pixels} pixels")
    if max(size) > limits.max_aspect * min(size):
        raise ClipError(f"{path.name}: {size[0]}x{size[1]} pixels is no picture of a person; crop it first")
    if duration_s > limits.max_duration_s:
        raise ClipError(f"{path.name}: {duration_s:.0f} s long, over the limit of {limits.max_duration_s:.0f} s; cut it")
    return *size, may_be_rotated


def open_reader(path: Path, *, width: int = -1, height: int = -1):  # type: ignore[no-untyped-def]  # decord has no types
    """decord's reader of a file whose container was checked, scaling to the size given. ClipError where it cannot be opened."""
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    try:
        # one thread: the build runs one process a core, and a clip is short
        return decord.VideoReader(str(path), width=width, height=height, num_threads=1)
    except (decord.DECORDError, RuntimeError) as error:
        raise _undecodable(path, error) from None


def decodable_width(width_px: int) -> int:
    """The width, or one pixel more where decord would give four channels."""
    return width_px + 1 if width_px in _RGBA_WIDTHS else width_px


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """What the decoder raises, as a ClipError with its reason."""
    from av.error import FFmpegError
    from decord import DECORDError

    try:
        yield
    except (DECORDError, FFmpegError, RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, ClipError):
            raise
        raise _undecodable(path, error) from None


def has_no_index(path: Path) -> bool:
    """Whether the container is an MPEG program or transport stream, bare MPEG video, or a WebM as browsers record it, which
    decord 0.6.0 takes for damaged: without a duration in its header, with a single frame, or with frames at uneven times.

    Of uneven times ffmpeg makes no average rate, and without one decord counts no frames ("Failed to measure
    duration/frame-count"). A camera is uneven whenever its light or its machine changes. Measured on 300 made files and
    on what Chromium 156 recorded: decord fails on exactly those that this finds.
    """
    with path.open("rb") as file:
        head = file.read(4)
    return head[:1] == b"\x47" or head in _NO_INDEX or (head == _MATROSKA and not _can_be_measured(path))


def _can_be_measured(path: Path) -> bool:
    import av

    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if container.duration is None or container.streams.video[0].average_rate is None:
                return False
            packets = (packet for packet in container.demux(video=0) if packet.size)
            return len(list(islice(packets, 2))) == 2
    except av.error.FFmpegError:
        return False  # whoever reads it in order says what is wrong with it


def _undecodable(path: Path, error: Exception) -> ClipError:
    """Why the decoder failed. What encrypted pictures look like is chance: it may fail on opening or on any frame."""
    if _is_encrypted(path):
        return ClipError(f"{path.name}: protected by a password or a key; hand in the clip without protection")
    return ClipError(f"{path.name}: damaged, cannot be decoded ({_short(error, path)}); re-encode it")


def _is_encrypted(path: Path) -> bool:
    """Whether an mp4 says that its pictures are encrypted (ISO/IEC 23001-7): its sample entry is then `encv`."""
    with path.open("rb") as file:  # the headers lie at the beginning or at the end
        head = file.read(_HEADERS_BYTES)
        file.seek(max(0, path.stat().st_size - _HEADERS_BYTES))
        return head[4:8] == b"ftyp" and b"encv" in head + file.read()


def _short(error: Exception, path: Path) -> str:
    """The telling part of a decoder's message, without time stamps, paths, failed expressions and stack traces."""
    text = str(error).split("Stack trace")[0].replace(f"[{path}]", "").replace(str(path), "it").strip()
    plain = re.sub(r"\[\d\d:\d\d:\d\d\]|\S+\.(cc|h):\d+:|Check failed:.*?\(-?\d+ vs\. -?\d+\)", "", text)
    plain = " ".join(plain.replace("Thread worker:", "").split()) or text.splitlines()[0] if text else ""
    return plain[:120].rstrip(" .") or type(error).__name__
