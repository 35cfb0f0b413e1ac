"""One function from a clip to a Sample, used by sharding and by serving alike, so what is served is what was trained.

The JPEG round trip is part of it: a model never sees a frame that did not go through the stored form.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_shards.decode import DecodeLimits, decode_clip
from data_shards.decode_stream import FrameStream
from data_shards.errors import ClipError, DataError
from data_shards.features import clip_features
from data_shards.listing import ListedClip
from data_shards.sample import Sample, SampleMeta, encode_frames
from data_shards.schema import Stored
from data_shards.storage.source import file_of
from data_shards.storage.store import file_sha256

__all__ = ["PreprocessConfig", "preprocess", "preprocess_file", "preprocess_windows", "scaled_size", "seen_region", "to_square"]


class PreprocessConfig(Stored):
    """How a clip becomes frames; stored in the manifest and in every bundle trained from it.

    num_frames: frames a clip, spread evenly over it. size_px: side of the square frame. resize: "crop" scales the
    shorter side to size_px and keeps the centre; "pad" scales the longer side and fills the rest with black. Both
    keep the aspect. jpeg_quality: 1 to 95, of the stored frames.
    """

    num_frames: int = Field(default=50, ge=1, le=1000)
    size_px: int = Field(default=224, ge=16, le=1024)
    resize: Literal["crop", "pad"] = "crop"
    jpeg_quality: int = Field(default=90, ge=1, le=95)


def preprocess(clip: ListedClip, config: PreprocessConfig, limits: DecodeLimits | None = None) -> Sample:
    """Decode, scale and JPEG-encode a clip's video, where it has one, and read its features.

    Raises ClipError with the reason where the clip cannot be used.
    """
    try:
        features = clip_features(clip)
        if clip.video is None:
            content = hashlib.sha256(b"".join(values.tobytes() for values in features.values())).hexdigest()
            return Sample(meta=SampleMeta(**_known(clip), source_sha256=content), features=features)
        with clip.video.local() as path:
            return replace(_decode_video(clip, path, config, limits), features=features)
    except (DataError, OSError):  # of a clip, or of the bucket it lies in
        raise
    except Exception as error:  # a decoder meets files that nobody foresaw; one clip must not end a build or a server
        raise ClipError(f"{clip.source_name}: cannot be decoded ({type(error).__name__}); re-encode it") from error


def _decode_video(clip: ListedClip, path: Path, config: PreprocessConfig, limits: DecodeLimits | None) -> Sample:
    decoded = decode_clip(path, num_frames=config.num_frames, frame_size=scaled_size(config), limits=limits)
    square_THWC = to_square(decoded.frames_THWC, config.size_px)
    frames_mjpeg, offsets = encode_frames(square_THWC, quality=config.jpeg_quality)
    meta = SampleMeta(
        **_known(clip),
        source_sha256=file_sha256(path),
        fps=decoded.fps,
        duration_s=decoded.duration_s,
        num_source_frames=decoded.num_frames,
        source_width_px=decoded.source_width_px,
        source_height_px=decoded.source_height_px,
        frame_times_s=tuple(decoded.times_T.tolist()),
        jpeg_offsets=offsets,
    )
    return Sample(meta=meta, frames_mjpeg=frames_mjpeg)


def _known(clip: ListedClip) -> dict[str, Any]:
    """The fields of a sample's meta record that its listing gives."""
    return {name: getattr(clip, name) for name in ("clip_id", "subject", "session", "split", "labels", "extra")}


def preprocess_file(path: Path, config: PreprocessConfig, limits: DecodeLimits | None = None) -> Sample:
    """The same for a video file of which nothing is known: no label, subject or split. ClipError where it cannot be used."""
    return preprocess(ListedClip(clip_id=path.name, video=file_of(path), subject="", split="", labels={}), config, limits)


def preprocess_windows(
    path: Path, config: PreprocessConfig, spans_s: Sequence[tuple[float, float]], limits: DecodeLimits | None = None
) -> list[Sample]:
    """A Sample of each span (start, end) in seconds of a video, made as of a clip that is that span, in one pass over the file.

    At most 16 decoded frames are held; what is kept are JPEGs. A sample's times are from the video's start, its duration is the
    span's. ClipError where the video cannot be used.
    """
    stream = FrameStream(path, limits, frame_size=scaled_size(config))
    picked = [stream.within(start_s, end_s, config.num_frames) for start_s, end_s in spans_s]
    jpegs: dict[int, bytes] = {}
    times_s: dict[int, float] = {}
    for portion in stream.portions(np.unique(np.concatenate(picked))):
        square_NHWC = to_square(portion.frames_NHWC, config.size_px)
        for row, number in enumerate(portion.numbers_N.tolist()):
            jpegs[number], _ = encode_frames(square_NHWC[row : row + 1], quality=config.jpeg_quality)
            times_s[number] = round(float(portion.times_N[row]), 4)
    samples = []
    for (start_s, end_s), numbers_T in zip(spans_s, picked, strict=True):
        parts = [jpegs[number] for number in numbers_T.tolist()]
        meta = SampleMeta(
            clip_id=path.name,
            subject="",
            session="",
            split="",
            labels={},
            source_sha256="",
            fps=stream.info.fps,
            duration_s=round(end_s - start_s, 4),
            frame_times_s=tuple(times_s[number] for number in numbers_T.tolist()),
            jpeg_offsets=tuple(np.cumsum([0, *map(len, parts)]).tolist()),
        )
        samples.append(Sample(meta=meta, frames_mjpeg=b"".join(parts)))
    return samples


def seen_region(config: PreprocessConfig, width_px: int, height_px: int) -> tuple[float, float, float, float]:
    """(left, top, width, height) of the square that a model is shown, as shares of the upright source picture.

    With "crop" it lies inside the picture; with "pad" it reaches beyond it, by the black that is added: left or top is then
    below 0, and width or height above 1.
    """
    scaled_w, scaled_h = scaled_size(config)(width_px, height_px)
    size_px = config.size_px
    left = max(0, scaled_w - size_px) // 2 - max(0, size_px - scaled_w) // 2
    top = max(0, scaled_h - size_px) // 2 - max(0, size_px - scaled_h) // 2
    return left / scaled_w, top / scaled_h, size_px / scaled_w, size_px / scaled_h


def scaled_size(config: PreprocessConfig) -> Callable[[int, int], tuple[int, int]]:
    """The size a frame is scaled to before it is cropped or padded to the square."""

    def size(width_px: int, height_px: int) -> tuple[int, int]:
        side = min(width_px, height_px) if config.resize == "crop" else max(width_px, height_px)
        scale = config.size_px / side
        # the other side to an even number: swscale takes a fifth longer for odd widths (measured, 299 against 298)
        return _even(width_px * scale, config.size_px), _even(height_px * scale, config.size_px)

    return size


def _even(length: float, size_px: int) -> int:
    return size_px if round(length) == size_px else max(2, 2 * round(length / 2))


def to_square(frames_THWC: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """Crop the centre, or pad with black around it, to size_px x size_px."""
    height_px, width_px = frames_THWC.shape[1:3]
    top, left = max(0, height_px - size_px) // 2, max(0, width_px - size_px) // 2
    cropped = frames_THWC[:, top : top + size_px, left : left + size_px]
    missing_h, missing_w = size_px - cropped.shape[1], size_px - cropped.shape[2]
    if missing_h == 0 and missing_w == 0:
        return cropped
    around = ((0, 0), (missing_h // 2, missing_h - missing_h // 2), (missing_w // 2, missing_w - missing_w // 2), (0, 0))
    return np.pad(cropped, around)
