"""The text files beside a clip: OpenFace features, the transcript and the behaviour track."""

import json

import numpy as np
import numpy.typing as npt

from data_shards.simulation.cohort import PlannedClip
from data_shards.simulation.settings import NOTE
from data_shards.simulation.track import BehaviourTrack

Columns = dict[str, npt.NDArray[np.float64]]

_INTENSITY_UNITS = (
    "01",
    "02",
    "04",
    "05",
    "06",
    "07",
    "09",
    "10",
    "12",
    "14",
    "15",
    "17",
    "20",
    "23",
    "25",
    "26",
    "45",
)
_PRESENCE_UNITS = (*_INTENSITY_UNITS[:-1], "28", "45")
_CAMERA_DISTANCE_MM = 560.0
_HEAD_HALF_HEIGHT_MM = 120.0
_GAZE_RAD = 0.45
_PHRASES = (
    "Okay, I see.", "So this is the second step.", "Wait, what was that again?", "Let me write that down.",
    "Yes, that makes sense.", "Hmm, one moment.", "Can you hear me?", "I think it is the other one.",
)  # fmt: skip
_MIN_CUE_S = 0.2


def openface_csv(track: BehaviourTrack, rng: np.random.Generator) -> str:
    """The track as OpenFace 2.2's FeatureExtraction would report it: gaze, pose and action units, with noise.

    The layout is OpenFace's: a header whose names after the first start with a blank; camera coordinates
    with x right, y down and z away, millimetres and radians; intensities 0..5; confidence below 1.
    """
    num_frames = track.num_frames
    columns: dict[str, list[str]] = {
        "frame": [str(index + 1) for index in range(num_frames)],
        " face_id": ["0"] * num_frames,
        " timestamp": [f"{index / track.fps:.3f}" for index in range(num_frames)],
    }
    turned_T = np.abs(track.yaw_rad_T) + 0.5 * np.abs(track.pitch_rad_T)
    confidence_T = np.clip(0.98 - 0.15 * turned_T + 0.005 * rng.standard_normal(num_frames), 0.5, 0.99)
    columns[" confidence"] = _format(confidence_T, 2)
    columns[" success"] = ["1"] * num_frames
    for name, values_T in (_gaze(track, rng) | _pose(track, rng)).items():
        columns[f" {name}"] = _format(values_T, 6 if name[5].isdigit() else 3)
    intensities = _action_units(track, rng)
    for unit in _INTENSITY_UNITS:
        columns[f" AU{unit}_r"] = _format(intensities[unit], 2)
    for unit in _PRESENCE_UNITS:
        present_T = intensities[unit] > 1.0 if unit in intensities else np.zeros(num_frames)
        columns[f" AU{unit}_c"] = _format(present_T.astype(np.float64), 2)
    rows = [",".join(columns)] + [", ".join(row) for row in zip(*columns.values(), strict=True)]
    return "\n".join(rows) + "\n"


def _gaze(track: BehaviourTrack, rng: np.random.Generator) -> Columns:
    """Unit gaze vectors of both eyes and the mean gaze angles in rad, positive right and down."""
    angle_x_T = track.yaw_rad_T + _GAZE_RAD * track.gaze_x_T + 0.01 * rng.standard_normal(track.num_frames)
    angle_y_T = track.pitch_rad_T + _GAZE_RAD * track.gaze_y_T + 0.01 * rng.standard_normal(track.num_frames)
    columns: Columns = {}
    # The eyes converge a little: the picture's left eye points right of the mean, the other left.
    for eye, inward in ((0, 0.05), (1, -0.05)):
        x_T, y_T = np.tan(angle_x_T + inward), np.tan(np.clip(angle_y_T, -1.3, 1.3))
        norm_T = np.sqrt(x_T**2 + y_T**2 + 1.0)
        columns |= {
            f"gaze_{eye}_x": x_T / norm_T,
            f"gaze_{eye}_y": y_T / norm_T,
            f"gaze_{eye}_z": -1.0 / norm_T,
        }
    return columns | {"gaze_angle_x": angle_x_T, "gaze_angle_y": angle_y_T}


