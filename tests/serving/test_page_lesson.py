"""The lesson view in a real browser over the real jobs: upload in pieces, report, moments, export, deletion."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.confined.decode_child import DecodeChild
from serving.http.http_api import build_app
from serving.http.request_facts import EVERYBODY
from serving.jobs.runner import JobRunner
from serving.jobs.store import JobStore
from serving.lesson.watch import LessonSettings
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from tests.serving.lessons_by_hand import made_up_lesson
from tests.serving.page_server import check_accessible, looked_at, needs_chromium, open_browser, open_page, serving
from training.registry import RegisteredModel

pytestmark = needs_chromium
DESK = {"width": 1100, "height": 800}
PIECE = re.compile(r"/v1/jobs/[^/]+/recording")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> JobStore:
    return JobStore(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def address(tiny_bundle: Path, real_data: Path, store: JobStore) -> Iterator[str]:
    predictor = Predictor(RegisteredModel(name="engagement", version="1", folder=tiny_bundle))
    child = DecodeChild(predictor.recipe)
    scoring = LocalScoring(predictor, child)
    face_model = real_data / "models" / "face_landmarker.task"
    jobs = JobRunner(store, scoring, settings=LessonSettings(window_s=5), face_model=face_model)

    with serving(build_app(scoring, jobs=jobs)) as url:
        yield url
    child.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


def choose(page: Any, recording: Path) -> None:
    page.wait_for_selector("[data-ready]", state="attached")
    page.set_input_files("#lesson-file", recording)


def delete(page: Any, store: JobStore) -> None:
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#lesson-delete").press("Enter")
    page.wait_for_function("() => document.getElementById('lesson-status').textContent.startsWith('Deleted.')")
    assert store.all(EVERYBODY) == []
    assert [path for path in store.folder.rglob("*") if path.is_file()] == []


def test_a_recording_becomes_a_report_that_can_be_exported_and_deleted(
    browser: Any, address: str, store: JobStore, lesson: Path
) -> None:
    with open_page(browser, f"{address}/#lesson", viewport=DESK) as page:
        choose(page, lesson)
        page.wait_for_selector("#lesson-report:visible", timeout=60_000)
        people = page.locator("#lesson-report .people .row")
        assert people.count() == 5
        assert "camera off" in " ".join(row.get_attribute("aria-label") for row in people.all())
        assert page.locator("#lesson-report .class-chart .mean").count() > 0
        assert page.locator("#lesson-report .notice").count() == 0  # the page says it already

        with page.expect_download() as table:
            page.get_by_role("button", name="Download CSV").press("Enter")
        rows = list(csv.DictReader(io.StringIO(Path(table.value.path()).read_text())))
        assert {row["person"] for row in rows} == {f"person{number}" for number in range(5)}
        with page.expect_download() as report:
            page.get_by_role("button", name="Download report").press("Enter")
        whole = Path(report.value.path()).read_text()
        assert "<script" not in whole
        assert "<img" not in whole
        check_accessible(page)
        looked_at(page, "lesson")
        page.set_viewport_size({"width": 360, "height": 740})
        check_accessible(page)
        looked_at(page, "phone-lesson-report")
        delete(page, store)
        assert page.locator("#lesson-report").is_hidden()


def test_an_upload_goes_on_where_the_connection_was_lost(browser: Any, address: str, store: JobStore, lesson: Path) -> None:
    offsets: list[int] = []

    def lose_some(route: Any) -> None:
        offsets.append(int(route.request.headers["upload-offset"]))
        if len(offsets) == 2:
            route.abort("connectionreset")
        elif len(offsets) == 3:
            route.fulfill(status=503, json={"error": "busy"}, headers={"Retry-After": "1"})
        else:
            route.continue_()

    # pieces are of a size that this small recording is in several
    small = lesson.stat().st_size // 3
    with open_page(browser, f"{address}/#lesson", allow=lambda said: "ERR_" in said or "503" in said) as page:
        page.route("**/page/upload.js", lambda route: route.fulfill(
            content_type="text/javascript",
            body=re.sub(r"FIRST_BYTES = .*?;", f"FIRST_BYTES = {small};", route.fetch().text()),
        ))  # fmt: skip
        page.reload()
        page.route(PIECE, lose_some)
        choose(page, lesson)
        page.wait_for_function("() => document.getElementById('lesson-status').textContent.includes('The connection was lost')")
        page.wait_for_function("() => /Reading|waits/.test(document.getElementById('lesson-status').textContent)")
        assert offsets[:4] == [0, small, small, small]
        assert [job.size_bytes for job in store.all(EVERYBODY)] == [lesson.stat().st_size]
        delete(page, store)


def test_a_lesson_is_found_again_and_its_moments_are_shown_from_the_teachers_own_file(
    browser: Any, address: str, store: JobStore, lesson: Path
) -> None:
    given = made_up_lesson(minutes=1, num_people=5)  # the tiny model finds nobody's level to change, so no moments
    store.end(store.create(EVERYBODY, lesson.stat().st_size), result=given)
    with open_page(browser, f"{address}/#lesson", viewport=DESK) as page:
        page.get_by_role("button", name=re.compile("Open the lesson of")).press("Enter")
        page.wait_for_selector("#lesson-report:visible")
        moments = page.locator("#lesson-report .moments li")
        assert moments.count() == len(given.moments) == 4
        assert moments.locator("canvas").count() == 0  # the service has no pictures to give
        page.wait_for_selector("#lesson-again:visible")
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url) if request.method != "GET" else None)
        page.set_input_files("#lesson-again", lesson)
        moments.nth(3).locator("canvas").wait_for()
        assert moments.locator("canvas").count() == 4
        low = next(moment for moment in given.moments if moment.kind == "low")
        page.locator("#lesson-report .moments li.low button").first.press("Enter")
        page.wait_for_function("at => Math.abs(document.getElementById('lesson-video').currentTime - at) < 0.5", arg=low.start_s)
        assert page.evaluate("document.activeElement.id") == "lesson-video"
        assert sent == []  # the file stays in the browser
        check_accessible(page)
        looked_at(page, "lesson-moments")
        delete(page, store)


def test_what_is_no_recording_gets_the_services_own_sentence(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/#lesson", allow=lambda said: "422" in said) as page:
        page.wait_for_selector("[data-ready]", state="attached")
        page.set_input_files("#lesson-file", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": b"not a video" * 50})
        page.wait_for_selector("#lesson-status.failed")
        assert "not a video container" in page.locator("#lesson-status").inner_text()
        check_accessible(page)
