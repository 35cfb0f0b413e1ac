"""A lesson as CSV: one row a person and window, safe to open in a spreadsheet."""

import csv
import io

from serving.lesson.record import LessonResult

__all__ = ["HEADER", "lesson_csv"]

HEADER = ("person", "start_s", "end_s", "status", "level", "level_index", "score", "face_share")
# what makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def lesson_csv(result: LessonResult) -> str:
    """The lesson's person-windows as CSV (RFC 4180), with a header, in order of person and time.

    score in [-1, 1]; level_index counts from 0; both are empty where a window was not scored, and so is face_share, in
    [0, 1], where nobody looked for a face. A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(HEADER)
    for person in result.people:
        for window in person.windows:
            writer.writerow(
                (
                    _text(person.person),
                    window.start_s,
                    window.end_s,
                    window.status,
                    _text(_level(result, window.level_index)),
                    _number(window.level_index),
                    _number(window.score),
                    _number(window.face_share),
                )
            )
    return out.getvalue()


def _text(value: str) -> str:
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else value


def _number(value: float | None) -> float | str:
    return "" if value is None else value


def _level(result: LessonResult, index: int | None) -> str:
    return result.model.levels[index] if index is not None and index < len(result.model.levels) else ""
