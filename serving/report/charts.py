"""A lesson's numbers as what a template draws: places in per cent of a chart's width and height, and words for each.

Places in per cent let a drawing take the width of a phone or of a sheet of paper without its text being scaled.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from serving.answer import Window
from serving.lesson.record import ClassWindow, LessonResult, PersonTimeline

__all__ = [
    "Bar",
    "ClassChart",
    "Mark",
    "PersonRow",
    "Tick",
    "class_chart",
    "clock",
    "level_class",
    "level_share_bars",
    "person_rows",
]

# the words of every window status but `scored`, which has its level's
STATUS_WORDS = {"unsure": "unsure", "no_face": "no face", "camera_off": "camera off"}
_NUM_RAMP = 4  # colours of levels in levels.css
_TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
_MAX_TICKS = 6


@dataclass(frozen=True)
class Bar:
    """A stretch of one kind. kind: `level-N` or a window's status; left, width, top and height in per cent."""

    kind: str
    left: float
    width: float
    top: float
    height: float
    text: str


@dataclass(frozen=True)
class PersonRow:
    """One person's row: bars in order of time, mean_score where anything was scored, and the row in one sentence."""

    person: str
    bars: tuple[Bar, ...]
    mean_score: float | None
    scored_share: float
    tile: tuple[float, float, float, float] | None  # left, top, width, height in per cent of the recording's picture
    text: str


@dataclass(frozen=True)
class Tick:
    """A time on the axis. anchor: SVG's text-anchor, so that the first and the last stay inside."""

    left: float
    anchor: str
    text: str


@dataclass(frozen=True)
class Mark:
    """A moment over the class's chart. name: L1, L2, ... or H1, H2, ..."""

    name: str
    kind: str
    start_s: float
    end_s: float
    left: float
    width: float
    mean_score: float
    num_scored: int


@dataclass(frozen=True)
class ClassChart:
    """lines and bands: SVG path data in a box of 1000 x 200 (score 1 at the top, -1 at the bottom), one a stretch that was
    scored; gaps: where nobody was; marks: the moments."""

    lines: tuple[str, ...]
    bands: tuple[str, ...]
    gaps: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def level_class(index: int, num_levels: int) -> str:
    """The CSS class of a level: the lowest and the highest of any number of levels have the ends of the ramp."""
    share = index / (num_levels - 1) if num_levels > 1 else 1.0
    return f"level-{round(min(1.0, share) * (_NUM_RAMP - 1))}"


def class_chart(result: LessonResult) -> ClassChart:
    """The class over the lesson: mean, the quarters around it, where nobody was scored, and the moments."""
    lines, bands = [], []
    for stretch in _scored_stretches(result.class_timeline):
        at = _stretch_times(stretch)
        means = [window.mean_score or 0.0 for window in stretch]
        lows = [window.low if window.low is not None else mean for window, mean in zip(stretch, means, strict=True)]
        highs = [window.high if window.high is not None else mean for window, mean in zip(stretch, means, strict=True)]
        line, low, high = (_points(at, (values[0], *values, values[-1]), result.duration_s) for values in (means, lows, highs))
        lines.append(f"M{' L'.join(line)}")
        bands.append(f"M{' L'.join(high)} L{' L'.join(reversed(low))} Z")
    return ClassChart(
        lines=tuple(lines),
        bands=tuple(bands),
        gaps=tuple(
            Bar("gap", *_place(window.start_s, window.end_s, result.duration_s), 0, 100, "nobody was scored")
            for window in result.class_timeline
            if window.mean_score is None
        ),
        ticks=_ticks(result.duration_s),
        marks=tuple(_marks(result)),
    )


def person_rows(result: LessonResult) -> tuple[PersonRow, ...]:
    """A row a person. Neighbouring windows of one kind are one bar; a higher level is a taller bar."""
    return tuple(_person_row(person, result) for person in result.people)


def level_share_bars(result: LessonResult) -> tuple[Bar, ...]:
    """The level shares as parts of one bar, lowest first."""
    bars, left = [], 0.0
    for index, (name, share) in enumerate(zip(result.model.levels, result.level_shares, strict=False)):
        width = max(0.0, min(100.0 - left, 100 * share))
        bars.append(Bar(level_class(index, len(result.model.levels)), _short(left), _short(width), 0, 100, name))
        left += width
    return tuple(bars)


