"""What a clip looks like on the page: a strip of frames as one small JPEG, an array as a heat map, both as data: URIs.

Letters: T frames, H height, W width, C = 3 RGB channels; F features.
"""

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["frame_strip", "heat_map"]

_FRAME_PX = 144
_GAP_PX = 4
_JPEG_QUALITY = 72
_MAX_STEPS = 96  # of a heat map, along time
_MAX_FEATURES = 48
_NOTHING = (160, 160, 160)
# From dark blue over green to yellow, readable on white and on black, and in grey: five points of matplotlib's viridis.
_COLOURS_5C = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], dtype=np.float64)


def frame_strip(frames_THWC: npt.NDArray[np.uint8]) -> tuple[str, int, int]:
    """(data: URI, width, height in pixels) of the frames side by side in their order."""
    height_px, width_px = frames_THWC.shape[1:3]
    scale = min(1.0, _FRAME_PX / height_px)
    width_px, height_px = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    strip = Image.new("RGB", (len(frames_THWC) * (width_px + _GAP_PX) - _GAP_PX, height_px), (128, 128, 128))
    for place, frame_HWC in enumerate(frames_THWC):
        frame = Image.fromarray(frame_HWC).resize((width_px, height_px), Image.Resampling.LANCZOS)
        strip.paste(frame, (place * (width_px + _GAP_PX), 0))
    stream = io.BytesIO()
    strip.save(stream, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return _data_uri("image/jpeg", stream), strip.width, strip.height


def heat_map(values: npt.NDArray[np.floating]) -> tuple[str, int, int]:
    """(data: URI, width, height in pixels) of an array: time (its first axis) to the right, features downwards.

    Each feature is scaled to its own range in this clip, since their units differ; what is not a number, as where no face
    was seen, is grey.
    A vector is one moment of many features, drawn as one row. Long axes are thinned evenly.
    """
    values_TF = np.asarray(values, dtype=np.float64)
    values_TF = values_TF.reshape(len(values_TF), -1) if values_TF.ndim > 1 else values_TF.reshape(-1, 1)
    values_TF = values_TF[_thin(values_TF.shape[0], _MAX_STEPS)][:, _thin(values_TF.shape[1], _MAX_FEATURES)]
    is_number_TF = np.isfinite(values_TF)
    low_F = np.where(is_number_TF, values_TF, np.inf).min(axis=0)
    high_F = np.where(is_number_TF, values_TF, -np.inf).max(axis=0)
    known_TF = np.where(is_number_TF, values_TF, np.where(np.isfinite(low_F), low_F, 0.0))
    share_FT = ((known_TF - np.where(np.isfinite(low_F), low_F, 0.0)) / np.where(high_F > low_F, high_F - low_F, 1.0)).T
    stops = np.linspace(0.0, 1.0, len(_COLOURS_5C))
    pixels_FTC = np.stack([np.interp(share_FT, stops, channel) for channel in _COLOURS_5C.T], axis=-1)
    pixels_FTC[~is_number_TF.T] = _NOTHING
    picture = Image.fromarray(pixels_FTC.round().astype(np.uint8))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return _data_uri("image/png", stream), picture.width, picture.height


def _thin(length: int, most: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(np.int64))


def _data_uri(kind: str, stream: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
