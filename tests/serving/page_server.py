"""The real app behind uvicorn on loopback, and Chromium before it. Fixtures of the tests of the page."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from tests.conftest import ROOT
from tests.serving.loopback import served

__all__ = [
    "CHROMIUM",
    "check_accessible",
    "looked_at",
    "needs_chromium",
    "open_browser",
    "open_page",
    "serving",
    "write_fake_camera",
]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not here")
SCREENSHOTS = Path(os.environ.get("RAPT_SCREENSHOTS", ROOT / "build" / "screenshots"))


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The app's address, until the block ends."""
    with served(app) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def open_browser(*flags: str) -> Iterator[Any]:
    """Chromium without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Any, address: str, *, allow: Callable[[str], bool] = lambda said: False, **settings: Any) -> Iterator[Any]:
    """The page, ready; at the end nothing was said on its console (but what is allowed), and nobody else was asked."""
    context = browser.new_context(**settings)
    page = context.new_page()
    page.set_default_timeout(60_000)  # a machine may be busy
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    try:
        yield page
        base = address.split("#")[0].rstrip("/")
        unforeseen = [text for text in said if not allow(text)]
        elsewhere = [url for url in asked if not url.startswith((base, "data:", "blob:"))]
        assert not unforeseen + elsewhere, unforeseen + elsewhere
    finally:
        context.close()


def looked_at(page: Any, name: str, *, covered: tuple[str, ...] = ()) -> None:
    """Keep a screenshot as a build artefact; covered: what shows real people, and is not kept."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True, mask=[page.locator(name) for name in covered])


def write_fake_camera(clip: Path, out: Path, *, num_frames: int, size: tuple[int, int] = (320, 240)) -> Path:
    """A clip's first frames as the raw film (YUV4MPEG2) that Chromium plays as a camera, round and round; it is large."""
    import av

    with av.open(str(clip)) as container, out.open("wb") as film:
        film.write(b"YUV4MPEG2 W%d H%d F30:1 Ip A1:1 C420\n" % size)
        for _, frame in zip(range(num_frames), container.decode(video=0), strict=False):
            film.write(b"FRAME\n" + frame.reformat(*size, format="yuv420p").to_ndarray().tobytes())
    return out


def check_accessible(page: Any) -> None:
    """No violation that axe finds, in light and in dark, and no sideways scrolling."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        violations = axe.Axe().run(page).response["violations"]
        assert not violations, [(scheme, v["id"], [node["html"] for node in v["nodes"]]) for v in violations]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