def _pose(track: BehaviourTrack, rng: np.random.Generator) -> Columns:
    """Head position in mm and rotation in rad. Turning to the picture's right is a negative Ry."""
    jitter_T6 = rng.standard_normal((track.num_frames, 6)) * np.array([0.5, 0.5, 1.5, 0.005, 0.005, 0.004])
    return {
        "pose_Tx": _HEAD_HALF_HEIGHT_MM * (track.sway_x_T + 0.10 * np.sin(track.yaw_rad_T)) + jitter_T6[:, 0],
        "pose_Ty": _HEAD_HALF_HEIGHT_MM * (track.sway_y_T + 0.22 * np.sin(track.pitch_rad_T)) + jitter_T6[:, 1],
        "pose_Tz": _CAMERA_DISTANCE_MM / (1.0 + 0.16 * track.lean_T) + jitter_T6[:, 2],
        "pose_Rx": track.pitch_rad_T + jitter_T6[:, 3],
        "pose_Ry": -track.yaw_rad_T + jitter_T6[:, 4],
        "pose_Rz": track.roll_rad_T + jitter_T6[:, 5],
    }


def _action_units(track: BehaviourTrack, rng: np.random.Generator) -> Columns:
    """Intensities 0..5: brows 1 and 2, lids 7 and 45, lips 25, jaw 26 follow the track; the rest is noise."""
    driven = {
        "01": 1.5 * track.brow_T,
        "02": 1.2 * track.brow_T,
        "07": 0.6 * track.eye_closure_T,
        "25": 3.0 * track.mouth_T,
        "26": 2.5 * track.mouth_T,
        "45": 3.0 * track.eye_closure_T,
    }
    return {
        unit: np.clip(driven.get(unit, 0.0) + 0.15 * rng.standard_normal(track.num_frames), 0.0, 5.0) for unit in _INTENSITY_UNITS
    }


def transcript_vtt(track: BehaviourTrack, rng: np.random.Generator) -> str:
    """WebVTT with one cue for every stretch of speech; the header and a note alone when nobody speaks."""
    parts = ["WEBVTT", f"NOTE {NOTE}"]
    edges = np.flatnonzero(np.diff(np.concatenate(([False], track.speaking_T, [False]))))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if (end - start) / track.fps >= _MIN_CUE_S:
            phrase = _PHRASES[rng.integers(len(_PHRASES))]
            parts.append(f"{_clock(start / track.fps)} --> {_clock(end / track.fps)}\n{phrase}")
    return "\n\n".join(parts) + "\n"


def behaviour_json(clip: PlannedClip, track: BehaviourTrack) -> str:
    """The track as JSON: per-frame lists under "frames" and the named segments."""
    record = {
        "note": NOTE,
        "clip": clip.clip_id,
        "subject": clip.subject,
        "label": track.label,
        "variant": track.variant,
        "fps": track.fps,
        "frames": {
            "engagement": _rounded(track.engagement_T),
            "pitch_rad": _rounded(track.pitch_rad_T),
            "yaw_rad": _rounded(track.yaw_rad_T),
            "roll_rad": _rounded(track.roll_rad_T),
            "eye_closure": _rounded(track.eye_closure_T),
            "mouth": _rounded(track.mouth_T),
            "lean": _rounded(track.lean_T),
            "speaking": track.speaking_T.tolist(),
        },
        "segments": [{"name": segment.name, "start_s": segment.start_s, "end_s": segment.end_s} for segment in track.segments],
    }
    return json.dumps(record) + "\n"


def _format(values_T: npt.NDArray[np.float64], digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in values_T.tolist()]


def _rounded(values_T: npt.NDArray[np.float64]) -> list[float]:
    rounded: list[float] = np.round(values_T, 4).tolist()
    return rounded


def _clock(time_s: float) -> str:
    milliseconds = round(1000 * time_s)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
