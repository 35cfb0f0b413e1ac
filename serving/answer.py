"""What the endpoint answers; the same record comes from `rapt score`. These are the HTTP contract's schemas."""

from typing import Literal

from pydantic import Field

from data_shards.schema import Stored

__all__ = ["Answer", "ModelInfo", "NoFace", "Problem", "Timings"]


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


class Answer(Stored):
    """The engagement level of one clip.

    score: the expected level on [-1, 1], -1 the lowest level and 1 the highest. probabilities: level name to
    calibrated probability, summing to 1; level is the most probable. features_used: what of the clip the answer rests
    on beside frames, e.g. `speech` and `acoustics` where there are both, and neither where one is lacking; lacking: which
    of them the clip does not have, and why. face_share: the share of looked-at frames that show a face, None where the
    model looks for none.
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
    duration_s: float
    model: ModelInfo
    timings: Timings


class NoFace(Stored):
    """Nobody was seen in any frame that was looked at: an answer, and no score."""

    status: Literal["no_face"] = "no_face"
    duration_s: float
    model: ModelInfo


class Problem(Stored):
    """Why a request got no answer, in one plain sentence."""

    error: str
