"""What is kept of a lesson: numbers alone. The HTTP contract's schema, and what a report is drawn from."""

from typing import Literal

from pydantic import Field

from data_shards.schema import Stored
from serving.answer import ModelInfo, Window

__all__ = ["ClassWindow", "LessonResult", "Moment", "PersonTimeline", "Tile"]

SCHEMA_VERSION = 1


class Tile(Stored):
    """Where a person's picture was drawn, from start_s to end_s: left, top, width and height as shares of the recording's."""

    start_s: float
    end_s: float
    left: float = Field(ge=0, le=1)
    top: float = Field(ge=0, le=1)
    width: float = Field(gt=0, le=1)
    height: float = Field(gt=0, le=1)


class PersonTimeline(Stored):
    """One person's track. person: person0, person1, ... within this recording alone; nothing says who they are.

    windows: one for each of the lesson's windows in which the person's tile was there, in order of time.
    """

    person: str
    tiles: tuple[Tile, ...]
    windows: tuple[Window, ...]


class ClassWindow(Stored):
    """The class from start_s to end_s. num_scored: people with a score; num_present: people with a tile, camera on or off.

    mean_score, low and high on [-1, 1]: the mean over people, and the quarter of them below and above which a quarter lies
    (equal to the mean where fewer than 3 are scored). None where nobody was scored. level_counts: people at each level,
    lowest first.
    """

    start_s: float
    end_s: float
    num_present: int
    num_scored: int
    mean_score: float | None = None
    low: float | None = None
    high: float | None = None
    level_counts: tuple[int, ...]


class Moment(Stored):
    """A stretch in which the class's mean score was among its lowest or highest."""

    kind: Literal["low", "high"]
    start_s: float
    end_s: float
    mean_score: float


class LessonResult(Stored):
    """All that is kept of a lesson: no picture, no sound, no name, not the recording's name either.

    level_shares: share of the scored person-windows at each level, lowest first, summing to 1 (all 0 where there are none).
    problems: what was odd about the recording, in sentences. took_s: what the whole took.
    """

    schema_version: int = SCHEMA_VERSION
    duration_s: float
    width_px: int
    height_px: int
    window_s: float
    people: tuple[PersonTimeline, ...]
    class_timeline: tuple[ClassWindow, ...]
    level_shares: tuple[float, ...]
    moments: tuple[Moment, ...]
    problems: tuple[str, ...] = ()
    took_s: float
    model: ModelInfo
