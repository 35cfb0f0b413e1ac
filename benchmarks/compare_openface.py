"""How far is the `openface` feature by MediaPipe from OpenFace's own? Both on every frame of the same clips.

Prints Pearson's correlation over the frames of each clip and the median absolute difference, column by column; how much the
statistics of a second change where fewer frames are looked at; and frames a second against MediaPipe alone. The figures are in
docs/openface.md. The face model is named by RAPT_FACE_LANDMARKER.

    python -m benchmarks.compare_openface CLIP CSV [CLIP CSV ...]
"""

import math
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from benchmarks.measure import compare, console, save
from data_shards.datasets.openface import GAZE, HEAD_POSE, read_openface
from data_shards.decode_stream import FrameStream
from data_shards.errors import ConfigError
from data_shards.extraction import EXTRACTORS, ClipMaterial
from data_shards.extraction.extract import extract_features
from data_shards.extraction.face_columns import FACE_COLUMNS
from data_shards.face_model import face_model_path

RATES_FPS = (5.0, 10.0, 15.0)
Floats = npt.NDArray[np.float32]


def main(arguments: list[str]) -> None:
    if not arguments or len(arguments) % 2:
        raise ConfigError("python -m benchmarks.compare_openface: name pairs of a CLIP and its OpenFace CSV")
    pairs = [(Path(clip), Path(csv)) for clip, csv in zip(arguments[::2], arguments[1::2], strict=True)]
    every = {clip: extracted(clip, 0) for clip, _ in pairs}
    results = [{"title": clip.name, "columns": columns_beside(clip, every[clip], csv)} for clip, csv in pairs]
    results.append({"title": "statistics of a second", "rates": statistics_by_rate(every)})
    results.append(speed(pairs[0][0]))
    save("openface", results)


def extracted(clip: Path, fps: float) -> Floats:
    """The rows of a clip by MediaPipe; fps 0 is every frame."""
    extractor_type = EXTRACTORS["openface"]
    with extractor_type(extractor_type.settings_type.model_validate({"source": "mediapipe", "fps": fps})) as extractor:
        found = extract_features(ClipMaterial(name=clip.name, video=clip), {"openface": extractor})
    if found.lacking:
        raise ConfigError(f"{clip}: {found.lacking['openface']}")
    return found.features["openface"]


def columns_beside(clip: Path, ours_TD: Floats, csv: Path) -> list[dict[str, object]]:
    """Print and return one row a column. Differences are in degrees, mm and points of intensity."""
    theirs_TD = read_openface(csv, columns=FACE_COLUMNS)
    if len(theirs_TD) != len(ours_TD):
        raise ConfigError(f"{csv}: {len(theirs_TD)} rows for {len(ours_TD)} frames of {clip}; name the CSV of this clip")
    both_T = ~(np.isnan(ours_TD[:, 0]) | np.isnan(theirs_TD[:, 0]))
    table = Table(title=f"{clip.name}: {both_T.sum()} of {len(both_T)} frames with a face in both")
    for heading in ("column", "unit", "r", "median |difference|", "OpenFace median", "OpenFace sd", "ours median", "ours sd"):
        table.add_column(heading, justify="left" if heading in ("column", "unit") else "right")
    rows: list[dict[str, object]] = []
    for place, column in enumerate(FACE_COLUMNS):
        unit, scale = unit_of(column)
        ours_T, theirs_T = ours_TD[both_T, place] * scale, theirs_TD[both_T, place] * scale
        figures = {
            "r": pearson(ours_T, theirs_T),
            "median_difference": float(np.median(np.abs(ours_T - theirs_T))),
            "openface_median": float(np.median(theirs_T)),
            "openface_sd": float(theirs_T.std()),
            "ours_median": float(np.median(ours_T)),
            "ours_sd": float(ours_T.std()),
        }
        rows.append({"column": column, "unit": unit, **figures})
        table.add_row(column, unit, *("-" if math.isnan(figure) else f"{figure:.2f}" for figure in figures.values()))
    console.print(table)
    return rows


def unit_of(column: str) -> tuple[str, float]:
    """(the unit that a column is printed in, what its values are multiplied by)."""
    if column in HEAD_POSE[:3]:
        return "mm", 1.0
    if column in HEAD_POSE[3:] or column in GAZE[6:]:
        return "degrees", math.degrees(1)
    return ("of a unit vector", 1.0) if column in GAZE else ("of 5", 1.0)


def pearson(a_T: npt.NDArray[np.floating], b_T: npt.NDArray[np.floating]) -> float:
    """Pearson's correlation; nan where one of them stands still."""
    return float(np.corrcoef(a_T, b_T)[0, 1]) if a_T.std() > 1e-6 and b_T.std() > 1e-6 else math.nan


def statistics_by_rate(every: dict[Path, Floats]) -> list[dict[str, object]]:
    """Minimum, maximum and variance of each second at fewer frames a second, correlated with those of every frame."""
    table = Table(title="a second's statistics against those of every frame: median r over columns")
    for heading in ("rows a second", "minimum", "maximum", "variance", "variance, median ratio"):
        table.add_column(heading, justify="right")
    rows: list[dict[str, object]] = []
    for fps in RATES_FPS:
        few = {clip: extracted(clip, fps) for clip in every}
        seconds = {clip: round(FrameStream(clip).info.duration_s) for clip in every}
        r: dict[str, float] = {}
        for name, statistic in (("minimum", np.min), ("maximum", np.max), ("variance", np.var)):
            of_few_SD, of_every_SD = (
                np.concatenate(
                    [np.stack([statistic(part, axis=0) for part in np.array_split(rows_of[c], seconds[c])]) for c in every]
                )
                for rows_of in (few, every)
            )
            by_column = [pearson(of_few_SD[:, place], of_every_SD[:, place]) for place in range(len(FACE_COLUMNS))]
            r[name] = float(np.nanmedian(by_column))
        r["variance, median ratio"] = float(np.nanmedian(of_few_SD[of_every_SD > 0] / of_every_SD[of_every_SD > 0]))
        rows.append({"fps": fps, **r})
        table.add_row(f"{fps:g}", *(f"{value:.2f}" for value in r.values()))
    console.print(table)
    return rows


def speed(clip: Path) -> dict[str, object]:
    """Decoded frames through MediaPipe's tracking landmarker alone, and the whole extractor, which also decodes."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    stream = FrameStream(clip)
    frames = [frame for portion in stream.portions(np.arange(stream.info.num_frames)) for frame in portion.frames_NHWC]
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(face_model_path(None))),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )

    def alone() -> int:
        with vision.FaceLandmarker.create_from_options(options) as landmarker:
            for number, frame in enumerate(frames):
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)
                landmarker.detect_for_video(image, number * 33)
        return len(frames)

    ours = ("extractor", lambda: len(extracted(clip, 0)))
    return compare(f"every frame of {clip.name}", ours, ("MediaPipe alone", alone), unit="frames", rounds=3)


if __name__ == "__main__":
    main(sys.argv[1:])
