"""The feature `openface`: gaze, head pose and facial action units, row by row in time, from one of three sources.

csv and binary give OpenFace 2.2's 49 columns; mediapipe gives 31 of the same names and units, whose action units are only
like OpenFace's. A model trained on one source is not to be fed with another: the source is a setting and is stored.
Letters: N frames of a portion, H height, W width, C = 3 RGB channels, T rows, D = 49 or 31 columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue

from data_shards.datasets.openface import OPENFACE_COLUMNS, read_openface
from data_shards.decode_stream import StreamInfo
from data_shards.extraction.contract import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.face_columns import FACE_COLUMNS, face_row
from data_shards.extraction.face_track import FaceTrack
from data_shards.extraction.openface_program import openface_program, run_openface
from data_shards.face_landmarks import mediapipe_version
from data_shards.face_model import face_model_path
from data_shards.gallery.faces import FaceFinder
from data_shards.storage.store import file_sha256

__all__ = ["OpenFace", "OpenFaceSettings", "face_present"]

Floats = npt.NDArray[np.float32]

_EVERY_FRAME_FPS = 1000.0  # more than any video has
_MAX_FACES = 5  # among which the largest is looked for
_PROGRAM_S = 120.0  # to load OpenFace's models
_PROGRAM_FRAMES_A_S = 2.0  # a tenth of what OpenFace reaches on a laptop
_UNITS: dict[str, JsonValue] = {"gaze vectors": "1", "angles": "rad", "pose_T": "mm", "AU_r": "0 to 5", "AU_c": "0 or 1"}


class OpenFaceSettings(ExtractorSettings):
    """source: csv reads the file beside the clip, binary runs RAPT_OPENFACE, mediapipe looks itself.

    fps, of mediapipe alone: rows a second; 0 is every frame, as OpenFace's own. [choice] 10: a blink lasts 0.1 s and more,
    and the minima, maxima and variances of a second hardly change (docs/openface.md).
    zoom, of mediapipe alone: 1 finds faces of 12 % of the picture's longer side, 2 and 4 also smaller ones, a half and a
    quarter as large, at 10 and 60 times the work wherever nobody is seen. [choice] 1: a clip is of one person before a
    camera, and what is smaller is a picture on the wall as often as a person.
    """

    source: Literal["csv", "binary", "mediapipe"] = "mediapipe"
    fps: float = Field(default=10.0, ge=0, le=_EVERY_FRAME_FPS)
    zoom: Literal[1, 2, 4] = 1


class OpenFace(Extractor):
    """(T, D) float32, one row a frame in time order; a frame in which no face is seen is a row of NaN, even where all are.

    One clip at a time: a clip that breaks off is never finished, and what it holds is freed when the next one is read.
    """

    settings_type = OpenFaceSettings

    def __init__(self, settings: OpenFaceSettings) -> None:
        super().__init__(settings)
        self._finder: FaceFinder | None = None
        self._track: FaceTrack | None = None
        if settings.source == "mediapipe":
            self.fps = settings.fps or _EVERY_FRAME_FPS
            self._model_path = face_model_path(None)
            self._finder = FaceFinder(self._model_path, max_faces=_MAX_FACES)
        elif settings.source == "binary":
            self._program = openface_program()

    @staticmethod
    def needs_only_the_clip(settings: OpenFaceSettings) -> bool:
        """A CSV is made by somebody else."""
        return settings.source != "csv"

    @property
    def about(self) -> dict[str, JsonValue]:
        """Source, columns and units; what made the values, by version or sha256."""
        about: dict[str, JsonValue] = {"source": self.settings.source}
        if self.settings.source == "mediapipe":
            return about | {
                "columns": list(FACE_COLUMNS),
                "units": {name: unit for name, unit in _UNITS.items() if name != "AU_c"},
                "mediapipe": mediapipe_version(),
                "model_sha256": file_sha256(self._model_path),
            }
        if self.settings.source == "binary":
            about["program_sha256"] = file_sha256(self._program)
        return about | {"columns": list(OPENFACE_COLUMNS), "units": _UNITS}

    def read(self, clip: ClipMaterial, stream: StreamInfo | None) -> Reading:
        """Start on a clip; stream is needed by mediapipe alone, and else only tells how long OpenFace may take."""
        if self._finder is not None:
            if stream is None:
                return _Lacking("no video")
            self._free_track()
            self._track = FaceTrack(self._model_path, self._finder.find, zoom=self.settings.zoom)
            return _Watched(self._track, stream)
        if self.settings.source == "csv":
            if clip.openface_csv:
                return _Written(clip.openface_csv)
            return _Lacking(clip.unclear.get("openface_csv", "no OpenFace CSV"))
        if clip.video is None:
            return _Lacking("no video")
        return _Run(self._program, clip.video, _PROGRAM_S + (stream.num_frames if stream else 10_000) / _PROGRAM_FRAMES_A_S)

    def close(self) -> None:
        """Free the model."""
        self._free_track()
        if self._finder is not None:
            self._finder.close()

    def _free_track(self) -> None:
        if self._track is not None:
            self._track.close()


class _Lacking(Reading):
    def __init__(self, why: str) -> None:
        self.lacking = why

    def see(self, frames_NHWC: npt.NDArray[np.uint8], times_N: npt.NDArray[np.float64]) -> None:
        """Nothing to look for."""

    def finish(self) -> None:
        return None


class _Written(Reading):
    def __init__(self, csv: Path) -> None:
        self._csv = csv

    def finish(self) -> Floats:
        return read_openface(self._csv)


class _Run(Reading):
    def __init__(self, program: Path, video: Path, limit_s: float) -> None:
        self._program, self._video, self._limit_s = program, video, limit_s

    def finish(self) -> Floats:
        return run_openface(self._program, self._video, limit_s=self._limit_s)


class _Watched(Reading):
    """One clip under MediaPipe."""

    def __init__(self, track: FaceTrack, stream: StreamInfo) -> None:
        self._track = track
        self._stream = stream
        self._rows: list[Floats] = []

    def see(self, frames_NHWC: npt.NDArray[np.uint8], times_N: npt.NDArray[np.float64]) -> None:
        nobody_D = np.full(len(FACE_COLUMNS), np.nan, dtype=np.float32)
        width, height = self._stream.width_px, self._stream.height_px
        for frame_HWC, time_s in zip(frames_NHWC, times_N.tolist(), strict=True):
            seen = self._track.see(frame_HWC, time_s)
            self._rows.append(face_row(*seen, width=width, height=height) if seen else nobody_D)

    def finish(self) -> Floats:
        self._track.close()
        return np.stack(self._rows)


def face_present(rows_TD: Floats, row_times_T: Sequence[float], frame_times_s: Sequence[float]) -> tuple[bool, ...]:
    """Whether a face is in each stored frame, as SampleMeta.face_present says it: as the row nearest in time saw it.

    rows_TD: any source's rows; row_times_T and frame_times_s: rising seconds from the clip's start. ValueError where rows
    and times differ in number, or there is none.
    """
    if len(rows_TD) != len(row_times_T) or not len(rows_TD):
        raise ValueError(f"{len(rows_TD)} rows with {len(row_times_T)} times")
    seen_T: npt.NDArray[np.bool_] = ~np.isnan(rows_TD[:, 0])  # a row is whole or no number throughout
    times_T = np.asarray(row_times_T, dtype=np.float64)
    nearest = [int(np.abs(times_T - time_s).argmin()) for time_s in frame_times_s]
    return tuple(bool(seen_T[row]) for row in nearest)
