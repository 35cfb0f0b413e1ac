"""The tile of a picture as the model's training frames were stored.

Letters: H height in pixels, W width in pixels, C = 3 RGB channels.
"""

from typing import TYPE_CHECKING

import numpy as np

from data_shards.gallery.clip_writer import cropped
from data_shards.gallery.layout import Box
from data_shards.gallery.recording import Picture
from data_shards.preprocess import PreprocessConfig, scaled_size, to_square
from data_shards.sample import encode_frames

if TYPE_CHECKING:
    from av.video.reformatter import VideoReformatter

__all__ = ["TileFrames"]

_MAX_SIZES = 64  # of tiles at a time


class TileFrames:
    """Crops and scales a picture's tiles and encodes them (`data_shards/preprocess.py`).

    Scaled as decord does it, from yuv420p and bilinear. A clip that `rapt shards cut` cuts out goes through H.264 once more, so
    its frames are like these, but not the same to the bit. A scaler is kept for each size: making one takes as long as scaling.
    """

    def __init__(self, config: PreprocessConfig) -> None:
        self._config = config
        self._size_of = scaled_size(config)
        self._scalers: dict[tuple[int, int], VideoReformatter] = {}

    def jpeg(self, picture: Picture, box: Box) -> bytes:
        """The part of the picture inside the box: scaled, cropped or padded to the square, as JPEG."""
        tile = cropped(picture.frame, box, (box.width, box.height))
        width, height = self._size_of(box.width, box.height)
        scaled = self._scaler((box.width, box.height)).reformat(tile, width, height, "rgb24", interpolation="BILINEAR", threads=1)
        rgb_HWC = np.asarray(scaled.to_ndarray(), dtype=np.uint8)
        return encode_frames(to_square(rgb_HWC[None], self._config.size_px), quality=self._config.jpeg_quality)[0]

    def _scaler(self, size: tuple[int, int]) -> "VideoReformatter":
        from av.video.reformatter import VideoReformatter

        if size not in self._scalers:
            if len(self._scalers) >= _MAX_SIZES:
                self._scalers.clear()
            self._scalers[size] = VideoReformatter()
        return self._scalers[size]