def _person_row(person: PersonTimeline, result: LessonResult) -> PersonRow:
    levels = result.model.levels
    bars = []
    for _, run in groupby(_unbroken(person.windows), key=lambda numbered: (numbered[0], _kind(numbered[1], len(levels)))):
        windows = [window for _, window in run]
        first, last = windows[0], windows[-1]
        kind, height, words = _kind(first, len(levels)), 100.0, STATUS_WORDS.get(first.status, "")
        if first.level_index is not None and first.status == "scored":
            index = min(first.level_index, len(levels) - 1)
            height, words = 100 * (index + 1) / len(levels), levels[index]
        text = f"{clock(first.start_s)} to {clock(last.end_s)}: {words}"
        place = _place(first.start_s, last.end_s, result.duration_s)
        bars.append(Bar(kind, *place, _short(100 - height), _short(height), text))
    scores = [window.score for window in person.windows if window.score is not None]
    return PersonRow(
        person=person.person,
        bars=tuple(bars),
        mean_score=sum(scores) / len(scores) if scores else None,
        scored_share=len(scores) / max(1, len(person.windows)),
        tile=_longest_tile(person),
        text=_row_words(person, levels),
    )


def _unbroken(windows: Sequence[Window]) -> Iterator[tuple[int, Window]]:
    """Each window with the number of its stretch: a person who left and came back starts another."""
    stretch, end_s = 0, windows[0].start_s if windows else 0.0
    for window in windows:
        if window.start_s > end_s + 0.01:
            stretch += 1
        end_s = window.end_s
        yield stretch, window


def _kind(window: Window, num_levels: int) -> str:
    if window.status != "scored" or window.level_index is None:
        return window.status if window.status != "scored" else "unsure"
    return level_class(window.level_index, num_levels)


def _row_words(person: PersonTimeline, levels: Sequence[str]) -> str:
    """`person0: 4 of 6 windows high, 2 camera off`: the row for whom it is read aloud."""
    words = [
        STATUS_WORDS.get(window.status) or (levels[min(window.level_index or 0, len(levels) - 1)] if levels else "scored")
        for window in person.windows
    ]
    counts = [f"{words.count(word)} {word}" for word in (*levels, *STATUS_WORDS.values()) if word in words]
    return f"{person.person}, {len(words)} {'window' if len(words) == 1 else 'windows'}: {', '.join(counts) or 'none'}"


def _longest_tile(person: PersonTimeline) -> tuple[float, float, float, float] | None:
    if not person.tiles:
        return None
    tile = max(person.tiles, key=lambda tile: tile.end_s - tile.start_s)
    return _short(100 * tile.left), _short(100 * tile.top), _short(100 * tile.width), _short(100 * tile.height)


def _scored_stretches(timeline: Iterable[ClassWindow]) -> Iterator[list[ClassWindow]]:
    for is_scored, run in groupby(timeline, key=lambda window: window.mean_score is not None):
        if is_scored:
            yield list(run)


def _stretch_times(stretch: Sequence[ClassWindow]) -> list[float]:
    """The windows' middles, with the stretch's start and end around them, so that one window alone is a line too."""
    return [stretch[0].start_s, *((window.start_s + window.end_s) / 2 for window in stretch), stretch[-1].end_s]


def _points(at_s: Sequence[float], scores: Sequence[float], duration_s: float) -> list[str]:
    return [
        f"{_short(10 * _percent(time_s, duration_s))},{_short(100 * (1 - score))}"
        for time_s, score in zip(at_s, scores, strict=True)
    ]


def _marks(result: LessonResult) -> Iterator[Mark]:
    counts = {"low": 0, "high": 0}
    for moment in result.moments:
        counts[moment.kind] += 1
        scored = [
            window.num_scored
            for window in result.class_timeline
            if window.start_s < moment.end_s and window.end_s > moment.start_s
        ]
        left, width = _place(moment.start_s, moment.end_s, result.duration_s)
        name = f"{moment.kind[0].upper()}{counts[moment.kind]}"
        yield Mark(name, moment.kind, moment.start_s, moment.end_s, left, width, moment.mean_score, max(scored, default=0))


def _ticks(duration_s: float) -> tuple[Tick, ...]:
    step_s = next((step for step in _TICK_STEPS_S if duration_s / step < _MAX_TICKS), max(duration_s, 1.0))
    ticks = []
    for number in range(_MAX_TICKS + 1):
        time_s = number * step_s
        left = _percent(time_s, duration_s)
        if time_s > duration_s:
            break
        ticks.append(Tick(left, "start" if number == 0 else "end" if left > 95 else "middle", clock(time_s)))
    return tuple(ticks)


def _place(start_s: float, end_s: float, duration_s: float) -> tuple[float, float]:
    """(left, width) in per cent."""
    left = _percent(start_s, duration_s)
    return left, _short(max(0.0, _percent(end_s, duration_s) - left))


def _percent(time_s: float, duration_s: float) -> float:
    return _short(100 * min(1.0, max(0.0, time_s / duration_s))) if duration_s > 0 else 0.0


def _short(value: float) -> float:
    """Three decimals are a pixel's hundredth, and keep a lesson of hours small."""
    return round(value, 3)
