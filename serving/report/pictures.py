"""Frames of a recording at the moments of its report: small, and only where the person who asks says so.

Letters: T frames, H height in pixels, W width in pixels, C = 3 RGB channels.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_shards.decode import check_container, check_header, decoding, has_no_index, open_indexed, open_reader
from data_shards.decode_in_order import decode_in_order
from data_shards.gallery.recording import RECORDING_LIMITS
from serving.lesson.record import Moment

__all__ = ["moment_pictures"]

_LONGER_SIDE_PX = 480
_JPEG_QUALITY = 75


def moment_pictures(recording: Path, moments: Sequence[Moment]) -> dict[int, bytes]:
    """A JPEG, 480 pixels on the longer side, of the frame on screen in the middle of each moment, by the moment's number.

    ClipError where the recording cannot be decoded.
    """
    if not moments:
        return {}
    limits = RECORDING_LIMITS  # those that the lesson was read by
    check_container(recording)
    width_px, height_px, may_be_rotated = check_header(recording, limits)
    middles_T = np.array([(moment.start_s + moment.end_s) / 2 for moment in moments])
    order_T = np.argsort(middles_T, kind="stable")

    def pick(starts_N: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        shown = np.searchsorted(starts_N[:-1], starts_N[0] + middles_T[order_T], side="right") - 1
        return np.asarray(np.clip(shown, 0, len(starts_N) - 2), dtype=np.int64)

    with decoding(recording):
        if has_no_index(recording):
            size = _small(width_px, height_px)
            frames_THWC = decode_in_order(recording, pick=pick, size=size, max_frames=limits.max_frames).frames_THWC
        else:
            if may_be_rotated:  # only a decoded frame tells which way up it is
                height_px, width_px = (int(side) for side in open_reader(recording)[0].shape[:2])
            reader, starts_N, _ = open_indexed(recording, size=_small(width_px, height_px), max_frames=limits.max_frames)
            frames_THWC = reader.get_batch(pick(starts_N).tolist()).asnumpy()
    return {int(number): _jpeg(frame_HWC) for number, frame_HWC in zip(order_T, frames_THWC, strict=True)}


def _small(width_px: int, height_px: int) -> tuple[int, int]:
    scale = min(1.0, _LONGER_SIDE_PX / max(width_px, height_px))
    return max(2, round(width_px * scale)), max(2, round(height_px * scale))


def _jpeg(frame_HWC: npt.NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame_HWC).save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()
