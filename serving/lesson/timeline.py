"""Scored windows to a lesson's numbers: a row a person, the class with its band, the share of each level."""

from collections.abc import Sequence

import numpy as np

from serving.answer import ModelInfo, Window
from serving.lesson.journal import ScoredWindow
from serving.lesson.messages import Begun, Ended
from serving.lesson.moments import find_moments
from serving.lesson.record import ClassWindow, LessonResult, PersonTimeline, Tile

__all__ = ["lesson_result"]

_BAND_OF = 3  # people, from which on quarters of them mean something


def lesson_result(
    begun: Begun, windows: Sequence[ScoredWindow], ended: Ended, model: ModelInfo, *, window_s: float, took_s: float
) -> LessonResult:
    """The whole lesson, of windows in order of time. Whoever is not among `ended.tracks` was seen too shortly to be somebody."""
    somebody = {track for track in ended.tracks if any(person.track == track for window in windows for person in window.people)}
    people = tuple(
        _person(f"person{number}", track, windows)
        for number, track in enumerate(track for track in ended.tracks if track in somebody)
    )
    num_levels = len(model.levels)
    class_timeline = tuple(_class_window(window, somebody, num_levels) for window in windows)
    counts_K = np.sum([window.level_counts for window in class_timeline], axis=0) if class_timeline else np.zeros(num_levels)
    num_scored = int(counts_K.sum())
    return LessonResult(
        duration_s=ended.end_s,
        width_px=begun.width_px,
        height_px=begun.height_px,
        window_s=window_s,
        people=people,
        class_timeline=class_timeline,
        level_shares=tuple(round(float(count) / max(1, num_scored), 4) for count in counts_K),
        moments=find_moments(class_timeline),
        problems=ended.problems,
        took_s=round(took_s, 3),
        model=model,
    )


def _person(name: str, track: int, windows: Sequence[ScoredWindow]) -> PersonTimeline:
    own = [(person.tile, person.window) for window in windows for person in window.people if person.track == track]
    return PersonTimeline(person=name, tiles=_joined([tile for tile, _ in own]), windows=tuple(window for _, window in own))


def _joined(tiles: Sequence[Tile]) -> tuple[Tile, ...]:
    """A tile that stays from window to window is one."""
    joined: list[Tile] = []
    for tile in tiles:
        if joined and joined[-1].end_s == tile.start_s and _place(joined[-1]) == _place(tile):
            joined[-1] = joined[-1].model_copy(update={"end_s": tile.end_s})
        else:
            joined.append(tile)
    return tuple(joined)


def _place(tile: Tile) -> tuple[float, float, float, float]:
    return tile.left, tile.top, tile.width, tile.height


def _class_window(window: ScoredWindow, somebody: set[int], num_levels: int) -> ClassWindow:
    there: list[Window] = [person.window for person in window.people if person.track in somebody]
    scores = [seen.score for seen in there if seen.score is not None]
    levels = [seen.level_index for seen in there if seen.level_index is not None]
    mean = round(float(np.mean(scores)), 6) if scores else None
    low, high = mean, mean
    if len(scores) >= _BAND_OF:
        low, high = (round(float(value), 6) for value in np.quantile(scores, [0.25, 0.75]))
    return ClassWindow(
        start_s=window.start_s,
        end_s=window.end_s,
        num_present=len(there),
        num_scored=len(scores),
        mean_score=mean,
        low=low,
        high=high,
        level_counts=tuple(np.bincount(levels, minlength=num_levels)[:num_levels].tolist()) if levels else (0,) * num_levels,
    )
