"""Simulated clips: equal settings give equal bytes, splits are honest, some levels differ only over time."""

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data_shards.errors import DataError
from data_shards.simulation import SimulationSettings, generate
from data_shards.simulation.behaviour import gather_into_bouts, simulate_behaviour
from data_shards.simulation.cohort import DAISEE_TRAIN_COUNTS, SPLITS, plan_cohort
from data_shards.simulation.settings import GENERATOR_VERSION
from data_shards.simulation.track import BehaviourTrack

SMALL = SimulationSettings(num_clips=5, seed=3, duration_s=2.0, fps=10, width_px=160, height_px=120)
DOWN_RAD = 0.17
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    generate(SMALL, folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def tracks(label: int, count: int, variant: str | None = None) -> list[BehaviourTrack]:
    made: list[BehaviourTrack] = []
    seed = 0
    while len(made) < count:
        track = simulate_behaviour(label, 10.0, 15, np.random.default_rng([label, seed]))
        seed += 1
        if variant is None or track.variant == variant:
            made.append(track)
    return made


def num_transitions(active_T: np.ndarray) -> int:
    return int(np.count_nonzero(np.diff(active_T.astype(int))))


def test_the_same_settings_give_the_same_bytes_from_any_number_of_workers(small_set: Path, tmp_path: Path) -> None:
    generate(SMALL, tmp_path, num_workers=2)
    assert digests(tmp_path) == digests(small_set)
    assert len(digests(tmp_path)) == 4 * SMALL.num_clips + 2


def test_another_seed_gives_other_videos(small_set: Path, tmp_path: Path) -> None:
    generate(replace(SMALL, seed=4), tmp_path)
    videos = {name: digest for name, digest in digests(tmp_path).items() if name.endswith(".mp4")}
    assert not set(videos.values()) & set(digests(small_set).values())


def test_a_stopped_run_makes_only_what_is_missing(small_set: Path) -> None:
    before = digests(small_set)
    videos = sorted((small_set / "clips").glob("*.mp4"))
    kept_at_ns = videos[1].stat().st_mtime_ns
    videos[0].unlink()
    (small_set / "openface" / f"{videos[2].stem}.csv").unlink()
    (small_set / "labels.csv").unlink()
    seen: list[tuple[int, int]] = []
    labels = generate(SMALL, small_set, progress=lambda done, total: seen.append((done, total)))
    assert labels == small_set / "labels.csv"
    assert seen == [(3, 5), (4, 5), (5, 5)]
    assert digests(small_set) == before
    assert videos[1].stat().st_mtime_ns == kept_at_ns


def test_an_interrupted_run_leaves_no_part_of_a_file(small_set: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(SMALL, tmp_path, progress=stop)
    assert not (tmp_path / "labels.csv").exists()
    assert not list(tmp_path.rglob("*partial*"))
    generate(SMALL, tmp_path)
    assert digests(tmp_path) == digests(small_set)


def test_a_folder_of_other_settings_is_refused(small_set: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="other settings"):
        generate(SimulationSettings(num_clips=6), small_set)
    (tmp_path / "labels.csv").write_text("clip,label\n")
    with pytest.raises(DataError, match="not simulated"):
        generate(SMALL, tmp_path)
    assert (tmp_path / "labels.csv").read_text() == "clip,label\n"


@pytest.mark.parametrize(
    "wrong",
    [{"num_clips": 0}, {"seed": -1}, {"balance": "even"}, {"duration_s": 1.0}, {"fps": 1}, {"width_px": 161}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"use|ask for"):
        replace(SMALL, **wrong)


def test_the_video_is_what_the_settings_say(small_set: Path) -> None:
    for path in sorted((small_set / "clips").glob("*.mp4")):
        with av.open(str(path)) as container:
            assert "simulated" in container.metadata["title"]
            assert "simulated" in container.metadata["comment"]
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
            assert (video.width, video.height) == (160, 120)
            assert video.average_rate == Fraction(SMALL.fps)
            assert (audio.rate, audio.channels) == (16_000, 1)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == SMALL.num_frames == 20
        assert np.std(np.stack(frames).astype(float)) > 20.0
        with av.open(str(path)) as container:
            num_samples = sum(frame.samples for frame in container.decode(audio=0))
        assert num_samples / 16_000 == pytest.approx(SMALL.duration_s, abs=0.15)


def test_speech_is_louder_than_the_room() -> None:
    from data_shards.simulation.person import draw_person
    from data_shards.simulation.sound import synthesise_sound

    track = tracks(3, 1, "active")[0]
    sound_S = synthesise_sound(draw_person(np.random.default_rng(0)), track, np.random.default_rng(1))
    spoken_S = np.repeat(track.speaking_T, len(sound_S) // track.num_frames + 1)[: len(sound_S)]
    loudness = [float(np.std(sound_S[chosen].astype(float))) for chosen in (spoken_S, ~spoken_S)]
    assert sound_S.dtype == np.int16
    assert len(sound_S) == 160_000
    assert loudness[0] > 5.0 * loudness[1]


def test_the_sidecars_parse_and_follow_the_track(small_set: Path) -> None:
    for row in csv.DictReader((small_set / "labels.csv").open(encoding="utf-8")):
        clip_id = Path(row["clip"]).stem
        record = json.loads((small_set / "behaviour" / f"{clip_id}.json").read_text(encoding="utf-8"))
        assert "simulated" in record["note"]
        assert record["label"] == int(row["label"])
        assert {len(values) for values in record["frames"].values()} == {SMALL.num_frames}
        assert all(0.0 <= s["start_s"] <= s["end_s"] <= SMALL.duration_s for s in record["segments"])

        text = (small_set / "openface" / f"{clip_id}.csv").read_text(encoding="utf-8")
        header = text.splitlines()[0].split(",")
        assert header[:5] == ["frame", " face_id", " timestamp", " confidence", " success"]
        values = np.array([[float(cell) for cell in line.split(",")] for line in text.splitlines()[1:]])
        column = {name.strip(): values[:, index] for index, name in enumerate(header)}
        assert values.shape == (SMALL.num_frames, len(header))
        assert column["confidence"].max() < 1.0
        assert np.allclose(column["pose_Rx"], record["frames"]["pitch_rad"], atol=0.03)
        assert np.allclose(column["AU45_r"], 3.0 * np.array(record["frames"]["eye_closure"]), atol=0.7)

        transcript = (small_set / "transcripts" / f"{clip_id}.vtt").read_text(encoding="utf-8")
        assert transcript.startswith("WEBVTT\n")
        assert "simulated" in transcript
        assert (" --> " in transcript) == any(s["name"] == "speak" for s in record["segments"])
    marker = json.loads((small_set / "settings.json").read_text(encoding="utf-8"))
    assert marker["generator_version"] == GENERATOR_VERSION
    assert "simulated" in marker["note"]


def test_labels_name_the_clips(small_set: Path) -> None:
    rows = list(csv.DictReader((small_set / "labels.csv").open(encoding="utf-8")))
    assert list(rows[0]) == ["clip", "label", "subject", "split", "simulated"]
    assert all((small_set / row["clip"]).is_file() for row in rows)
    assert {row["simulated"] for row in rows} == {"simulated"}
    assert {row["label"] for row in rows} <= set("0123")


@pytest.mark.parametrize("num_clips", [64, 100, 257, 800])
def test_splits_are_subject_disjoint_and_class_complete(num_clips: int) -> None:
    clips = plan_cohort(SimulationSettings(num_clips=num_clips, seed=1))
    assert [clip.index for clip in clips] == list(range(num_clips))
    assert len({clip.clip_id for clip in clips}) == num_clips
    people = {split: {clip.subject for clip in clips if clip.split == split} for split in SPLITS}
    assert sum(len(names) for names in people.values()) == len(set().union(*people.values())) == max(8, num_clips // 8)
    for split in SPLITS:
        counts = Counter(clip.label for clip in clips if clip.split == split)
        assert set(counts) == {0, 1, 2, 3}
        assert max(counts.values()) - min(counts.values()) <= 1
    train_share = len(people["train"]) / sum(map(len, people.values()))
    assert train_share == pytest.approx(0.60, abs=0.05)


def test_daisee_balance_has_the_shares_of_its_train_split() -> None:
    clips = plan_cohort(SimulationSettings(num_clips=2000, balance="daisee"))
    counts = Counter(clip.label for clip in clips)
    for level, published in enumerate(DAISEE_TRAIN_COUNTS):
        assert counts[level] / 2000 == pytest.approx(published / sum(DAISEE_TRAIN_COUNTS), abs=0.002)
    small = plan_cohort(SimulationSettings(num_clips=64, balance="daisee"))
    for split in SPLITS:
        assert {clip.label for clip in small if clip.split == split} == {0, 1, 2, 3}


def test_gathering_reorders_and_never_changes_values() -> None:
    rng = np.random.default_rng(0)
    track_T = rng.random(150)
    for max_bouts in (1, 2, 3):
        gathered_T = gather_into_bouts(track_T, rng.standard_normal(150), rng, max_bouts=max_bouts)
        assert np.array_equal(np.sort(gathered_T), np.sort(track_T))
        assert num_transitions(gathered_T > 0.5) <= 2 * max_bouts


def test_nodding_and_looking_down_differ_only_over_time() -> None:
    nods, looks = tracks(3, 250), tracks(1, 250)
    pitch = [np.concatenate([track.pitch_rad_T for track in group]) for group in (nods, looks)]
    quantiles = np.linspace(0.02, 0.98, 25)
    assert np.allclose(np.quantile(pitch[0], quantiles), np.quantile(pitch[1], quantiles), atol=0.05)
    shares = [np.array([(track.pitch_rad_T > DOWN_RAD).mean() for track in group]) for group in (nods, looks)]
    assert abs(shares[0].mean() - shares[1].mean()) < 0.02
    assert abs(shares[0].std() - shares[1].std()) < 0.02
    changes = [[num_transitions(track.pitch_rad_T > DOWN_RAD) for track in group] for group in (nods, looks)]
    assert np.quantile(changes[0], 0.02) > np.quantile(changes[1], 0.98)
    quiet = [np.mean([track.speaking_T.any() for track in group]) for group in (tracks(3, 250, "nodding"), looks)]
    assert abs(quiet[0] - quiet[1]) < 0.10


def test_blinking_and_drowsing_differ_only_over_time() -> None:
    blinks, drowses = tracks(2, 250), tracks(0, 250, "drowsing")
    shut = [np.array([(track.eye_closure_T > 0.5).mean() for track in group]) for group in (blinks, drowses)]
    assert abs(shut[0].mean() - shut[1].mean()) < 0.02
    assert abs(shut[0].std() - shut[1].std()) < 0.02
    closure = [np.concatenate([track.eye_closure_T for track in group]) for group in (blinks, drowses)]
    histograms = [np.histogram(values, bins=8, range=(0.0, 1.0))[0] / len(values) for values in closure]
    assert np.abs(histograms[0] - histograms[1]).sum() < 0.06
    sampled = np.linspace(0, 149, 30).round().astype(int)
    changes = [[num_transitions(track.eye_closure_T[sampled] > 0.5) for track in group] for group in (blinks, drowses)]
    assert np.quantile(changes[0], 0.05) > np.quantile(changes[1], 0.90)


def test_tracks_stay_in_range_and_engagement_follows_the_level() -> None:
    means = []
    for label in range(4):
        group = tracks(label, 60)
        for track in group:
            for name in ("engagement_T", "eye_closure_T", "mouth_T", "lean_T", "phone_T", "brow_T"):
                values_T = getattr(track, name)
                assert values_T.shape == (150,)
                assert 0.0 <= values_T.min() <= values_T.max() <= 1.0
        means.append(np.mean([track.engagement_T.mean() for track in group]))
    assert np.all(np.diff(means) > 0.2)
    assert {track.variant for track in tracks(0, 60)} == {"drowsing", "away", "phone", "yawning"}
    with pytest.raises(ValueError, match="label is 4"):
        simulate_behaviour(4, 10.0, 15, np.random.default_rng(0))


def test_importing_the_package_does_not_load_the_encoder() -> None:
    script = "import sys, data_shards.simulation; print(sorted({'av', 'PIL', 'torch'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"
