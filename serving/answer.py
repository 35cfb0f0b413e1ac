"""What the endpoint answers; the same record comes from `rapt score`. These are the HTTP contract's schemas."""

from typing import Literal

from pydantic import Field

from data_shards.schema import Stored

__all__ = [
    "Answer",
    "AnyAnswer",
    "CameraOff",
    "Interval",
    "ModelInfo",
    "NoFace",
    "Problem",
    "Timings",
    "TooShort",
    "Unsure",
    "Window",
    "WindowStatus",
]

WindowStatus = Literal["scored", "unsure", "no_face", "camera_off"]


class ModelInfo(Stored):
    """Which model answered. notice is what a reader must know of it, e.g. that it was trained on simulated people.

    reads: `frames`, num_frames of them of frame_size_px, and features by name.
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
    validation_balanced_accuracy: float | None
    test_balanced_accuracy: float | None


class Timings(Stored):
    """Milliseconds spent: decoding and preprocessing the clip, running the model, and both."""

    decode_ms: float
    model_ms: float
    total_ms: float


class Interval(Stored):
    """What holds the truth for a share `coverage` of clips like those that it was calibrated on.

    low and high: on the score's scale [-1, 1]; levels: the names of the levels within, lowest first.
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
    of them the clip does not have, and why. face_share: the share of looked-at frames that show a face, None where the
    model looks for none. interval: None where the model was trained before intervals were calibrated. timeline: of a clip
    of more than one window, each window scored by itself; `score` stays that of the whole clip.
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
    """The model cannot tell: its interval leaves every level open. No level and no score, so that none is read off it."""

    status: Literal["unsure"] = "unsure"
    probabilities: dict[str, float]
    interval: Interval
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


class Problem(Stored):
    """Why a request got no answer, in one plain sentence."""

    error: str
