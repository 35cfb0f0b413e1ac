"""What the endpoint answers; the same record comes from `rapt score`. These are the HTTP contract's schemas."""

from typing import Literal

from pydantic import Field

from data_shards.schema import Stored

__all__ = [
    "Answer",
    "AnyAnswer",
    "CameraOff",
    "Explanation",
    "Interval",
    "ModelInfo",
    "NoFace",
    "Problem",
    "Region",
    "Timings",
    "TooShort",
    "Unsure",
    "Window",
    "WindowStatus",
    "in_words",
    "timeline_in_words",
]

WindowStatus = Literal["scored", "unsure", "no_face", "camera_off"]


class ModelInfo(Stored):
    """Which model answered. notice is what a reader must know of it, e.g. that it was trained on simulated people.

    reads: `frames`, num_frames of them of frame_size_px, and features by name. looks_for_faces: whether a clip in which nobody
    is seen gets the answer `no_face`; False where no face model is at hand. window_s: the length of a timeline's windows.
    """

    name: str
    version: str
    recipe: str
    run_id: str
    levels: tuple[str, ...]
    reads: tuple[str, ...]
    num_frames: int
    frame_size_px: int
    data_digest: str
    dataset: str
    simulated: bool
    notice: str
    limits: str
    looks_for_faces: bool = False
    window_s: float = 10.0
    validation_balanced_accuracy: float | None
    test_balanced_accuracy: float | None


class Timings(Stored):
    """Milliseconds spent: decoding and preprocessing the clip, running the model, and both."""

    decode_ms: float
    model_ms: float
    total_ms: float


class Interval(Stored):
    """What holds the level that observers would give, for a share `coverage` of clips like those it was calibrated on.

    levels: neighbouring levels by name, lowest first. low and high: the part of the score's scale [-1, 1] that belongs to
    them, and reaches to the score itself. training/calibration.py says what the coverage rests on.
    """

    low: float = Field(ge=-1, le=1)
    high: float = Field(ge=-1, le=1)
    levels: tuple[str, ...]
    coverage: float = Field(gt=0, lt=1)


class Window(Stored):
    """A part of a longer clip, from start_s to end_s: score and level_index are None where it was not scored.

    score in [-1, 1]; level_index counts from 0, the lowest; face_share in [0, 1], None where nobody looked for a face.
    """

    start_s: float = Field(ge=0)
    end_s: float
    status: WindowStatus
    score: float | None = Field(default=None, ge=-1, le=1)
    level_index: int | None = Field(default=None, ge=0)
    face_share: float | None = None


class Answer(Stored):
    """The engagement level of one clip.

    score: the expected level on [-1, 1], -1 the lowest level and 1 the highest. probabilities: level name to
    calibrated probability, summing to 1; level is the most probable. features_used: what of the clip the answer rests
    on beside frames, e.g. `speech` and `acoustics` where there are both, and neither where one is lacking; lacking: which
    of them the clip does not have, and why, or `timeline` and why a long clip has none. face_share: the share of looked-at
    frames that show a face, None where nobody looked for one. interval: None where the model has none calibrated, from before
    there were any or for want of validation clips. timeline: of a clip of more than one and a half windows, each window scored
    by itself; `score` stays that of the whole clip.
    """

    status: Literal["scored"] = "scored"
    level: str
    level_index: int = Field(ge=0)
    score: float = Field(ge=-1, le=1)
    probabilities: dict[str, float]
    frames_used: int
    features_used: tuple[str, ...] = ()
    lacking: dict[str, str] = Field(default_factory=dict)
    face_share: float | None = None
    interval: Interval | None = None
    timeline: tuple[Window, ...] = ()
    duration_s: float
    model: ModelInfo
    timings: Timings


class Unsure(Stored):
    """The model cannot tell: its interval leaves every level open. No level and no score, so that none is read off it.

    [choice] A model without a calibrated interval is never unsure: nothing is known of how far it can be trusted.
    """

    status: Literal["unsure"] = "unsure"
    probabilities: dict[str, float]
    interval: Interval
    frames_used: int = 0
    lacking: dict[str, str] = Field(default_factory=dict)
    face_share: float | None = None
    timeline: tuple[Window, ...] = ()
    duration_s: float
    model: ModelInfo
    timings: Timings


class CameraOff(Stored):
    """The picture is black, or one colour, or a still tile with a name: nothing to score."""

    status: Literal["camera_off"] = "camera_off"
    duration_s: float
    model: ModelInfo


class TooShort(Stored):
    """The clip is shorter than min_duration_s: engagement is not a matter of a moment."""

    status: Literal["too_short"] = "too_short"
    min_duration_s: float
    duration_s: float
    model: ModelInfo


class NoFace(Stored):
    """Nobody was seen in any frame that was looked at: an answer, and no score."""

    status: Literal["no_face"] = "no_face"
    duration_s: float
    model: ModelInfo


AnyAnswer = Answer | Unsure | NoFace | CameraOff | TooShort


class Region(Stored):
    """A rectangle as shares of a picture's width and height. One that reaches beyond the picture, by black that was added
    around it, has left or top below 0 and width or height above 1."""

    left: float
    top: float
    width: float = Field(gt=0)
    height: float = Field(gt=0)


class Explanation(Stored):
    """Where the model looked at a moment (Grad-CAM, Selvaraju et al. 2017): numbers alone, no picture.

    at_s: the time of the nearest frame that the model read; level: the one explained, its most probable. grid: rows from the
    top, each from the left, in [0, 1], over `region` of the source picture: 1 where that frame spoke most for the level, all
    0 where nothing in it did. It says what moved the model, not whether that was right.
    """

    at_s: float
    level: str
    level_index: int = Field(ge=0)
    grid: tuple[tuple[float, ...], ...]
    region: Region
    model: ModelInfo


class Problem(Stored):
    """Why a request got no answer, in one plain sentence."""

    error: str


def in_words(answer: AnyAnswer) -> str:
    """The answer as one plain sentence, without a full stop, e.g. for `rapt score`."""
    if isinstance(answer, TooShort):
        return f"too short, {answer.duration_s:.1f} s of at least {answer.min_duration_s:g} s, so no score"
    if isinstance(answer, CameraOff):
        return "the camera is off, so no score"
    if isinstance(answer, NoFace):
        return "nobody's face is in view, so no score"
    chances = ", ".join(f"{name} {chance:.0%}" for name, chance in answer.probabilities.items())
    if isinstance(answer, Unsure):
        return f"the model is unsure, every level is open at {answer.interval.coverage:.0%}, so no score ({chances})"
    said = f"{answer.level}, score {answer.score:+z.2f}"
    if answer.interval is not None:
        between = answer.interval
        said += f", {between.coverage:.0%} interval {between.low:+z.2f} to {between.high:+z.2f}, {' or '.join(between.levels)}"
    return f"{said} ({chances})"


def timeline_in_words(answer: AnyAnswer) -> list[str]:
    """A line for each window of the answer's timeline, e.g. `10 to 20 s: Engaged, score +0.31`; none where it has none."""
    if not isinstance(answer, Answer | Unsure):
        return []
    levels = tuple(answer.probabilities)
    lines = []
    for window in answer.timeline:
        said = window.status.replace("_", " ")
        if window.score is not None and window.level_index is not None:
            said = f"{levels[window.level_index]}, score {window.score:+z.2f}"
        lines.append(f"{window.start_s:g} to {window.end_s:g} s: {said}")
    return lines
