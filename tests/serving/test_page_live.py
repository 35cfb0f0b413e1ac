"""The live view before the browser's fake camera, which plays a real clip, over the real app."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from serving.confined.decode_child import DecodeChild
from serving.http.http_api import build_app
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from tests.serving.page_server import (
    check_accessible,
    looked_at,
    needs_chromium,
    open_browser,
    open_page,
    serving,
    write_fake_camera,
)
from training.registry import RegisteredModel

pytestmark = needs_chromium
WINDOW_S = 2  # shorter than a person would choose: the test waits for three of them


@pytest.fixture(scope="module")
def address(tiny_bundle: Path) -> Iterator[str]:
    predictor = Predictor(RegisteredModel(name="engagement", version="1", folder=tiny_bundle))
    child = DecodeChild(predictor.recipe)
    child.start()
    with serving(build_app(LocalScoring(predictor, child))) as url:
        yield url
    child.close()


@pytest.fixture(scope="module")
def browser(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    film = tmp_path_factory.mktemp("camera") / "camera.y4m"
    write_fake_camera(real_data / "videos" / "5100462069.avi", film, num_frames=60)
    with open_browser(
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}", "--use-fake-ui-for-media-stream"
    ) as browser:
        yield browser


def start(page: Any) -> None:
    page.wait_for_selector("[data-ready]", state="attached")
    page.evaluate("seconds => { document.getElementById('live-window').options[0].value = seconds; }", WINDOW_S)
    page.select_option("#live-window", index=0)
    page.locator("#live-start").press("Enter")


def test_windows_of_the_camera_are_scored_one_after_the_other_with_nothing_between(browser: Any, address: str) -> None:
    answers: list[dict[str, Any]] = []
    with open_page(browser, f"{address}/#live", viewport={"width": 1100, "height": 800}) as page:
        page.on("response", lambda reply: answers.append(reply.json()) if reply.url.endswith("/v1/score") and reply.ok else None)
        assert page.locator("#live-video").is_hidden()
        start(page)
        page.wait_for_selector("#live-level:visible")
        assert page.locator("#live-level").inner_text() in ("very low", "low", "high", "very high")
        page.wait_for_function("() => document.querySelectorAll('#live-timeline .row rect').length >= 3")
        bars = page.locator("#live-timeline .row rect").all()
        places = [[float(bar.get_attribute(name).rstrip("%")) for name in ("x", "width")] for bar in bars]
        assert all(after[0] - (before[0] + before[1]) < 5 for before, after in pairwise(places))
        check_accessible(page)
        looked_at(page, "live", covered=("#live-video",))
        page.locator("#live-stop").press("Enter")
        assert page.locator("#live-status").inner_text() == "Stopped. The camera is off."
        assert page.evaluate("document.getElementById('live-video').srcObject") is None
    assert len(answers) >= 3
    # each window is a whole file of its own, as long as it was recorded: on a busy machine the camera may pause
    assert max(answer["duration_s"] for answer in answers) == pytest.approx(WINDOW_S, rel=0.4)


def test_nothing_is_sent_before_start_or_after_another_view_was_opened(browser: Any, address: str) -> None:
    sent: list[str] = []
    with open_page(browser, f"{address}/#live", allow=lambda said: "404" in said) as page:
        page.on("request", lambda request: sent.append(request.url) if "/v1/score" in request.url else None)
        page.wait_for_selector("[data-ready]", state="attached")
        page.wait_for_timeout(500)
        assert sent == []
        start(page)
        page.wait_for_selector("#live-video:visible")
        page.click("nav a[href='#clip']")
        page.wait_for_selector("#view-clip:visible")
        before = len(sent)
        page.wait_for_timeout(1000 * WINDOW_S + 500)
        assert len(sent) == before
        page.click("nav a[href='#live']")
        assert "The camera is off" in page.locator("#live-status").inner_text()


def test_where_the_service_is_slower_windows_are_skipped_and_said(browser: Any, address: str) -> None:
    held: list[Any] = []
    with open_page(browser, f"{address}/#live") as page:
        page.route("**/v1/score", lambda route: held.append(route) if not held else route.continue_())
        start(page)
        # one is under way; of the next three one waits, and the two before it are skipped
        page.wait_for_timeout(1000 * WINDOW_S * 4 + 1000)
        assert len(held) == 1
        held[0].continue_()
        page.wait_for_function("() => /[1-9] skipped/.test(document.getElementById('live-details').textContent)")
        page.click("#live-stop")


def test_a_busy_service_is_said_and_asked_again(browser: Any, address: str) -> None:
    refused: list[str] = []

    def refuse(route: Any) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        route.fulfill(status=503, json={"error": "8 clips are waiting already"}, headers={"Retry-After": "1"})

    with open_page(browser, f"{address}/#live", allow=lambda said: "503" in said) as page:
        page.route("**/v1/score", refuse)
        start(page)
        page.wait_for_selector("#live-status.failed")
        assert page.locator("#live-status").inner_text() == "8 clips are waiting already; asking again in 1 s."
        page.wait_for_selector("#live-level:visible")
        page.click("#live-stop")


def test_a_camera_that_is_given_after_another_view_was_opened_is_turned_off(browser: Any, address: str) -> None:
    sent: list[str] = []
    with open_page(browser, f"{address}/#live", allow=lambda said: "404" in said) as page:
        page.on("request", lambda request: sent.append(request.url) if "/v1/score" in request.url else None)
        page.wait_for_selector("[data-ready]", state="attached")
        page.evaluate(
            """() => {
                const devices = navigator.mediaDevices;
                const real = devices.getUserMedia.bind(devices);
                devices.getUserMedia = async (wanted) => {
                    await new Promise((resolve) => { window.allow = resolve; });
                    window.given = await real(wanted);
                    return window.given;
                };
            }"""
        )
        start(page)
        page.click("nav a[href='#clip']")
        page.wait_for_selector("#view-clip:visible")
        page.evaluate("window.allow()")
        page.wait_for_function("() => window.given?.getTracks().every((track) => track.readyState === 'ended')")
        page.click("nav a[href='#live']")
        assert page.locator("#live-status").inner_text() == "Another view was opened. The camera is off."
        assert page.locator("#live-start").is_enabled()
        assert sent == []


def test_a_window_without_a_picture_is_not_sent_but_said(browser: Any, address: str) -> None:
    sent: list[str] = []
    with open_page(browser, f"{address}/#live") as page:
        page.on("request", lambda request: sent.append(request.url) if "/v1/score" in request.url else None)
        page.wait_for_selector("[data-ready]", state="attached")
        page.evaluate(  # a camera that is on and gives nothing
            "() => { navigator.mediaDevices.getUserMedia = async () => document.createElement('canvas').captureStream(0); }"
        )
        start(page)
        page.wait_for_selector("#live-status.failed")
        assert page.locator("#live-status").inner_text().startswith(f"The camera gave no picture for {WINDOW_S} s")
        page.click("#live-stop")
        assert sent == []


def test_a_key_that_may_not_score_ends_the_session(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/#live", allow=lambda said: "403" in said) as page:
        page.route("**/v1/score", lambda route: route.fulfill(status=403, json={"error": "this key may not score clips"}))
        start(page)
        page.wait_for_function("() => document.getElementById('live-status').textContent.startsWith('Stopped')")
        assert page.locator("#live-status").inner_text() == "Stopped: this key may not score clips. The camera is off."
        assert page.evaluate("document.getElementById('live-video').srcObject") is None
