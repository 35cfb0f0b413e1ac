"""A Sample: one labelled clip in its stored form, as it lies in a shard and as the predictor makes it from a file.

Frames are one concatenated JPEG stream (`KEY.frames.mjpeg`): reading cost is per member, not per byte. Features are
`KEY.NAME.npy`. A sample has frames, features, or both.
Letters: T frames, H height, W width, C = 3 RGB channels.
"""

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from data_shards.errors import ShardError
from data_shards.features import Floats, from_npy, to_npy
from data_shards.schema import Stored

__all__ = ["FRAMES", "Sample", "SampleMeta", "encode_frames", "member_of", "sample_key"]

FRAMES = "frames"  # the input that is not a feature


class SampleMeta(Stored):
    """`KEY.json`: what is known of a clip beside its pixels.

    frame_times_s: seconds of each frame from the clip's start. jpeg_offsets: T + 1 byte offsets of the frames in
    `KEY.frames.mjpeg`. Both are empty, and what is known of the video None, where the sample has no frames.
    face_present: whether a face is in each frame; None where no detector was run.
    """

    clip_id: str
    subject: str
    session: str
    split: str
    labels: dict[str, int]
    source_sha256: str
    fps: float | None = None
    duration_s: float | None = None
    num_source_frames: int | None = None
    source_width_px: int | None = None
    source_height_px: int | None = None
    frame_times_s: tuple[float, ...] = ()
    jpeg_offsets: tuple[int, ...] = ()
    face_present: tuple[bool, ...] | None = None
    extra: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One clip: its meta record, its packed JPEG frames (empty where it has none) and its features, float32, by name."""

    meta: SampleMeta
    frames_mjpeg: bytes = b""
    features: Mapping[str, Floats] = field(default_factory=dict, compare=False)

    @classmethod
    def from_members(cls, members: Mapping[str, bytes], *, origin: str) -> Self:
        """The sample of the members that were read: extension to bytes. ShardError where one is damaged."""
        meta = SampleMeta.from_bytes(members["json"], origin=origin)
        arrays = {name.removesuffix(".npy"): content for name, content in members.items() if name.endswith(".npy")}
        features = {name: from_npy(content, origin=f"{origin}, {name}") for name, content in arrays.items()}
        return cls(meta=meta, frames_mjpeg=members.get(member_of(FRAMES), b""), features=features)

    def members(self) -> dict[str, bytes]:
        """The sample as WebDataset members: extension to bytes."""
        frames = {member_of(FRAMES): self.frames_mjpeg} if self.frames_mjpeg else {}
        features = {member_of(name): to_npy(values) for name, values in sorted(self.features.items())}
        return {**frames, "json": self.meta.to_bytes(), **features}

    @property
    def has_frames(self) -> bool:
        return len(self.meta.jpeg_offsets) > 1

    def frame_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of `decode_frames`, from the first frame's header alone."""
        return len(self.meta.jpeg_offsets) - 1, *self.frame_size(0), 3

    def frame_size(self, t: int) -> tuple[int, int]:
        """(H, W) of frame t, from its header alone. ShardError where it is damaged."""
        begin, end = self.meta.jpeg_offsets[t : t + 2] if len(self.meta.jpeg_offsets) > 1 else (0, 0)
        try:
            with Image.open(io.BytesIO(self.frames_mjpeg[begin:end]), formats=("JPEG",)) as image:
                return image.height, image.width
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            raise self._damaged(t) from None

    def decode_frames(self, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """frames_THWC uint8 RGB, decoded from the JPEG stream, into `out` where given. ShardError where a frame is damaged."""
        frames = np.empty(self.frame_shape(), dtype=np.uint8) if out is None else out
        for t in range(len(self.meta.jpeg_offsets) - 1):
            frames[t] = self._frame(t, frames.shape[1:])
        return frames

    def some_frames(self, most: int) -> npt.NDArray[np.uint8]:
        """frames_THWC of the frames at the centres of `most` equal parts of the sample, all where it has fewer. ShardError as
        `decode_frames`."""
        num_frames, *shape = self.frame_shape()
        parts = min(most, num_frames)
        numbers = [int((part + 0.5) * num_frames / parts) for part in range(parts)]
        return np.stack([self._frame(t, tuple(shape)) for t in numbers])

    def _frame(self, t: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        begin, end = self.meta.jpeg_offsets[t : t + 2]
        try:
            with Image.open(io.BytesIO(self.frames_mjpeg[begin:end]), formats=("JPEG",)) as image:
                if (image.height, image.width) != shape[:2]:  # before its pixels are made, however many it says they are
                    raise self._damaged(t)
                pixels = np.asarray(image)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            raise self._damaged(t) from None
        if pixels.shape != shape:
            raise self._damaged(t)
        return pixels

    def _damaged(self, t: int) -> ShardError:
        return ShardError(f"clip {self.meta.clip_id}: stored frame {t} is damaged; run `rapt shards verify` on its folder")


def member_of(name: str) -> str:
    """The extension under which an input lies in a shard: `frames.mjpeg`, or `NAME.npy` for a feature."""
    return "frames.mjpeg" if name == FRAMES else f"{name}.npy"


def encode_frames(frames_THWC: npt.NDArray[np.uint8], *, quality: int) -> tuple[bytes, tuple[int, ...]]:
    """Frames to one concatenated JPEG stream and its T + 1 offsets."""
    stream = io.BytesIO()
    offsets = [0]
    for frame_HWC in frames_THWC:
        Image.fromarray(frame_HWC).save(stream, "JPEG", quality=quality)
        offsets.append(stream.tell())
    return stream.getvalue(), tuple(offsets)


def sample_key(clip_id: str) -> str:
    """A WebDataset key for a clip: no dots or slashes, short enough for any tar, and no two clip ids share one."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", clip_id)[:64]
    is_like_ours = re.search(r"-[0-9a-f]{8}$", plain)  # could be another id's key
    digest = hashlib.sha256(clip_id.encode(errors="surrogatepass")).hexdigest()  # a file's name need not be UTF-8
    return plain if plain == clip_id and not is_like_ours else f"{plain}-{digest[:8]}"
