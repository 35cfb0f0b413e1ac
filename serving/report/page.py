"""A lesson as one HTML file that asks nothing of any server and runs no script; everything of the data is escaped."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from serving.answer import ModelInfo
from serving.lesson.record import LessonResult
from serving.report.charts import STATUS_WORDS, class_chart, clock, level_class, level_share_bars, person_rows

__all__ = ["lesson_page"]

_HERE = Path(__file__).parent
_STYLES = (_HERE.parent / "page" / "levels.css", _HERE / "report.css")  # colours of levels are the page's own


def lesson_page(result: LessonResult, *, pictures: Mapping[int, bytes] | None = None) -> str:
    """The report of a lesson: the class over time, a row a person, moments, shares of levels, how sure it is, the model.

    pictures: JPEGs by the moment's number in result.moments. With them the file shows people, and is personal data;
    without, it holds numbers alone. The same arguments give the same text.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style = "\n".join(path.read_text(encoding="utf-8") for path in _STYLES)
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(clock=clock, score=_signed, percent=_percent)
    statuses: list[str] = [window.status for person in result.people for window in person.windows]
    return environment.get_template("report.jinja").render(
        result=result,
        model=result.model,
        chart=class_chart(result),
        rows=person_rows(result),
        shares=level_share_bars(result),
        levels=[(name, level_class(index, len(result.model.levels))) for index, name in enumerate(result.model.levels)],
        status_words=STATUS_WORDS,
        status_counts={status: statuses.count(status) for status in ("scored", *STATUS_WORDS)},
        num_windows=len(statuses),
        mean_score=_mean_score(result),
        figure=_figure(result.model),
        pictures={number: base64.b64encode(jpeg).decode() for number, jpeg in (pictures or {}).items()},
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704  # our own files, not data
    )


def _mean_score(result: LessonResult) -> float | None:
    """The mean over all scored person-windows, in [-1, 1]."""
    scores = [window.score for person in result.people for window in person.windows if window.score is not None]
    return sum(scores) / len(scores) if scores else None


def _figure(model: ModelInfo) -> tuple[str, float, float] | None:
    """(split, balanced accuracy, what guessing gets) of the best evidence there is: the test split's, or validation's."""
    for split, value in (("test", model.test_balanced_accuracy), ("validation", model.validation_balanced_accuracy)):
        if value is not None:
            return split, value, 1 / max(1, len(model.levels))
    return None


def _signed(value: float) -> str:
    """A score with its sign; U+2212 is the sign that screen readers say."""
    return f"{value:+.2f}".replace("-", "\u2212").replace("\u22120.00", "0.00").replace("+0.00", "0.00")


def _percent(share: float) -> str:
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
