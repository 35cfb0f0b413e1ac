"""Faces, the rectangles of a gallery, and people followed through changes of layout."""

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_shards.errors import ConfigError
from data_shards.gallery.faces import FaceFinder
from data_shards.gallery.layout import Box, find_rectangles, overlap
from data_shards.gallery.tracking import Region, Tracker
from tests.data_shards.meeting import GROUND, PEOPLE, SCENES, draw


@pytest.fixture(scope="module")
def finder(real_data: Path) -> Iterator[FaceFinder]:
    with FaceFinder(real_data / "models" / "face_landmarker.task") as finder:
        yield finder


def frame_of(path: Path, number: int = 20) -> np.ndarray:
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == number:
                return frame.to_ndarray(format="rgb24")
    raise AssertionError(path)


@pytest.mark.parametrize("name", PEOPLE)
def test_the_face_of_every_real_person_is_found_once(real_data: Path, finder: FaceFinder, name: str) -> None:
    frame = frame_of(real_data / "videos" / name)
    for zoom in (1, 2):  # windows that see the same face do not make two of it
        (face,) = finder.find(frame, zoom)
        assert 0.1 < face.width / frame.shape[1] < 0.5
        assert 0.2 < face.centre[1] / frame.shape[0] < 0.8


def test_nobody_is_found_where_nobody_is(real_data: Path, finder: FaceFinder) -> None:
    assert finder.find(frame_of(real_data / "videos" / "no_face.mp4"), 2) == []


def test_zoom_finds_faces_that_are_small_in_the_picture(real_data: Path, finder: FaceFinder) -> None:
    face = frame_of(real_data / "videos" / "test3.avi")
    picture = np.full((720, 1280, 3), GROUND, np.uint8)
    picture[400:520, 700:860] = np.asarray(Image.fromarray(face).resize((160, 120)))
    assert finder.find(picture) == []
    (found,) = finder.find(picture, 4)
    assert Box(x=700, y=400, width=160, height=120).holds(*found.centre)


def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    model = tmp_path / "a.task"
    model.write_bytes(b"no model")
    with pytest.raises(ConfigError, match="not a model of MediaPipe"):
        FaceFinder(model)


def test_mediapipe_is_imported_only_when_a_face_is_looked_for() -> None:
    import subprocess

    code = "import sys, data_shards.gallery.cut; print('mediapipe' in sys.modules, 'av' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False False\n"


@pytest.mark.parametrize("scene", range(len(SCENES)))
def test_the_tiles_of_real_galleries_are_found_in_reading_order(real_data: Path, scene: int) -> None:
    picture = draw(real_data / "videos", SCENES, SCENES[scene].start_s + 0.5)
    true = list(SCENES[scene].tiles.values())
    found = find_rectangles(np.asarray(Image.fromarray(picture).convert("L")))
    assert len(found) == len(true)
    assert min(overlap(a, b) for a, b in zip(found, true, strict=True)) >= 0.85


def noise(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 255, (height, width), dtype=np.uint8)


@pytest.mark.parametrize("ground", [0, 26, 255])
def test_rectangles_of_many_sizes_on_any_plain_ground(ground: int) -> None:
    luma = np.full((540, 960), ground, np.uint8)
    true = [
        Box(x=20, y=20, width=160, height=120),
        Box(x=200, y=20, width=160, height=120),
        Box(x=60, y=200, width=320, height=240),
    ]
    for number, box in enumerate(true):
        luma[box.y : box.y + box.height, box.x : box.x + box.width] = noise(number, box.height, box.width) % 200 + 30
    luma[500:510, 100:130] = 128  # a word on the ground is no tile
    assert find_rectangles(luma) == true


@pytest.mark.parametrize("luma", [np.zeros((270, 480), np.uint8), noise(1, 270, 480), np.full((270, 480), 255, np.uint8)])
def test_a_plain_or_a_full_picture_is_no_gallery(luma: np.ndarray) -> None:
    assert find_rectangles(luma) == []


def region(box: Box, person: int, *, has_face: bool = True) -> Region:
    picture = np.random.default_rng(person).uniform(0, 255, (576, 3)).astype(np.float32)
    return Region(box, has_face, picture)


LEFT, RIGHT = Box(x=0, y=0, width=100, height=80), Box(x=110, y=0, width=100, height=80)


def follow(looks: list[list[Region]]) -> list[tuple[str, list[tuple[float, float, Box]]]]:
    tracker = Tracker()
    for number, regions in enumerate(looks):
        tracker.look(number / 2, regions, lambda box, now=number / 2: now)
    people, _ = tracker.people(len(looks) / 2)
    return [(p.subject, [(t.start_s, t.end_s, t.box) for t in p.tiles]) for p in people]


def test_people_who_change_places_stay_who_they_are() -> None:
    looks = [[region(LEFT, 1), region(RIGHT, 2)]] * 4 + [[region(LEFT, 2), region(RIGHT, 1)]] * 4
    assert follow(looks) == [("person0", [(0, 2, LEFT), (2, 4, RIGHT)]), ("person1", [(0, 2, RIGHT), (2, 4, LEFT)])]


def test_somebody_else_in_the_same_place_is_somebody_else() -> None:
    assert follow([[region(LEFT, 1)]] * 4 + [[region(LEFT, 2)]] * 4) == [
        ("person0", [(0, 2, LEFT)]),
        ("person1", [(2, 4, LEFT)]),
    ]


def test_who_comes_back_is_known_again_and_the_absence_is_kept() -> None:
    looks = [[region(LEFT, 1)]] * 4 + [[]] * 8 + [[region(RIGHT, 1)]] * 4
    assert follow(looks) == [("person0", [(0, 2, LEFT), (6, 8, RIGHT)])]


def test_a_tile_that_is_missed_for_a_look_was_there() -> None:
    assert follow([[region(LEFT, 1)]] * 4 + [[]] + [[region(LEFT, 1)]] * 3) == [("person0", [(0, 4, LEFT)])]


def test_a_face_turned_away_keeps_its_tile_and_an_empty_tile_is_nobody() -> None:
    tracker = Tracker()
    for number in range(8):
        regions = [region(LEFT, 1, has_face=number < 4), region(RIGHT, 2, has_face=False)]
        tracker.look(number / 2, regions, lambda box, now=number / 2: now)
    (person,), dropped = tracker.people(4)
    assert (person.tiles[0].end_s, person.faces, dropped) == (4, ((0, 2),), 0)


def test_a_face_seen_for_a_moment_is_nobody() -> None:
    tracker = Tracker()
    tracker.look(0, [region(LEFT, 1)], lambda box: 0.0)
    tracker.look(0.5, [], lambda box: 0.5)
    assert tracker.people(4) == ([], 1)


def test_a_trembling_tile_keeps_its_box() -> None:
    trembling = [LEFT, LEFT.model_copy(update={"x": 2}), LEFT.model_copy(update={"width": 98}), LEFT]
    assert follow([[region(box, 1)] for box in trembling]) == [("person0", [(0, 2, LEFT)])]
