"""The page in a real browser, over the real app: a clip, the webcam, keyboard alone, every scheme and a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.access.keys import create_key, utc_now
from serving.confined.decode_child import DecodeChild
from serving.http.http_api import build_app
from serving.http.settings import AppSettings
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from tests.serving.page_server import check_accessible, looked_at, needs_chromium, open_browser, open_page, serving
from training.registry import RegisteredModel

pytestmark = needs_chromium
DESK = {"width": 1100, "height": 800}
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}


@pytest.fixture(scope="module")
def scoring(tiny_bundle: Path) -> Iterator[LocalScoring]:
    predictor = Predictor(RegisteredModel(name="engagement", version="1", folder=tiny_bundle))
    child = DecodeChild(predictor.recipe)
    child.start()
    yield LocalScoring(predictor, child)
    child.close()


@pytest.fixture(scope="module")
def address(scoring: LocalScoring) -> Iterator[str]:
    with serving(build_app(scoring)) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def clip(simulated_folder: Path) -> Path:
    return sorted((simulated_folder / "clips").iterdir())[0]


def test_the_daisee_clip_gets_its_level_and_what_it_rests_on(browser: Any, address: str, real_data: Path) -> None:
    with open_page(browser, address) as page:
        page.set_input_files("#clip-file", real_data / "videos" / "5100462069.avi")
        page.wait_for_selector("#clip-answer:visible")
        assert page.locator("#clip-level").inner_text() in ("very low", "low", "high", "very high")
        assert "on a scale from −1 to 1" in page.locator("#clip-scale figcaption").inner_text()
        shares = [float(text.removesuffix(" %")) for text in page.locator("#clip-chances td:last-child").all_inner_texts()]
        assert sum(shares) == pytest.approx(100, abs=2)
        assert "6 frames of 10.0 s" in page.locator("#clip-details").inner_text()
        page.wait_for_selector("#clip-unplayable:visible")  # XVID, which Chromium does not play
        assert page.locator("#clip-video").is_hidden()


def test_a_drawn_person_is_shown_beside_the_answer_and_the_model_says_what_it_is(browser: Any, address: str, clip: Path) -> None:
    with open_page(browser, address, viewport=DESK) as page:
        page.set_input_files("#clip-file", clip)
        page.wait_for_selector("#clip-answer:visible")
        page.wait_for_selector("#clip-video:visible")
        assert "simulated clips of drawn people" in page.locator("#notice").inner_text()
        assert "No emotion is inferred" in page.locator("#limits").inner_text()
        check_accessible(page)
        looked_at(page, "clip")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"not a video at all", "not a video container"), (b"\x00\x00\x00\x20ftypisom" + b"\x00" * 500, "damaged")],
)
def test_what_is_no_clip_gets_the_services_own_sentence(browser: Any, address: str, content: bytes, reason: str) -> None:
    with open_page(browser, address, allow=lambda said: "422" in said) as page:
        page.set_input_files("#clip-file", {"name": "x.mp4", "mimeType": "video/mp4", "buffer": content})
        page.wait_for_selector("#clip-status.failed")
        assert reason in page.locator("#clip-status").inner_text()
        assert page.locator("#clip-answer").is_hidden()
        check_accessible(page)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": "no_face", "duration_s": 10}, "Nobody's face is in view"),
        ({"status": "camera_off", "duration_s": 10}, "The camera is off"),
        ({"status": "too_short", "duration_s": 0.4, "min_duration_s": 2}, "Too short: 0.4 s. At least 2 s"),
    ],
)
def test_every_answer_without_a_score_is_said_in_words(
    browser: Any, address: str, clip: Path, answer: dict[str, object], words: str
) -> None:
    with open_page(browser, address) as page:
        page.route("**/v1/score", lambda route: route.fulfill(json=answer))
        page.set_input_files("#clip-file", clip)
        page.wait_for_function("words => document.getElementById('clip-status').textContent.includes(words)", arg=words)
        assert page.locator("#clip-level").is_hidden()
        assert page.locator("#clip-answer").is_hidden()


def test_an_unsure_answer_shows_its_interval_and_a_long_one_its_windows(browser: Any, address: str, clip: Path) -> None:
    levels = ["very low", "low", "high", "very high"]
    windows = [
        {"start_s": 0, "end_s": 10, "status": "scored", "score": -0.6, "level_index": 0, "face_share": None},
        {"start_s": 10, "end_s": 20, "status": "unsure", "score": None, "level_index": None, "face_share": None},
        {"start_s": 20, "end_s": 30, "status": "scored", "score": 0.9, "level_index": 3, "face_share": None},
    ]
    answer = {
        "status": "unsure", "duration_s": 30, "timeline": windows, "probabilities": dict.fromkeys(levels, 0.25),
        "interval": {"low": -0.8, "high": 0.9, "levels": levels, "coverage": 0.9},
    }  # fmt: skip
    with open_page(browser, address, viewport=DESK) as page:
        page.route("**/v1/score", lambda route: route.fulfill(json=answer))
        page.set_input_files("#clip-file", clip)
        page.wait_for_selector("#clip-windows:visible")
        assert page.locator("#clip-level").inner_text() == "unsure"
        caption = page.locator("#clip-scale figcaption").inner_text()
        assert caption.startswith(
            "The band, −0.80 to +0.90 (very low, low, high, very high), holds the observers' level for 90 %"
        )
        assert page.locator("#clip-scale .marker").count() == 0  # no score, so that none is read off it
        row = page.locator("#clip-timeline .row")
        assert row.get_attribute("aria-label") == "3 windows: 1 very low, 1 unsure, 1 very high"
        assert [bar.get_attribute("height") for bar in row.locator("rect").all()] == ["25%", "100%", "100%"]
        check_accessible(page)
        looked_at(page, "clip-windows")


def test_windows_are_gone_through_by_keyboard_and_each_is_said(browser: Any, address: str, clip: Path) -> None:
    levels = ["very low", "low", "high", "very high"]
    windows = [
        {"start_s": 0, "end_s": 4, "status": "scored", "score": -0.6, "level_index": 0, "face_share": None},
        {"start_s": 4, "end_s": 8, "status": "camera_off", "score": None, "level_index": None, "face_share": None},
        {"start_s": 8, "end_s": 10, "status": "scored", "score": 0.9, "level_index": 3, "face_share": None},
    ]
    said = ["0:00 to 0:04: very low, score −0.60", "0:04 to 0:08: camera off", "0:08 to 0:10: very high, score +0.90"]
    answer = {
        "status": "scored", "duration_s": 10, "level": "low", "score": -0.1, "timeline": windows,
        "probabilities": dict.fromkeys(levels, 0.25),
    }  # fmt: skip
    with open_page(browser, address, viewport=DESK) as page:
        page.route("**/v1/score", lambda route: route.fulfill(json=answer))
        page.set_input_files("#clip-file", clip)
        page.wait_for_selector("#clip-windows:visible")
        page.wait_for_selector("#clip-video:visible")
        assert [button.get_attribute("aria-label") for button in page.locator("#clip-timeline button").all()] == said
        page.locator("#clip-video").focus()
        inside = "document.activeElement.closest('#clip-timeline') !== null"
        for _ in range(20):  # the video's own controls come first
            if page.evaluate(inside):
                break
            page.keyboard.press("Tab")
        here = "document.activeElement.getAttribute('aria-label')"
        assert page.evaluate(here) == said[0]
        page.keyboard.press("ArrowRight")
        assert page.evaluate(here) == said[1] == page.locator("#clip-timeline .chosen").inner_text()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        page.wait_for_function("() => Math.abs(document.getElementById('clip-video').currentTime - 4) < 0.5")
        assert page.locator("#look-at").input_value() == "6"  # the middle of that window
        page.keyboard.press("End")
        assert page.evaluate(here) == said[2]
        page.keyboard.press("Tab")
        assert not page.evaluate(inside)  # one stop for all of them
        check_accessible(page)


def test_where_the_model_looked_is_drawn_over_the_frame(browser: Any, address: str, clip: Path) -> None:
    grid = [[0.0] * 4 for _ in range(4)]
    grid[0][3] = 1.0
    region = {"left": 0.125, "top": 0.0, "width": 0.75, "height": 1.0}
    asked: list[str] = []

    def explain(route: Any) -> None:
        asked.append(route.request.url)
        route.fulfill(json={"at_s": 2.0, "level": "low", "level_index": 1, "grid": grid, "region": region})

    # reading pixels back is what this test does, and what Chromium remarks on
    with open_page(browser, address, allow=lambda said: "willReadFrequently" in said, viewport=DESK) as page:
        page.route("**/v1/explain*", explain)
        page.set_input_files("#clip-file", clip)
        page.wait_for_selector("#clip-video:visible")
        page.wait_for_selector("#look:visible")
        page.fill("#look-at", "2")
        page.get_by_role("button", name="Show this moment").press("Enter")
        page.wait_for_selector("#look-canvas:visible")
        said = page.locator("#look-canvas").get_attribute("aria-label")
        assert said == "At 2.0 s the level 'low' rests most on the upper right of the picture."
        bright, dim = page.evaluate(
            """() => { const c = document.getElementById('look-canvas'), pen = c.getContext('2d');
            const at = (x, y) => pen.getImageData(x * c.width, y * c.height, 1, 1).data.slice(0, 3).reduce((a, b) => a + b);
            return [at(0.86, 0.05), at(0.14, 0.05)]; }"""
        )
        assert bright > 2 * dim
        looked_at(page, "look")
    assert [url.split("?")[1] for url in asked] == ["at_s=2"]


def test_the_model_itself_says_where_it_looked(browser: Any, address: str, clip: Path) -> None:
    with open_page(browser, address, viewport=DESK) as page:
        page.set_input_files("#clip-file", clip)
        page.wait_for_selector("#look:visible")
        page.fill("#look-at", "2")
        with page.expect_response("**/v1/explain*") as told:
            page.get_by_role("button", name="Show this moment").press("Enter")
        page.wait_for_selector("#look-canvas:visible")
        explanation = told.value.json()
        assert abs(explanation["at_s"] - 2.0) < 1.0
        assert 0 <= min(map(min, explanation["grid"])) <= max(map(max, explanation["grid"])) <= 1
        assert f"the level '{explanation['level']}'" in page.locator("#look-canvas").get_attribute("aria-label")


def test_a_moment_that_cannot_be_explained_is_said_and_another_can_be_asked_for(browser: Any, address: str, clip: Path) -> None:
    with open_page(browser, address, allow=lambda said: "422" in said) as page:
        page.route("**/v1/explain*", lambda route: route.fulfill(status=422, json={"error": "damaged at that moment"}))
        page.set_input_files("#clip-file", clip)
        page.wait_for_selector("#look:visible")
        page.click("#look-show")
        page.wait_for_function("() => document.getElementById('look-status').textContent === 'damaged at that moment'")
        assert page.locator("#look-show").is_enabled()
        page.unroute("**/v1/explain*")
        page.click("#look-show")
        page.wait_for_selector("#look-canvas:visible")


def test_a_model_without_frames_is_not_asked_where_it_looked(browser: Any, address: str, clip: Path) -> None:
    levels = ["low", "high"]
    answer = {
        "status": "scored", "duration_s": 10, "level": "low", "score": -0.1, "probabilities": dict.fromkeys(levels, 0.5),
        "model": {"levels": levels, "reads": ["openface"]},
    }  # fmt: skip
    with open_page(browser, address) as page:
        page.route("**/v1/score", lambda route: route.fulfill(json=answer))
        page.set_input_files("#clip-file", clip)
        page.wait_for_selector("#clip-answer:visible")
        assert page.locator("#look").is_hidden()


def test_a_service_that_cannot_say_where_is_not_asked_again(browser: Any, address: str, clip: Path) -> None:
    with open_page(browser, address, allow=lambda said: "404" in said) as page:
        page.route("**/v1/explain*", lambda route: route.fulfill(status=404, json={"error": "nothing is at this address"}))
        page.set_input_files("#clip-file", clip)
        page.wait_for_selector("#look:visible")
        page.click("#look-show")
        page.wait_for_selector("#look", state="hidden")
        page.set_input_files("#clip-file", clip)
        page.wait_for_selector("#clip-answer:visible")
        assert page.locator("#look").is_hidden()


def test_keyboard_alone_goes_through_the_views_and_a_reader_hears_where_it_is(browser: Any, address: str) -> None:
    with open_page(browser, address, allow=lambda said: "404" in said) as page:
        page.wait_for_selector("[data-ready]", state="attached")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        for view, title in (("clip", "A clip"), ("live", "Your webcam, live"), ("lesson", "A lesson")):
            page.locator(f"nav a[href='#{view}']").focus()
            page.keyboard.press("Enter")
            page.wait_for_selector(f"#view-{view}:visible")
            if view != "clip":
                page.wait_for_function("title => document.activeElement.textContent === title", arg=title)
            assert page.locator("nav a[aria-current=page]").get_attribute("href") == f"#{view}"
            assert page.locator(".view:visible").count() == 1
        page.locator("nav a[href='#clip']").press("Enter")
        page.wait_for_function("() => document.activeElement.id === 'clip-title'")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "clip-file"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"  # where the focus is can be seen


@pytest.mark.parametrize("view", ["clip", "live", "lesson"])
def test_every_view_is_accessible_and_fits_a_phone(browser: Any, address: str, view: str) -> None:
    with open_page(browser, f"{address}/#{view}", allow=lambda said: "404" in said, **PHONE) as page:
        page.wait_for_selector("[data-ready]", state="attached")
        check_accessible(page)
        looked_at(page, f"phone-{view}")


def test_a_camera_that_is_not_there_or_not_allowed_is_said(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/#live") as page:
        page.wait_for_selector("[data-ready]", state="attached")
        page.click("#live-start")
        page.wait_for_selector("#live-status.failed")
        assert page.locator("#live-status").inner_text().startswith(("The camera was not allowed.", "No camera was found."))
        assert page.locator("#live-start").is_enabled()


def test_a_service_with_keys_asks_for_one_and_keeps_it_only_if_told(
    browser: Any, scoring: LocalScoring, clip: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    _, key = create_key(keys, "teacher", now=utc_now())
    with serving(build_app(scoring, AppSettings(keys_file=keys))) as url:
        with open_page(browser, url, allow=lambda said: "401" in said) as page:
            page.wait_for_selector("#key-dialog[open]")
            check_accessible(page)
            looked_at(page, "key")
            page.keyboard.type("rapt_000000000000_wrong")
            page.keyboard.press("Enter")
            page.wait_for_function("() => document.getElementById('key-why').textContent.includes('not known')")
            page.fill("#key", key)
            page.keyboard.press("Enter")
            page.wait_for_selector("[data-ready]", state="attached")
            page.set_input_files("#clip-file", clip)
            page.wait_for_selector("#clip-answer:visible")
            assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]
            page.reload()
            page.wait_for_selector("#key-dialog[open]")
            page.fill("#key", key)
            page.check("#key-keep")
            page.click("#key-form button[type=submit]")
            page.wait_for_selector("[data-ready]", state="attached")
            page.reload()
            page.wait_for_selector("[data-ready]", state="attached")
            assert page.locator("#key-dialog[open]").count() == 0
        with open_page(browser, url, allow=lambda said: "401" in said) as page:
            page.wait_for_selector("#key-dialog[open]")
            page.keyboard.press("Escape")
            page.wait_for_function("() => document.getElementById('model').textContent.includes('an API key is needed')")


def test_every_file_of_the_page_is_served_and_asks_for_no_other(scoring: LocalScoring) -> None:
    folder = Path(__file__).parent.parent.parent / "serving" / "page"
    with TestClient(build_app(scoring)) as client:
        for path in folder.iterdir():
            text = client.get("/" if path.name == "index.html" else f"/page/{path.name}").text
            assert text == path.read_text()
            assert "https://" not in text
            assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
            assert " style=" not in text
