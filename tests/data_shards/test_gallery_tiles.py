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
from data_shards.gallery.looks import is_off
from data_shards.gallery.recording import RecordingStream, open_recording
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


def test_a_face_box_that_walks_is_one_person_and_two_who_pass_each_other_stay_two() -> None:
    def face(x: int, person: int, look: int) -> Region:
        wall = np.random.default_rng(100 * person + look).uniform(-40, 40, (576, 3))  # what is behind changes as they walk
        return Region(
            Box(x=x, y=100, width=200, height=160),
            True,
            (region(LEFT, person).picture_PC + wall).astype(np.float32),
            is_tile=False,
        )

    looks = [[face(100 + 60 * n, 1, n), face(800 - 60 * n, 2, n)] for n in range(5)]
    assert [len(tiles) > 1 for _, tiles in follow(looks)] == [True, True]


def test_a_face_that_is_missed_for_a_moment_is_the_same_person() -> None:
    box = Box(x=100, y=100, width=200, height=160)
    there = [Region(box, True, region(LEFT, 1).picture_PC, is_tile=False)]
    assert follow([there] * 3 + [[]] * 2 + [there] * 3) == [("person0", [(0, 4, box)])]


def test_a_camera_that_is_turned_off_keeps_its_person_who_is_known_again() -> None:
    off = Region(LEFT, False, np.full((576, 3), 12, np.float32), is_off=True)
    tracker = Tracker()
    for number, regions in enumerate([[region(LEFT, 1)]] * 3 + [[off]] * 20 + [[region(LEFT, 1)]] * 3):
        tracker.look(number / 2, regions, lambda box, now=number / 2: now)
        assert [track.is_off for track in tracker.present] == [regions[0].is_off]
    (person,), _ = tracker.people(13)
    assert [(tile.start_s, tile.end_s) for tile in person.tiles] == [(0, 13)]
    assert person.faces == ((0, 1.5), (11.5, 13))


def test_only_a_plain_picture_is_a_camera_that_is_off(real_data: Path) -> None:
    for name in [*PEOPLE, "no_face.mp4", "crowd_1080p.mp4"]:
        small = Image.fromarray(frame_of(real_data / "videos" / name)).resize((24, 24), Image.Resampling.BOX)
        assert not is_off(np.asarray(small, np.float32).reshape(-1, 3)), name
    assert is_off(np.zeros((576, 3), np.float32))
    with_initials = np.full((576, 3), 90, np.float32)
    with_initials[250:300] = 220
    assert is_off(with_initials)


def test_a_recording_of_nothing_but_cuts_does_not_fill_the_memory() -> None:
    tracker = Tracker()
    for number in range(400):
        tracker.look(number / 2, [region(LEFT, number), region(RIGHT, 1000 + number)], lambda box, now=number / 2: now)
    assert len(tracker.tracks) <= 258
    assert tracker.num_dropped > 500


@pytest.mark.parametrize("name", ["crowd_1080p.mp4", "noface_face.mov", "5100462069.avi", "swiz3n.mpg"])
def test_a_recording_entered_in_the_middle_gives_the_pictures_of_a_whole_pass(real_data: Path, name: str) -> None:
    recording = open_recording(real_data / "videos" / name)
    whole = [(picture.time_s, picture.luma().copy()) for picture in RecordingStream(recording)]
    from_s = whole[len(whole) * 2 // 3][0]
    rest = [(picture.time_s, picture.luma().copy()) for picture in RecordingStream(recording, from_s=from_s)]
    expected = [(time_s, luma) for time_s, luma in whole if time_s >= from_s]
    assert [time_s for time_s, _ in rest] == [time_s for time_s, _ in expected]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(rest, expected, strict=True))
