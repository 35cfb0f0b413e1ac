"""The behaviour track of a clip, and the draft it is built up in.

Letters: T frames of the clip.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One named behaviour from start_s to end_s."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class BehaviourTrack:
    """One clip's behaviour, one value a frame.

    engagement_T: latent level in [0, 1]. pitch_rad_T: head pitch, positive down. yaw_rad_T: head yaw,
    positive to the right of the picture. roll_rad_T: head roll. gaze_x_T, gaze_y_T: where the eyes point
    within the head, in [-1, 1], positive right and down. eye_closure_T: 0 open .. 1 shut. mouth_T: 0 shut
    .. 1 wide open. lean_T: 0 sitting back .. 1 leaning in. sway_x_T, sway_y_T: idle shift of the head in
    head half-heights. brow_T: raised by 0..1. phone_T: how far a phone is in view, 0..1. speaking_T:
    whether the person speaks.
    """

    label: int
    variant: str
    fps: int
    engagement_T: FloatArray
    pitch_rad_T: FloatArray
    yaw_rad_T: FloatArray
    roll_rad_T: FloatArray
    gaze_x_T: FloatArray
    gaze_y_T: FloatArray
    eye_closure_T: FloatArray
    mouth_T: FloatArray
    lean_T: FloatArray
    sway_x_T: FloatArray
    sway_y_T: FloatArray
    brow_T: FloatArray
    phone_T: FloatArray
    speaking_T: BoolArray
    segments: tuple[Segment, ...]

    @property
    def num_frames(self) -> int:
        return len(self.engagement_T)


@dataclass(kw_only=True)
class Draft:
    """A track while behaviours write to it, before idle motion is added.

    rng: the clip's random stream. deviation_T: engagement about its mean. Angles in rad; the rest in 0..1.
    """

    num_frames: int
    fps: int
    rng: np.random.Generator
    deviation_T: FloatArray
    pitch_T: FloatArray = field(init=False)
    yaw_T: FloatArray = field(init=False)
    closure_T: FloatArray = field(init=False)
    mouth_T: FloatArray = field(init=False)
    lean_T: FloatArray = field(init=False)
    phone_T: FloatArray = field(init=False)
    speaking_T: BoolArray = field(init=False)
    segments: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("pitch_T", "yaw_T", "closure_T", "mouth_T", "lean_T", "phone_T"):
            setattr(self, name, np.zeros(self.num_frames))
        self.speaking_T = np.zeros(self.num_frames, dtype=np.bool_)

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps

    def bout(self, start_s: float, end_s: float, ramp_s: float) -> FloatArray:
        """One from start_s to end_s with smooth flanks of ramp_s outside of it, zero elsewhere."""
        time_s_T = np.arange(self.num_frames) / self.fps
        edge_T = np.minimum(time_s_T - (start_s - ramp_s), (end_s + ramp_s) - time_s_T) / ramp_s
        x_T = np.clip(edge_T, 0.0, 1.0)
        return x_T * x_T * (3.0 - 2.0 * x_T)

    def random_span_s(self, low_s: float, high_s: float) -> tuple[float, float]:
        """A span of low_s to high_s (shortened to 60 % of the clip) anywhere in the clip."""
        length_s = min(self.rng.uniform(low_s, high_s), 0.6 * self.duration_s)
        start_s = self.rng.uniform(0.0, self.duration_s - length_s)
        return start_s, start_s + length_s

    def note(self, name: str, start_s: float, end_s: float) -> None:
        start_s, end_s = max(0.0, start_s), min(self.duration_s, end_s)
        self.segments.append(Segment(name=name, start_s=round(float(start_s), 3), end_s=round(float(end_s), 3)))

    def note_where(self, name: str, active_T: BoolArray) -> None:
        """One segment for every run of true frames."""
        edges = np.flatnonzero(np.diff(np.concatenate(([False], active_T, [False]))))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            self.note(name, start / self.fps, end / self.fps)
