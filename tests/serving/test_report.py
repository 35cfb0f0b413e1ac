"""A lesson's report: everything of it is shown, to every reader, nothing in it runs, and the table is safe in a spreadsheet."""

import base64
import csv
import hashlib
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings

from serving.answer import Window
from serving.lesson.record import LessonResult, PersonTimeline
from serving.report import lesson_csv, lesson_page
from serving.report.charts import class_chart, clock, level_class, person_rows
from tests.serving.lessons_by_hand import lesson_of, lessons, made_up_lesson, model_info

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Elements(HTMLParser):
    """The elements with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str, css: str | None = None) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.found if name == tag and css in (None, attrs.get("class"))]


def window(place: int, status: str = "scored", score: float | None = None, level: int | None = None) -> Window:
    return Window(start_s=place * 10.0, end_s=place * 10.0 + 10, status=status, score=score, level_index=level)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lesson() -> LessonResult:
    return made_up_lesson(minutes=10, num_people=5)


def test_everything_of_the_lesson_is_on_the_page(lesson: LessonResult) -> None:
    page = Elements(lesson_page(lesson))
    assert [row["aria-label"].split(",")[0] for row in page.of("svg", "row")] == [person.person for person in lesson.people]
    moments = [attrs for tag, attrs in page.found if tag == "li" and "data-start-s" in attrs]
    assert [(attrs["class"], float(attrs["data-start-s"])) for attrs in moments] == [(m.kind, m.start_s) for m in lesson.moments]
    assert len(moments) == 4
    for said in (*lesson.model.levels, lesson.model.limits, lesson.model.notice, "camera off", "no face", "unsure", "10:00"):
        assert said in page.text
    assert "the model found 0.61 of each level on average (balanced accuracy); guessing finds 0.25" in page.text


def test_a_bar_is_as_tall_as_its_level_and_neighbours_of_one_kind_are_one() -> None:
    windows = (window(0, score=-1, level=0), window(1, score=1, level=3), window(2, score=0.9, level=3), window(3, "camera_off"))
    late = (window(2, score=0.1, level=2),)
    lesson = lesson_of(
        (PersonTimeline(person="a", tiles=(), windows=windows), PersonTimeline(person="b", tiles=(), windows=late)), duration_s=40
    )
    first, second = person_rows(lesson)
    assert [(bar.kind, bar.left, bar.width, bar.top, bar.height) for bar in first.bars] == [
        ("level-0", 0, 25, 75, 25), ("level-3", 25, 50, 0, 100), ("camera_off", 75, 25, 0, 100),
    ]  # fmt: skip
    assert first.text == "a, 4 windows: 1 very low, 2 very high, 1 camera off"
    assert [(bar.left, bar.width, bar.height) for bar in second.bars] == [(50, 25, 75)]
    assert first.mean_score == pytest.approx(0.3)


def test_a_person_who_left_and_came_back_has_two_bars() -> None:
    windows = (window(0, score=0.5, level=2), window(2, score=0.5, level=2))
    (row,) = person_rows(lesson_of((PersonTimeline(person="a", tiles=(), windows=windows),), duration_s=30))
    assert [round(bar.left) for bar in row.bars] == [0, 67]


def test_the_class_line_is_the_mean_and_stops_where_nobody_was_scored() -> None:
    windows = (window(0, score=1.0, level=3), window(1, "no_face"), window(2, score=-1.0, level=0), window(3, score=0.0, level=2))
    chart = class_chart(lesson_of((PersonTimeline(person="a", tiles=(), windows=windows),), duration_s=40))
    assert chart.lines == ("M0.0,0.0 L125.0,0.0 L250.0,0.0", "M500.0,200.0 L625.0,200.0 L875.0,100.0 L1000.0,100.0")
    assert [(gap.left, gap.width) for gap in chart.gaps] == [(25, 25)]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (59.6, "1:00"), (3599.2, "59:59"), (3600, "1:00:00"), (36061, "10:01:01")]
)
def test_times_are_said_as_on_a_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


@pytest.mark.parametrize(
    ("num_levels", "classes"), [(1, [3]), (2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 2, 3])]
)
def test_any_number_of_levels_has_the_ends_of_the_ramp(num_levels: int, classes: list[int]) -> None:
    assert [level_class(index, num_levels) for index in range(num_levels)] == [f"level-{number}" for number in classes]


@pytest.mark.parametrize("people", [(), (PersonTimeline(person="person0", tiles=(), windows=(window(0, "camera_off"),)),)])
def test_a_lesson_without_a_score_says_so(people: tuple[PersonTimeline, ...]) -> None:
    page = Elements(lesson_page(lesson_of(people, duration_s=10)))
    assert ("Nobody could be scored at any time" if people else "Nobody was found in this recording") in page.text
    assert page.of("svg", "plot") == []
    assert "Share of each level" not in page.text


@few
@given(lessons())
def test_any_lesson_makes_a_page_in_which_nothing_runs_and_nothing_is_asked_for(lesson: LessonResult) -> None:
    text = lesson_page(lesson)
    page = Elements(text)
    assert not page.of("script")
    assert not page.of("link")
    addresses = [attrs[key] for _, attrs in page.found for key in ("src", "href", "action", "data") if key in attrs]
    assert addresses == ["#report"]
    assert not [attrs for _, attrs in page.found if "style" in attrs or any(name.startswith("on") for name in attrs)]
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = (attrs["content"] for attrs in page.of("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "url(" not in re.sub(r"url\(#\w+\)", "", style)
    pictured = [attrs for tag, attrs in page.found if tag == "svg"]
    assert all("aria-hidden" in attrs or "role" in attrs for attrs in pictured if "viewbox" not in attrs)
    if lesson.model.notice:
        assert "What this model was trained on:" in page.text


def test_nothing_of_the_data_is_markup() -> None:
    model = model_info(levels=(HOSTILE, "b"), notice=HOSTILE, limits=HOSTILE, name=HOSTILE, dataset=HOSTILE, data_digest=HOSTILE)
    person = PersonTimeline(person=HOSTILE, tiles=(), windows=(window(0, score=0.5, level=0),))
    text = lesson_page(lesson_of((person,), duration_s=10, model=model, problems=(HOSTILE,)))
    assert HOSTILE not in text
    assert not Elements(text).of("img")
    assert Elements(text).of("svg", "row")[0]["aria-label"].startswith(HOSTILE)


def test_pictures_are_there_only_where_they_were_given_and_the_page_says_so(lesson: LessonResult) -> None:
    without, shown = Elements(lesson_page(lesson)), Elements(lesson_page(lesson, pictures={1: b"\xff\xd8jpeg"}))
    assert (len(without.of("img")), len(shown.of("img"))) == (0, 1)
    assert shown.of("img")[0]["src"] == "data:image/jpeg;base64,/9hqcGVn"
    assert "This file shows people" in shown.text
    assert "This file shows people" not in without.text
    assert "no picture, no sound, no name" in without.text


def test_hours_with_thirty_people_are_a_page_that_a_mail_takes() -> None:
    assert len(lesson_page(made_up_lesson(minutes=180, num_people=30))) < 8_000_000


def test_the_table_has_a_row_a_person_window(lesson: LessonResult) -> None:
    rows = list(csv.DictReader(io.StringIO(lesson_csv(lesson))))
    windows = [(person.person, window) for person in lesson.people for window in person.windows]
    assert len(rows) == len(windows) > 0
    for row, (name, own) in zip(rows, windows, strict=True):
        assert (row["person"], float(row["start_s"]), row["status"]) == (name, own.start_s, own.status)
        assert row["score"] == ("" if own.score is None else str(own.score))
        assert row["level"] == ("" if own.level_index is None else lesson.model.levels[own.level_index])


@few
@given(lessons())
def test_no_cell_of_the_table_is_a_formula_and_every_row_comes_back(lesson: LessonResult) -> None:
    rows = list(csv.reader(io.StringIO(lesson_csv(lesson), newline="")))
    assert len(rows) == 1 + sum(len(person.windows) for person in lesson.people)
    for row in rows[1:]:
        for cell in (row[0], row[4]):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
        assert row[6] == "" or -1 <= float(row[6]) <= 1
