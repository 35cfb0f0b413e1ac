"""What one simulated set is made from. Equal settings give equal files, byte for byte."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

# Raised whenever the same settings would give other files, so that an old folder is never half new.
GENERATOR_VERSION = 2
NOTE = "simulated: a drawn person and a synthetic voice; nobody was recorded"


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """Settings of one simulated set.

    num_clips: number of clips, at least 1. With 64 or more, every split has all four classes.
    seed: starts every random draw.
    balance: "uniform" gives every class the same share, "daisee" the shares of DAiSEE's train split
        (34, 213, 2617 and 2494 clips of the levels 0 to 3), with at least one clip of every class in
        every split of eight clips or more.
    duration_s: length of a clip in seconds, 2 or more. The pairs of levels that differ only over time
        need about 6 s to be told apart.
    fps: frames a second, 5 to 60.
    width_px, height_px: frame size in pixels, even and at least 64.

    Raises ValueError for a value outside these ranges.
    """

    num_clips: int
    seed: int = 0
    balance: Literal["uniform", "daisee"] = "uniform"
    duration_s: float = 10.0
    fps: int = 15
    width_px: int = 320
    height_px: int = 240

    def __post_init__(self) -> None:
        if self.num_clips < 1:
            raise ValueError(f"num_clips is {self.num_clips}; ask for at least 1 clip")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; use 0 or more")
        if self.balance not in ("uniform", "daisee"):
            raise ValueError(f"balance is {self.balance!r}; use 'uniform' or 'daisee'")
        if not 2.0 <= self.duration_s <= 3600.0:
            raise ValueError(f"duration_s is {self.duration_s}; use 2 to 3600 seconds")
        if not 5 <= self.fps <= 60:
            raise ValueError(f"fps is {self.fps}; use 5 to 60 frames a second")
        if min(self.width_px, self.height_px) < 64 or self.width_px % 2 or self.height_px % 2:
            raise ValueError(f"the frame is {self.width_px}x{self.height_px}; use even sizes of 64 pixels or more")

    @property
    def num_frames(self) -> int:
        """Frames in a clip."""
        return round(self.duration_s * self.fps)

    def as_record(self) -> dict[str, Any]:
        """The settings as written to settings.json, with the generator's version."""
        return {"note": NOTE, "generator_version": GENERATOR_VERSION, **asdict(self)}
