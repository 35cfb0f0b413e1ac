"""The contact sheet: complete, the same every time, bounded, and nothing of the data runs in it."""

import base64
import hashlib
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cluster.command_line import rapt
from data_shards.browse import page, write_contact_sheet
from data_shards.browse.page import Card, Picture, render_page
from data_shards.browse.pick import pick_clips
from data_shards.browse.pictures import frame_strip, heat_map
from data_shards.building.build import build_shards
from data_shards.errors import ConfigError
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing, Reject
from data_shards.manifest import Manifest
from data_shards.preprocess import PreprocessConfig
from data_shards.reading.reader import ShardSet

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """The page's elements with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data.strip())

    def of(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key.rstrip("_")) == value for key, value in wanted.items())
        ]


@pytest.fixture(scope="module")
def sheet(simulated_shards: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("browse") / "sheet.html"
    write_contact_sheet(simulated_shards[0], out)
    return out


@pytest.fixture
def hostile_page(simulated_shards: tuple[Path, Manifest]) -> str:
    """A page of a set in which every text is an attack."""
    folder, manifest = simulated_shards
    shards = ShardSet(folder, splits=("train",))
    meta = shards.read(0).meta.model_copy(
        update={"clip_id": HOSTILE, "subject": HOSTILE, "session": HOSTILE, "split": HOSTILE, "labels": {"engagement": 1}}
    )
    evil = manifest.model_copy(
        update={
            "dataset": HOSTILE,
            "notice": HOSTILE,
            "label_names": {HOSTILE: (HOSTILE, "b")},
            "splits": {
                HOSTILE: manifest.splits["train"].model_copy(update={"label_histogram": {HOSTILE: (1, 2)}}),
            },
        }
    )
    picture = Picture("data:image/png;base64,AAAA", 1, 1, HOSTILE)
    card = Card(meta=meta, level=1, levels=((HOSTILE, 1, HOSTILE),), pictures=(picture,))
    reject = Reject(clip_id=HOSTILE, source=HOSTILE, reason=HOSTILE)
    return render_page(evil, label=HOSTILE, cards=[card], rejects=[reject])


def test_every_clip_is_shown_with_what_is_known_of_it(sheet: Path, simulated_shards: tuple[Path, Manifest]) -> None:
    folder, manifest = simulated_shards
    shards = ShardSet(folder, splits=tuple(manifest.splits))
    found = Page(sheet.read_text())
    cards = found.of("li", class_="card")
    metas = [shards.read(number).meta for number in range(len(shards))]
    assert [(c["data-split"], c["data-subject"], c["data-level"]) for c in cards] == [
        (meta.split, meta.subject, str(meta.labels["engagement"])) for meta in metas
    ]
    images = found.of("img")
    assert len(images) == len(metas)
    assert all(meta.clip_id in image["alt"] for meta, image in zip(metas, images, strict=True))
    with Image.open(io.BytesIO(base64.b64decode(images[0]["src"].removeprefix("data:image/jpeg;base64,")))) as strip:
        assert strip.size == (int(images[0]["width"]), int(images[0]["height"]))
    text = sheet.read_text()
    assert manifest.digest in text
    assert manifest.notice in text
    assert "very high" in text


def test_the_page_asks_nothing_of_anybody(sheet: Path) -> None:
    found = Page(sheet.read_text())
    addresses = [a[key] for _, a in found.elements for key in ("src", "href", "action", "data", "poster") if key in a]
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not found.of("link")
    (policy,) = (a["content"] for a in found.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", sheet.read_text(), flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not [a for _, a in found.elements if "style" in a or any(name.startswith("on") for name in a)]


def test_a_person_with_a_screen_reader_is_told_the_same(sheet: Path) -> None:
    found = Page(sheet.read_text())
    assert all(image["alt"] for image in found.of("img"))
    charts = found.of("svg")
    assert len(charts) == 3
    assert all("very low" in chart["aria-label"] for chart in charts)
    assert found.of("html", lang="en")


def test_nothing_of_the_data_is_markup(hostile_page: str) -> None:
    found = Page(hostile_page)
    assert len(found.of("script")) == 1
    assert "alert" not in "".join(found.texts["script"])
    assert [image["src"][:5] for image in found.of("img")] == ["data:"]
    assert found.of("img")[0]["alt"] == HOSTILE
    assert found.of("li", class_="card")[0]["data-subject"] == HOSTILE
    assert not [a for _, a in found.elements if any(name.startswith("on") for name in a)]
    assert HOSTILE not in hostile_page


def test_rejects_are_grouped_and_named(simulated_shards: tuple[Path, Manifest], tmp_path: Path) -> None:
    shutil.copytree(simulated_shards[0], tmp_path / "shards")
    rejects = [
        Reject(clip_id=f"{n}.mp4", source="x", reason=f"{n}.mp4: damaged, cannot be decoded (at {n}); re-encode it")
        for n in range(70)
    ]
    rejects.append(Reject(clip_id="e.mp4", source="e.mp4", reason="e.mp4: empty file"))
    (tmp_path / "shards" / "rejects.jsonl").write_bytes(b"".join(reject.to_bytes() for reject in rejects))
    write_contact_sheet(tmp_path / "shards", tmp_path / "out.html", num_clips=2)
    text = (tmp_path / "out.html").read_text()
    assert re.findall(r"<summary><b>([\d,]+)</b> ([^<]+)</summary>", text) == [
        ("70", "damaged, cannot be decoded"),
        ("1", "empty file"),
    ]
    assert "and 20 more, all in rejects.jsonl" in text


def test_the_same_set_gives_the_same_page(sheet: Path, simulated_shards: tuple[Path, Manifest], tmp_path: Path) -> None:
    write_contact_sheet(simulated_shards[0], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == sheet.read_bytes()


def test_few_clips_are_spread_over_splits_levels_and_people(simulated_shards: tuple[Path, Manifest]) -> None:
    folder, manifest = simulated_shards
    splits = tuple(manifest.splits)
    shards = ShardSet(folder, splits=splits)
    subjects = [shards.read(number).meta.subject for number in range(len(shards))]
    numbers = pick_clips(manifest, splits=splits, label="engagement", level=None, num_clips=12, subjects=subjects)
    metas = [shards.read(number).meta for number in numbers]
    assert len({(meta.split, meta.labels["engagement"]) for meta in metas}) == 12
    train = ShardSet(folder, splits=("train",))
    own = [train.read(number).meta.subject for number in range(len(train))]
    two = pick_clips(manifest, splits=("train",), label="engagement", level=2, num_clips=3, subjects=own)
    assert {train.read(number).meta.labels["engagement"] for number in two} == {2}
    assert len({train.read(number).meta.subject for number in two}) == 3


def test_the_size_of_a_page_is_bounded(
    simulated_shards: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_MAX_PICTURE_BYTES", 30_000)
    sheet = write_contact_sheet(simulated_shards[0], tmp_path / "small.html")
    assert 0 < sheet.num_shown < sheet.num_clips == 64
    assert sheet.size_bytes == (tmp_path / "small.html").stat().st_size < 60_000
    assert len({card["data-split"] for card in Page((tmp_path / "small.html").read_text()).of("li", class_="card")}) == 3


def test_an_array_is_drawn_with_time_to_the_right() -> None:
    ramp_TF = np.stack([np.arange(10.0), np.zeros(10), np.full(10, np.nan)], axis=1)
    uri, width_px, height_px = heat_map(ramp_TF)
    with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))) as picture:
        pixels = np.asarray(picture).astype(int)
    assert (width_px, height_px) == (10, 3)
    assert (np.diff(pixels[0].sum(axis=-1)) > 0).all()
    assert len(np.unique(pixels[1], axis=0)) == 1
    assert (pixels[2] == 160).all()  # what is not a number is grey, and no colour of the scale
    assert heat_map(np.zeros((500, 714)))[1:] == (96, 48)
    assert heat_map(np.arange(5.0))[1:] == (5, 1)
    assert heat_map(np.array([np.inf, 0.0, -np.inf]))[1:] == (3, 1)


def test_a_set_without_frames_shows_its_arrays(tmp_path: Path) -> None:
    clips = [
        ListedClip(
            clip_id=f"c{number}",
            subject="ann",
            split="train",
            labels={"engagement": number},
            features={"gaze": np.random.default_rng(number).random((15, 8), dtype=np.float32)},
        )
        for number in range(4)
    ]
    listing = Listing(dataset="arrays", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=tuple(clips))
    build_shards(listing, tmp_path / "shards", preprocess=PreprocessConfig())
    write_contact_sheet(tmp_path / "shards", tmp_path / "arrays.html")
    images = Page((tmp_path / "arrays.html").read_text()).of("img")
    assert [image["alt"] for image in images] == ["gaze, 15 x 8 values: time to the right, features downwards"] * 4
    assert all(image["src"].startswith("data:image/png") for image in images)


def test_frames_are_scaled_down_and_never_up() -> None:
    assert frame_strip(np.zeros((4, 224, 224, 3), dtype=np.uint8))[1:] == (4 * 144 + 3 * 4, 144)
    assert frame_strip(np.zeros((2, 32, 64, 3), dtype=np.uint8))[1:] == (2 * 64 + 4, 32)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--split", "exam"], "holds no split 'exam'"),
        (["--label", "joy"], "no label 'joy'; it has: engagement"),
        (["--label", "engagement=9"], "has the levels 0 to 3"),
    ],
)
def test_a_mistake_is_one_sentence(
    simulated_shards: tuple[Path, Manifest], tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    words = ["shards", "browse", str(simulated_shards[0]), "--out", str(tmp_path / "x.html"), *arguments]
    with pytest.raises(ConfigError, match=sentence):
        CliRunner().invoke(rapt, words, catch_exceptions=False)
    assert not (tmp_path / "x.html").exists()


def test_the_command_writes_one_file_here(
    simulated_shards: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["shards", "browse", str(simulated_shards[0]), "--clips", "5", "--split", "test", "--label", "engagement=0"]
    result = CliRunner().invoke(rapt, words, catch_exceptions=False)
    written = Path(f"{simulated_shards[0].name}.html")
    assert f"{written}: " in result.stdout
    assert {path.name for path in tmp_path.iterdir()} - {"rapt-home"} == {written.name}
    cards = Page(written.read_text()).of("li", class_="card")
    assert {(card["data-split"], card["data-level"]) for card in cards} == {("test", "0")}


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not here")
def test_a_browser_runs_the_page_and_none_of_the_data(hostile_page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(hostile_page)
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [CHROMIUM, *options, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = Page(shown.stdout)
    assert "hidden" not in found.of("form")[0]  # our script ran under the page's own policy
    assert "1 clips" in found.texts["p"]
    assert len(found.of("script")) == 1
    assert len(found.of("img")) == 1


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not here")
def test_clips_are_filtered_in_a_browser(sheet: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        said: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(sheet.as_uri())
        tab.select_option("select[name=split]", "test")
        tab.select_option("select[name=level]", "0")
        visible = tab.locator(".card:visible")
        assert visible.count() == tab.locator(".card[data-split=test][data-level='0']").count() > 0
        assert tab.locator("#shown").inner_text() == f"{visible.count()} of 64 clips"
        tab.get_by_role("button", name="Show all").press("Enter")
        tab.wait_for_function("document.getElementById('shown').textContent === '64 clips'")
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
