"""Features that somebody computed from a clip: arrays in a listing, `KEY.NAME.npy` in a shard.

Only float32 arrays without objects are read: nothing here unpickles.
"""

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.datasets.openface import read_openface
from data_shards.errors import ClipError, ShardError
from data_shards.listing import FeatureFile, ListedClip

__all__ = ["READERS", "Floats", "checked", "clip_features", "from_npy", "to_npy"]

Floats = npt.NDArray[np.float32]

_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': False, 'shape': \((?P<shape>[0-9, ]{0,200})\), \} *\n", re.DOTALL
)

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
        features[name] = checked(values, f"clip {clip.clip_id}: its feature '{name}'")
    return features


def checked(values: npt.NDArray[Any], what: str) -> Floats:
    """The array as float32. ClipError where it holds no value, or one that is no number.

    A row of a sequence may be no number throughout: a time at which there was nothing to measure, such as no face.
    """
    blank = np.isnan(values.reshape(len(values), -1)).all(axis=1) if values.ndim > 1 else np.zeros(len(values), np.bool_)
    wrong = int((~np.isfinite(values[~blank])).sum())
    if values.size == 0 or wrong:
        raise ClipError(f"{what} holds {f'{wrong} values that are not numbers' if wrong else 'no value'}; compute it again")
    return np.ascontiguousarray(values, dtype=np.float32)


def to_npy(values: Floats) -> bytes:
    """An array as the bytes of a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(values, dtype="<f4"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def from_npy(content: bytes, *, origin: str) -> Floats:
    """The float32 array of a .npy file's bytes, as `to_npy` writes them. ShardError where they are something else.

    The header is read here and not by numpy, which evaluates it as Python: a flipped bit there raises whatever the parser
    does, and CPython 3.11's is not safe between threads ("AST constructor recursion depth mismatch", its issue 106905).
    """
    header = _NPY_HEADER.match(content)
    shape = tuple(int(length) for length in header["shape"].split(b",") if length.strip()) if header else ()
    if header is None or math.prod(shape) * 4 != len(content) - header.end():  # before anything of that size is made
        raise ShardError(f"{origin}: not a readable array of float32; copy the shard again, or build it again")
    return np.frombuffer(content, dtype="<f4", offset=header.end()).reshape(shape).astype(np.float32)
