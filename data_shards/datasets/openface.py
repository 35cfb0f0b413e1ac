"""OpenFace 2.2 FeatureExtraction CSVs (Baltrusaitis et al. 2018): gaze, head pose and action units, frame by frame.

Columns are found by name: their number and order differ between versions and command lines, and names may have leading
spaces. Where a file lacks the two gaze angles (OpenFace before 2.0) they follow from the gaze vectors.
Letters: T frames, D = 49 columns.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_shards.errors import ClipError

__all__ = ["ACTION_UNITS", "GAZE", "HEAD_POSE", "OPENFACE_COLUMNS", "read_openface"]

_INTENSITY_UNITS = ("01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26", "45")
_PRESENCE_UNITS = (*_INTENSITY_UNITS[:-1], "28", "45")

# unit vectors of both eyes (camera coordinates), and their mean direction in rad
GAZE = (*(f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"), "gaze_angle_x", "gaze_angle_y")
# position in mm, rotation in rad
HEAD_POSE = ("pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz")
# intensity 0 to 5, then presence 0 or 1
ACTION_UNITS = (*(f"AU{unit}_r" for unit in _INTENSITY_UNITS), *(f"AU{unit}_c" for unit in _PRESENCE_UNITS))
OPENFACE_COLUMNS = (*GAZE, *HEAD_POSE, *ACTION_UNITS)

_DERIVED = {"gaze_angle_x", "gaze_angle_y"}
_MAX_BYTES = 2**30  # a clip of an hour with all 714 columns is 600 MB
_MAX_FRAMES = 200_000  # two hours at 25 frames a second; an array of 39 MB


def read_openface(path: Path, *, columns: Sequence[str] = OPENFACE_COLUMNS) -> npt.NDArray[np.float32]:
    """The `columns` of an OpenFace CSV in that order, float32 (T, D), one row a frame in time order.

    Where a frame stands in several rows (several faces), the row of highest confidence counts, the first of equals
    (Wu et al. 2023). [choice] A frame in which no face was tracked (success 0, confidence 0, a value that is no number,
    or no row between rows) keeps its place in time, because CMOSE cuts time into equal chunks, and is a row of NaN:
    OpenFace writes zeros there, which would become a chunk's minimum and variance, and any other value would be invented.
    That holds for a file in which nothing was tracked at all: that nobody was seen is what was measured, and what is made
    of it is for those who read it. ClipError where a column is missing, there is no frame, or the file is damaged or too
    long.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ClipError(f"{path.name}: {path.stat().st_size:,} bytes, over the limit of {_MAX_BYTES:,} of a clip; cut it")
    best: dict[int, tuple[float, list[float]]] = {}
    for frame, confidence, values in _tracked_rows(path, columns):
        if frame not in best or confidence > best[frame][0]:
            best[frame] = (confidence, values)
        if len(best) > _MAX_FRAMES:
            raise ClipError(f"{path.name}: more than {_MAX_FRAMES:,} frames; cut it into clips")
    if not best:
        raise ClipError(f"{path.name}: names its columns and has no frame; run OpenFace again, or leave the clip out")
    first, last = min(best), max(best)
    if last - first >= _MAX_FRAMES:
        raise ClipError(f"{path.name}: frames {first} to {last}, over the limit of {_MAX_FRAMES:,}; cut it into clips")
    values_TD = np.full((last - first + 1, len(columns)), np.nan, dtype=np.float32)
    for frame, (_, values) in best.items():
        if values:
            values_TD[frame - first] = values
    return values_TD


def _tracked_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, float, list[float]]]:
    """Yield (frame, confidence, values of the columns) of each row; no values where no face was tracked."""
    try:
        with path.open("rb") as head:
            encoding = "utf-16" if head.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with path.open(encoding=encoding, newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            places = _places(header, columns, path.name)
            for number, row in enumerate(rows, start=2):
                if any(row):
                    yield _parsed(row, header, places, columns, f"{path.name} line {number}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ClipError(f"{path.name}: not readable as CSV ({error}); run OpenFace again") from None


def _places(header: list[str], columns: Sequence[str], name: str) -> dict[str, int]:
    """Column name to its place. ClipError names what is missing."""
    places = {column: place for place, column in reversed(list(enumerate(header)))}
    needed = {"frame", *columns}
    if needed & _DERIVED - places.keys():
        needed = needed - _DERIVED | set(GAZE[:6])
    missing = sorted(needed - places.keys())
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise ClipError(f"{name}: lacks the columns {shown}; run OpenFace with -gaze -pose -aus")
    return places


def _parsed(
    row: list[str], header: list[str], places: dict[str, int], columns: Sequence[str], place: str
) -> tuple[int, float, list[float]]:
    if len(row) < len(header):
        raise ClipError(f"{place}: {len(row)} of {len(header)} columns, so the file is cut short; run OpenFace again")

    def value(column: str) -> float:
        return _number(row[places[column]], place, column)

    frame = value("frame")
    if not 0 <= frame < 2**53 or frame != int(frame):
        raise ClipError(f"{place}: frame is '{row[places['frame']][:40]}', not a whole number; run OpenFace again")
    confidence = value("confidence") if "confidence" in places else 1.0
    success = value("success") if "success" in places else 1.0
    if not (success > 0 and confidence > 0):
        return int(frame), 0.0, []
    if _DERIVED & set(columns) - places.keys():
        angles = _gaze_angles([value(column) for column in GAZE[:6]])
        values = [angles[column] if column in _DERIVED else value(column) for column in columns]
    else:
        values = [value(column) for column in columns]
    return (int(frame), confidence, values) if all(map(math.isfinite, values)) else (int(frame), 0.0, [])


def _gaze_angles(vectors: list[float]) -> dict[str, float]:
    """OpenFace's gaze angles in rad: the direction of the mean of both eyes' vectors (within 0.0005 of its own columns)."""
    x, y, z = ((vectors[axis] + vectors[axis + 3]) / 2 for axis in range(3))
    return {"gaze_angle_x": math.atan2(x, -z), "gaze_angle_y": math.atan2(y, -z)}


def _number(text: str, place: str, column: str) -> float:
    """A cell as a number; nan where it is empty or some spelling of nan, as '-nan(ind)'."""
    try:
        return float(text)
    except ValueError:
        if not text.strip() or "nan" in text.lower():
            return math.nan
        raise ClipError(f"{place}: {column} is '{text[:40]}', not a number; run OpenFace again") from None
