"""Features that somebody computed from a clip: arrays in a listing, `KEY.NAME.npy` in a shard.

Only float32 arrays without objects are read: nothing here unpickles.
"""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_shards.errors import ClipError, ShardError
from data_shards.listing import FeatureFile, ListedClip
from data_shards.openface import read_openface

__all__ = ["READERS", "clip_features", "from_npy", "to_npy"]

Floats = npt.NDArray[np.float32]

READERS: dict[str, Callable[[Path], Floats]] = {"openface_csv": read_openface}


def clip_features(clip: ListedClip) -> dict[str, Floats]:
    """Name to array of all the features a clip is listed with. ClipError where one is empty or holds no number."""
    features = {}
    for name, source in clip.features.items():
        if isinstance(source, FeatureFile):
            with source.file.local() as path:
                values = READERS[source.reader](path)
        else:
            values = source
        if values.size == 0 or not np.isfinite(values).all():
            what = "no value" if values.size == 0 else f"{int((~np.isfinite(values)).sum())} values that are not numbers"
            raise ClipError(f"clip {clip.clip_id}: its feature '{name}' holds {what}; compute it again")
        features[name] = np.ascontiguousarray(values, dtype=np.float32)
    return features


def to_npy(values: Floats) -> bytes:
    """An array as the bytes of a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def from_npy(content: bytes, *, origin: str) -> Floats:
    """The float32 array of a .npy file's bytes. ShardError where they are something else."""
    try:
        stream = io.BytesIO(content)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not of npy version 1.0")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        start, size_bytes = stream.tell(), math.prod(shape) * dtype.itemsize
        if size_bytes != len(content) - start:  # before anything of that size is made
            raise ValueError(f"{len(content) - start:,} bytes where its header says {size_bytes:,}")
        if dtype != np.float32:
            raise ValueError(f"an array of {dtype}, not float32")
        return np.frombuffer(content, dtype=np.float32, offset=start).reshape(shape, order="F" if is_fortran else "C").copy()
    except Exception as error:  # numpy evaluates the header, so damage there raises whatever Python's parser does
        what = " ".join(str(error).split())
        raise ShardError(f"{origin}: not a readable array ({what}); copy the shard again, or build it again") from None
