"""Perceptual hashes of frames (pHash: the signs of the 8 x 8 lowest DCT coefficients about their median), by imagehash.

Letters: K frames, H height, W width, C = 3 RGB channels.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

__all__ = ["frame_hashes"]

# A frame of one tone has no signs: its hash is noise. Standard deviation in grey levels of 255, of the small picture:
# the frames of ten real clips have 35 and more, a dark picture with a sensor's noise (8 levels) below 1.
_FLAT_STD = 4.0
_SIZE = (32, 32)


def frame_hashes(frames_KHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64] | None:
    """hashes_2K uint64: of the frames, and of their mirror images. None where most frames are of one tone.

    The few flat frames of another clip (a fade, a blank title) take the hash of the nearest frame that is not.
    """
    # pHash scales to this size first, so a frame and its mirror image share the costly step
    pictures = [Image.fromarray(f).convert("L").resize(_SIZE, Image.Resampling.LANCZOS) for f in frames_KHWC]
    shown = np.flatnonzero([np.asarray(picture).std() >= _FLAT_STD for picture in pictures])
    if 2 * len(shown) < len(pictures):
        return None
    hashes = np.array(
        [[_hash(pictures[k]) for k in shown], [_hash(ImageOps.mirror(pictures[k])) for k in shown]], dtype=np.uint64
    )
    nearest = np.abs(np.arange(len(pictures))[:, None] - shown).argmin(axis=1)
    return hashes[:, nearest]


def _hash(picture: Image.Image) -> np.uint64:
    import imagehash

    return np.uint64(np.packbits(imagehash.phash(picture).hash.ravel()).view(np.uint64)[0])
