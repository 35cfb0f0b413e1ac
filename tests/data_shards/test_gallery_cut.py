"""From a recorded meeting to labelled clips: the right person, the right moment, the sound in step, and nothing lost."""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner

from cluster.command_line import rapt
from data_shards.datasets import folder as folder_dataset
from data_shards.errors import ClipError, ConfigError, DataError
from data_shards.gallery.cut import CutSummary, cut_planned, plan_cut
from data_shards.gallery.faces import FaceBox, FaceFinder
from data_shards.gallery.labels_csv import COLUMNS
from data_shards.gallery.layout import overlap
from data_shards.gallery.people import People
from data_shards.gallery.plan import CutSettings, plan_clips
from data_shards.storage.source import Source
from data_shards.transcript import Transcript, Utterance, read_transcript
from tests.data_shards.meeting import FPS, PEOPLE, SCENES, Scene, grid, tile_pictures, write_meeting

FRAME_S = 1 / FPS
VTT = """WEBVTT

1
00:00:01.230 --> 00:00:04.560
Anna: hello all of you

2
00:00:04.000 --> 00:00:08.000
Bob: =fine

3
00:00:09.500 --> 00:00:14.000
Anna: and a word that spans a change

4
00:00:14.100 --> 00:00:14.600
Bob: ok

5
00:00:15.500 --> 00:00:24.600
Bob: to the end and on

6
00:01:16.100 --> 00:01:24.600
Bob: in another meeting
"""


@pytest.fixture(scope="module")
def finder(real_data: Path) -> Iterator[FaceFinder]:
    with FaceFinder(real_data / "models" / "face_landmarker.task") as finder:
        yield finder


@pytest.fixture(scope="module")
def meeting(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_meeting(real_data / "videos", tmp_path_factory.mktemp("meeting") / "lesson 1.mp4")


@pytest.fixture(scope="module")
def transcript(tmp_path_factory: pytest.TempPathFactory) -> Transcript:
    path = tmp_path_factory.mktemp("vtt") / "lesson.vtt"
    path.write_text(VTT)
    return read_transcript(path)


def cut(recording: Path, out: Path, find_faces: object, transcript: Transcript | None = None, **settings: float) -> CutSummary:
    plan = plan_cut(recording, out, find_faces, settings=CutSettings(**settings), transcript=transcript)
    return cut_planned(plan)


@pytest.fixture(scope="module")
def clips(
    meeting: Path, transcript: Transcript, finder: FaceFinder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CutSummary]:
    out = tmp_path_factory.mktemp("out") / "clips"
    return out, cut(meeting, out, finder.find, transcript)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rejects_of(out: Path) -> list[str]:
    return [json.loads(line)["reason"] for line in (out / "rejects.jsonl").read_text().splitlines()]


def pictures_of(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def sound_of(path: Path) -> tuple[int, np.ndarray]:
    """(rate, samples) with silence for whatever time has none."""
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        samples = np.zeros(rate * 60, np.float32)
        end = 0
        for frame in container.decode(audio=0):
            piece, at = frame.to_ndarray()[0], round(frame.time * rate)
            samples[max(0, at) : at + len(piece)] = piece[max(0, -at) :]
            end = at + len(piece)
        return rate, samples[:end]


def test_every_person_is_found_once_and_followed_through_every_layout(clips: tuple[Path, CutSummary]) -> None:
    people = People.from_bytes((clips[0] / "people.json").read_bytes(), origin="people.json").people
    assert [person.subject for person in people] == list(PEOPLE.values())
    for name, person in zip(PEOPLE, people, strict=True):
        true = [(scene.start_s, scene.end_s, scene.tiles[name]) for scene in SCENES if name in scene.tiles]
        assert len(person.tiles) == len(true)
        for tile, (start_s, end_s, box) in zip(person.tiles, true, strict=True):
            assert (tile.start_s, tile.end_s) == pytest.approx((start_s, end_s), abs=1.5 * FRAME_S)
            assert overlap(tile.box, box) >= 0.85


def test_labels_csv_says_what_was_said_and_leaves_the_judging_to_a_person(clips: tuple[Path, CutSummary]) -> None:
    out, summary = clips
    rows = rows_of(out)
    assert tuple(rows[0]) == COLUMNS
    assert (summary.num_people, summary.num_clips, summary.num_to_label, summary.has_sound) == (6, len(rows), len(rows), True)
    assert {(row["label"], row["split"], row["session"]) for row in rows} == {("", "", "lesson 1")}
    assert sorted(row["clip"] for row in rows) == sorted(path.relative_to(out).as_posix() for path in out.glob("clips/*"))
    said = {(row["start_s"], row["speaker"], row["speech"].strip()) for row in rows if row["subject"] == "person0"}
    assert said == {
        ("1.230", "Anna", "hello all of you"),
        ("4.000", "Bob", "=fine"),
        ("9.500", "Anna", "and a word that spans a change"),
        ("15.500", "Bob", "to the end and on"),
    }
    assert not any(row["speech"].startswith("=") for row in rows)  # a spreadsheet would calculate it


def test_what_is_left_out_is_named_with_its_reason(clips: tuple[Path, CutSummary]) -> None:
    out, summary = clips
    assert rejects_of(out) == [
        "14.100 to 14.600 s: 0.50 s long, under the shortest of 2 s",
        "76.100 to 84.600 s: starts after the recording's end at 18.0 s",
    ]
    assert summary.num_left_out == 2


def test_words_that_take_no_time_are_too_short_for_a_clip() -> None:
    people, spoken = People(end_s=9, people=()), [Utterance(start_s=2, end_s=2, text="yes"), Utterance(start_s=9, end_s=9)]
    clips, rejects = plan_clips(people, spoken, CutSettings(), recording="a.mp4")
    assert not clips
    assert [reject.reason.split(": ")[-1] for reject in rejects] == [
        "0.00 s long, under the shortest of 2 s",
        "starts after the recording's end at 9.0 s",
    ]


def test_each_clip_shows_its_person_at_its_moment(clips: tuple[Path, CutSummary], real_data: Path) -> None:
    subjects = {subject: name for name, subject in PEOPLE.items()}
    for row in rows_of(clips[0]):
        pictures = pictures_of(clips[0] / row["clip"])
        start_s = float(row["start_s"])
        for time_s, picture in (pictures[1], pictures[len(pictures) // 2], pictures[-2]):
            now_s = start_s + time_s
            scene = next(scene for scene in SCENES if scene.start_s <= now_s < scene.end_s)
            box = scene.tiles[subjects[row["subject"]]]
            distances = {}
            for name in PEOPLE:
                frames = tile_pictures(real_data / "videos" / name, box.width, box.height)
                small = frames[round(now_s * FPS) % len(frames)][box.height // 6 : -8 : 8, 8:-8:8]
                grid_rows = np.linspace(picture.shape[0] / 6, picture.shape[0] - 9, small.shape[0]).astype(int)
                grid_columns = np.linspace(8, picture.shape[1] - 9, small.shape[1]).astype(int)
                shown = picture[np.ix_(grid_rows, grid_columns)]
                distances[PEOPLE[name]] = float(np.abs(shown.astype(float) - small).mean())
            assert min(distances, key=distances.__getitem__) == row["subject"], (row["clip"], now_s, distances)
            assert 2 * distances[row["subject"]] < sorted(distances.values())[1], (row["clip"], now_s)


def test_clips_last_as_long_as_they_say_with_sound_and_picture_in_step(clips: tuple[Path, CutSummary]) -> None:
    for row in rows_of(clips[0]):
        path, start_s, end_s = clips[0] / row["clip"], float(row["start_s"]), float(row["end_s"])
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert float(video.duration * video.time_base) == pytest.approx(end_s - start_s, abs=1.01 * FRAME_S)
            assert float(audio.duration * audio.time_base) == pytest.approx(end_s - start_s, abs=0.05)
            assert audio.layout.nb_channels == 2
        assert_in_step(path, start_s)


def assert_in_step(path: Path, start_s: float) -> None:
    """Each second's flash and tone begin together, at that second of the recording."""
    lit = []
    for time_s, picture in pictures_of(path):
        corner = picture[2 : picture.shape[0] // 12, -picture.shape[1] // 12 : -2]
        lit.append((time_s, corner.min() > 215))
    flashes = [now for (_, before), (now, after) in pairwise(lit) if after and not before]
    rate, samples = sound_of(path)
    loud = np.abs(samples) > 0.1
    quiet_before = np.convolve(loud, np.ones(rate // 10), "full")[: len(loud)]
    tones = [at / rate for at in np.flatnonzero(loud[1:] & (quiet_before[:-1] == 0)) if at > rate / 20]
    assert flashes
    assert len(flashes) == len(tones)
    for flash_s, tone_s in zip(flashes, tones, strict=True):
        assert tone_s + start_s == pytest.approx(round(tone_s + start_s), abs=0.01)
        assert flash_s == pytest.approx(tone_s, abs=1.01 * FRAME_S)


def test_labelled_clips_become_shards_and_unlabelled_ones_are_named(clips: tuple[Path, CutSummary], tmp_path: Path) -> None:
    source = tmp_path / "clips"
    shutil.copytree(clips[0], source)
    rows = rows_of(source)
    for number, row in enumerate(rows[:-1]):
        row["label"], row["split"] = str(number % 4), "train"
    with (source / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    listing = folder_dataset.list_clips(Source(source))
    assert [reject.reason.endswith("not labelled yet") for reject in listing.rejects] == [True]
    assert listing.clips[0].extra["speaker"] == "Anna"
    result = CliRunner().invoke(
        rapt,
        [
            "shards",
            "build",
            "folder",
            str(source),
            str(tmp_path / "s"),
            "--frames",
            "4",
            "--size",
            "64",
            "--workers",
            "1",
            "--json",
        ],
        catch_exceptions=False,
    )
    manifest = json.loads(result.stdout[result.stdout.index("{") :])
    assert manifest["splits"]["train"]["num_samples"] == len(rows) - 1
    assert manifest["num_rejected"] == 1


def test_a_second_run_makes_only_what_is_missing_and_keeps_what_a_person_wrote(
    clips: tuple[Path, CutSummary], meeting: Path, transcript: Transcript, tmp_path: Path
) -> None:
    out = tmp_path / "clips"
    shutil.copytree(clips[0], out)
    content = (out / "labels.csv").read_text().replace("person0_00001230_00004560.mp4,,", "person0_00001230_00004560.mp4,3,")
    (out / "labels.csv").write_text(content)
    gone = sorted(out.glob("clips/*"))[:2]
    before = [path.read_bytes() for path in gone]
    for path in gone:
        path.unlink()
    (out / "clips" / ".x.mp4.partial-1").write_bytes(b"of a killed run")

    def never(frame: np.ndarray, zoom: int) -> list[FaceBox]:
        raise AssertionError("the people are known already")

    summary = cut(meeting, out, never, transcript)
    assert summary.num_made == 2
    assert summary.num_to_label == summary.num_clips - 1
    assert [path.read_bytes() for path in gone] == before
    assert (out / "labels.csv").read_text() == content
    assert not list(out.glob("clips/.*"))


def test_a_row_that_was_lost_comes_back_and_the_filled_ones_stay(
    clips: tuple[Path, CutSummary], meeting: Path, transcript: Transcript, finder: FaceFinder, tmp_path: Path
) -> None:
    out = tmp_path / "clips"
    shutil.copytree(clips[0], out)
    rows = rows_of(out)
    rows[1] |= {"label": "2", "split": "test"}
    with (out / "labels.csv").open("w", newline="", encoding="utf-16") as file:  # as a spreadsheet saves it
        writer = csv.DictWriter(file, [*COLUMNS, "note"], delimiter=",")
        writer.writeheader()
        writer.writerows({**row, "note": "mine"} for row in rows[1:])
    summary = cut(meeting, out, finder.find, transcript)
    assert (summary.num_made, summary.num_to_label) == (0, len(rows) - 1)
    assert not any(row["speech"].startswith("=") for row in rows_of(out))
    after = rows_of(out)
    assert [(row["clip"], row["label"], row["split"], row["note"]) for row in after] == [
        (row["clip"], row["label"], row["split"], "mine" if number else "") for number, row in enumerate(rows)
    ]


def test_another_plan_or_somebody_elses_folder_is_refused(
    clips: tuple[Path, CutSummary], meeting: Path, transcript: Transcript, finder: FaceFinder, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="a different choice of transcript"):
        cut(meeting, clips[0], finder.find, every_s=5)
    with pytest.raises(ConfigError, match="a different choice of settings"):
        cut(meeting, clips[0], finder.find, transcript, min_face=0.1)
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(ConfigError, match=r"holds files that were not cut \(thesis\.doc\)"):
        cut(meeting, tmp_path, finder.find, transcript)


def test_an_interrupted_cut_leaves_no_partial_clip(
    clips: tuple[Path, CutSummary], meeting: Path, transcript: Transcript, tmp_path: Path
) -> None:
    out = tmp_path / "clips"
    shutil.copytree(clips[0], out)
    shutil.rmtree(out / "clips")
    plan = plan_cut(meeting, out, lambda frame, zoom: [], settings=CutSettings(), transcript=transcript)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_planned(plan, progress=stop)
    left = os.listdir(out / "clips")
    assert len(left) == 5
    assert not any(name.startswith(".") for name in left)
    assert cut_planned(plan).num_made == len(plan.clips) - 5


def one_person(real_data: Path, path: Path, **options: object) -> Path:
    names = list(PEOPLE)[1:3]
    return write_meeting(real_data / "videos", path, (Scene(0, 7, grid(names, 2, 464, 262)),), **options)


def test_a_variable_frame_rate_and_late_sound_stay_in_step(real_data: Path, finder: FaceFinder, tmp_path: Path) -> None:
    steady = [i / FPS for i in range(7 * FPS)]
    sparse = [t for i, t in enumerate(steady) if not (0.4 < t % 1 < 0.9) or i % 4 == 0]  # pictures that stand still
    path = one_person(real_data, tmp_path / "a.mp4", times_s=sparse, sound_late_s=0.5)
    out = tmp_path / "out"
    spans = (Utterance(start_s=0.3, end_s=3.5), Utterance(start_s=2.6, end_s=6.75))
    summary = cut(path, out, finder.find, Transcript(spans))
    assert (summary.num_people, summary.num_clips) == (2, 4)
    for row in rows_of(out):
        start_s, end_s = float(row["start_s"]), float(row["end_s"])
        assert_in_step(out / row["clip"], start_s)
        with av.open(str(out / row["clip"])) as container:
            video = container.streams.video[0]
            assert float(video.duration * video.time_base) == pytest.approx(end_s - start_s, abs=1.01 * FRAME_S)


def test_fixed_lengths_without_sound_and_long_utterances_in_parts(real_data: Path, finder: FaceFinder, tmp_path: Path) -> None:
    path = one_person(real_data, tmp_path / "a.mp4", with_sound=False)
    summary = cut(path, tmp_path / "out", finder.find, every_s=3)
    assert not summary.has_sound
    assert sorted({(row["start_s"], row["end_s"]) for row in rows_of(tmp_path / "out")}) == [
        ("0.000", "3.000"),
        ("3.000", "6.000"),
    ]
    assert rejects_of(tmp_path / "out") == ["6.000 to 7.000 s: 1.00 s long, under the shortest of 2 s"]
    spans = Transcript((Utterance(start_s=0.5, end_s=6.5, speaker="Anna"),))
    cut(path, tmp_path / "parts", finder.find, spans, max_s=4)
    assert [row["start_s"] for row in rows_of(tmp_path / "parts")] == ["0.500", "0.500", "3.500", "3.500"]


def test_a_face_that_is_seldom_seen_is_left_out_with_its_share(real_data: Path, tmp_path: Path) -> None:
    path = one_person(real_data, tmp_path / "a.mp4", with_sound=False)
    looks = {"left": 0}

    def left_for_two_seconds(frame: np.ndarray, zoom: int) -> list[FaceBox]:
        """A detector of our own: the first tile's face is seen in four looks, the second's in all."""
        is_left = frame[:, :, 0].mean() < 148
        looks["left"] += is_left
        return [FaceBox(200, 80, 60, 60)] if not is_left or looks["left"] <= 4 else []

    means = [tile_pictures(real_data / "videos" / name, 464, 262)[0][:, :, 0].mean() for name in list(PEOPLE)[1:3]]
    assert (min(means) < 148) != (max(means) < 148)
    summary = cut(path, tmp_path / "out", left_for_two_seconds, every_s=7)
    assert summary.num_clips == 1
    (reason,) = rejects_of(tmp_path / "out")
    assert "the face is seen in 29% of the span, under 50%" in reason


def test_touching_faces_without_a_grid_get_boxes_of_their_own(real_data: Path, finder: FaceFinder, tmp_path: Path) -> None:
    tiles = grid(list(PEOPLE)[:4], 2, 480, 270, gap=0)
    path = write_meeting(real_data / "videos", tmp_path / "a.mp4", (Scene(0, 5, tiles),), with_sound=False)
    cut(path, tmp_path / "out", finder.find, every_s=5)
    people = People.from_bytes((tmp_path / "out" / "people.json").read_bytes(), origin="people.json").people
    assert len(people) == 4
    for person in people:
        box = person.tiles[0].box
        centre = (box.x + box.width / 2, box.y + box.height / 2)
        (name,) = [name for name, tile in tiles.items() if tile.holds(*centre)]
        del tiles[name]


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda videos, path: path.write_bytes(b""), ClipError, "empty file"),
        (lambda videos, path: path.write_text("#EXTM3U\n/etc/passwd\n"), ClipError, "not a video container"),
        (lambda videos, path: shutil.copy(videos / "no_face.mp4", path), DataError, "no face was seen"),
        (lambda videos, path: shutil.copy(videos / "corrupted.mp4", path), DataError, "no face was seen"),
        (lambda videos, path: shutil.copy(videos / "rot_90.mov", path), ClipError, "turned by"),
        (lambda videos, path: None, ClipError, "No such file"),
    ],
)
def test_a_recording_that_cannot_be_cut_gets_a_sentence(
    real_data: Path, finder: FaceFinder, tmp_path: Path, make: object, error: type[Exception], sentence: str
) -> None:
    make(real_data / "videos", tmp_path / "a.mp4")
    with pytest.raises(error, match=sentence):
        cut(tmp_path / "a.mp4", tmp_path / "out", finder.find, every_s=3)


def test_a_recording_that_breaks_off_is_cut_as_far_as_it_goes(real_data: Path, finder: FaceFinder, tmp_path: Path) -> None:
    path = one_person(real_data, tmp_path / "a.mkv")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) * 2 // 3])
    summary = cut(path, tmp_path / "out", finder.find, every_s=2)
    assert 3 < summary.duration_s < 6
    assert summary.num_clips >= 2
    assert "although its header says 7.0 s" in rejects_of(tmp_path / "out")[0]


def test_damage_in_the_middle_costs_only_what_it_hits(real_data: Path, finder: FaceFinder, tmp_path: Path) -> None:
    path = one_person(real_data, tmp_path / "a.mkv")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = os.urandom(20_000)
    path.write_bytes(content)
    summary = cut(path, tmp_path / "out", finder.find, every_s=2)
    assert summary.num_people == 2
    assert summary.num_clips >= 2


def test_a_transcript_of_another_meeting_gets_a_sentence(real_data: Path, finder: FaceFinder, tmp_path: Path) -> None:
    path = one_person(real_data, tmp_path / "a.mp4", with_sound=False)
    with pytest.raises(DataError, match=r"every utterance starts after its end at 7\.0 s"):
        cut(path, tmp_path / "out", finder.find, Transcript((Utterance(start_s=8, end_s=12),)))
    assert cut(path, tmp_path / "out", finder.find, every_s=5).num_clips == 4  # a run that failed binds nobody


def test_the_command_cuts_and_says_what_to_do_next(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = one_person(real_data, tmp_path / "a.mp4")
    (tmp_path / "a.srt").write_text(
        "1\n00:00:00,500 --> 00:00:04,000\nAnna: hello\n\n2\n00:00:04,000 --> 00:00:0x,000\nBob: lost\n"
    )
    monkeypatch.setenv("RAPT_FACE_LANDMARKER", str(real_data / "models" / "face_landmarker.task"))
    command = ["shards", "cut", str(path), str(tmp_path / "out"), "--utterances", str(tmp_path / "a.srt")]
    result = CliRunner().invoke(rapt, command, catch_exceptions=False)
    assert "2 clips of 2 people, with sound; 2 made now" in result.stdout
    assert "1 left out" in result.stdout
    assert (tmp_path / "out" / "tiles.jpg").stat().st_size > 10_000
    summary = json.loads(CliRunner().invoke(rapt, [*command, "--json"], catch_exceptions=False).stdout)
    assert (summary["num_clips"], summary["num_made"]) == (2, 0)
    for wrong, sentence in (
        (["--every", "soon"], "not a length of time"),
        (["--every", "1s"], "outside the clips'"),
        ([], "give either"),
    ):
        error = CliRunner().invoke(rapt, [*command[:4], *wrong]).exception
        assert isinstance(error, ConfigError)
        assert sentence in str(error)
