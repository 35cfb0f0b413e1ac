"""A clip's sound: what is read from real and made files, and the eight numbers that Praat gives of it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_shards.datasets import DATASETS
from data_shards.errors import ClipError
from data_shards.extraction import ClipMaterial
from data_shards.extraction.acoustics import (
    COLUMNS,
    Acoustics,
    AcousticsSettings,
    VoiceTrack,
    acoustics_of,
    track_voice,
)
from data_shards.extraction.extract import extract_features, material_of
from data_shards.extraction.sound import Sound, read_sound
from data_shards.storage.source import Source
from tests.data_shards.sound_files import Samples, break_packets, tone, write_sound

USUAL = AcousticsSettings()


def acoustics(material: ClipMaterial) -> dict[str, float]:
    """The clip's numbers by their columns."""
    (values,) = extract_features(material, {"acoustics": Acoustics(USUAL)}).features.values()
    assert (values.dtype, values.shape) == (np.float32, (8,))
    return dict(zip(COLUMNS, values.tolist(), strict=True))


def heard(path: Path) -> Sound:
    sound = read_sound(path)
    assert sound is not None
    assert sound.samples_S.dtype == np.float32
    return sound


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_s16le"])
def test_samples_come_as_they_were_written(codec: str, tmp_path: Path) -> None:
    written_S = tone(440, 0.5)
    read_S = heard(write_sound(tmp_path / "a.mkv", written_S[None], codec=codec)).samples_S
    np.testing.assert_allclose(read_S, written_S, atol=1e-7 if codec == "pcm_f32le" else 4e-5)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left_S, right_S = tone(440, 0.5), tone(300, 0.5)
    for stereo_CS, mono_S in (
        ([left_S, left_S], left_S),
        ([left_S, 0 * left_S], left_S / 2),
        ([left_S, right_S], (left_S + right_S) / 2),
    ):
        read_S = heard(write_sound(tmp_path / "a.mkv", np.stack(stereo_CS))).samples_S
        np.testing.assert_allclose(read_S, mono_S, atol=1e-7)


@pytest.mark.parametrize("num_channels", [3, 6, 8, 16])
@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
def test_any_number_of_channels_is_averaged(name: str, num_channels: int, tmp_path: Path) -> None:
    channels_CS = np.stack([tone(100 * (channel + 1), 0.2) for channel in range(num_channels)])
    read_S = heard(write_sound(tmp_path / name, channels_CS)).samples_S
    np.testing.assert_allclose(read_S, channels_CS.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_any_rate_becomes_16_khz(rate_hz: int, tmp_path: Path) -> None:
    sound = heard(write_sound(tmp_path / "a.mkv", tone(440, 1, rate_hz=rate_hz)[None], rate_hz=rate_hz))
    assert sound.rate_hz == 16_000
    assert sound.duration_s == pytest.approx(1, abs=0.002)
    middle = slice(2_000, 14_000)  # the filter's edges differ
    spectrum = np.abs(np.fft.rfft(sound.samples_S[middle]))
    assert spectrum.argmax() * 16_000 / 12_000 == pytest.approx(440, abs=1.4)
    assert sound.samples_S[middle].std() == pytest.approx(0.1 / np.sqrt(2), rel=0.01)


@pytest.mark.parametrize("name", ["swiz3n.mpg", "bbaf2n.mpg"])
def test_a_grid_talker_has_a_human_voice(name: str, real_data: Path) -> None:
    sound = heard(real_data / "videos" / name)
    assert sound.duration_s == pytest.approx(2.97, abs=0.03)
    assert 0.05 < sound.samples_S.std() < 0.3
    track = track_voice(sound, USUAL)
    voiced_F = track.pitch_F > 0
    assert 0.2 < voiced_F.mean() < 0.8  # words between two silences
    assert 80 < np.median(track.pitch_F[voiced_F]) < 300
    low, high = np.percentile(track.pitch_F[voiced_F], [5, 90])
    assert 70 < low < high < 400
    values = acoustics(ClipMaterial(name=name, video=real_data / "videos" / name))
    assert values["speech_length"] == pytest.approx(voiced_F.sum() * 0.01)
    assert values["voiced"] == pytest.approx(voiced_F.mean())
    assert 2 < values["std_volume"] < 15
    assert 0.5 < values["std_pitch"] < 8
    assert all(0 <= values[share] < 0.5 for share in COLUMNS if COLUMNS[share] == "share" and share != "voiced")
    assert values == acoustics(ClipMaterial(name=name, video=real_data / "videos" / name))


def test_a_silent_track_is_sound_and_no_track_is_none(real_data: Path) -> None:
    silent = real_data / "videos" / "WolfgangLanger_Pexels.mp4"
    sound = heard(silent)
    assert sound.duration_s == pytest.approx(19.7, abs=0.1)
    assert not sound.samples_S.any()
    assert set(acoustics(ClipMaterial(name="silent", video=silent)).values()) == {0.0}
    assert read_sound(real_data / "videos" / "5100462069.avi") is None
    mute = ClipMaterial(name="mute", video=real_data / "videos" / "5100462069.avi")
    found = extract_features(mute, {"acoustics": Acoustics(USUAL)})
    assert (found.features, found.lacking) == ({}, {"acoustics": "no sound track"})


def test_damaged_packets_are_left_out(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", tone(200, 2)[None], codec="mp2")
    whole = heard(path).duration_s
    num_packets = break_packets(path, slice(10, 15))
    assert num_packets > 20
    assert heard(path).duration_s == pytest.approx(whole * (1 - 5 / num_packets), abs=0.08)


def test_sound_of_which_nothing_can_be_decoded_is_a_sentence(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", tone(200, 0.5)[None], codec="mp2")
    break_packets(path, slice(None))
    with pytest.raises(ClipError, match=r"a\.mkv: damaged, nothing of its sound can be decoded; re-encode it"):
        read_sound(path)


def test_a_grid_clip_with_a_broken_middle_keeps_the_rest(real_data: Path, tmp_path: Path) -> None:
    content = bytearray((real_data / "videos" / "swiz3n.mpg").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    path = tmp_path / "broken.mpg"
    path.write_bytes(content)
    assert 1.5 < heard(path).duration_s < 3.1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty file"),
        (b"#EXTM3U\n/etc/passwd\n", "not a video container"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "not a video container"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(60), "its sound cannot be read"),
    ],
)
def test_what_is_no_clip_is_a_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(ClipError, match=sentence):
        read_sound(path)
    with pytest.raises(ClipError, match="cannot be read"):
        read_sound(tmp_path / "none.mp4")


def test_sound_that_is_too_long_is_a_sentence(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", tone(200, 2)[None], codec="pcm_s16le")
    assert read_sound(path, max_s=2) is not None
    with pytest.raises(ClipError, match="longer than the limit of 1 s; cut it"):
        read_sound(path, max_s=1)


def test_samples_that_are_no_numbers_are_silence(tmp_path: Path) -> None:
    samples_S = tone(200, 1)
    samples_S[100:200] = np.nan
    samples_S[300:320] = np.inf
    samples_S[400:420] = -3e38
    read_S = heard(write_sound(tmp_path / "a.mkv", samples_S[None])).samples_S
    assert np.isfinite(read_S).all()
    assert not read_S[100:200].any()
    assert (read_S[300:320] == 1).all()
    assert (read_S[400:420] == -1).all()


def test_one_sample_is_sound(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", np.full((1, 1), 0.5, np.float32))
    assert heard(path).samples_S.tolist() == [0.5]
    assert set(acoustics(ClipMaterial(name="one", video=path)).values()) == {0.0}


def in_turn(*parts: tuple[float, float, float]) -> Samples:
    """(hz, seconds, level) one after the other, the phase going on."""
    hz_S = np.concatenate([np.full(round(seconds * 16_000), hz) for hz, seconds, _ in parts])
    level_S = np.concatenate([np.full(round(seconds * 16_000), level) for _, seconds, level in parts])
    return (level_S * np.sin(2 * np.pi * np.cumsum(hz_S) / 16_000)).astype(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
def test_tones_of_known_pitch_and_level_give_the_numbers_worked_out_by_hand(sign: int, tmp_path: Path) -> None:
    """1 s of a tone, .5 s three times as loud, .5 s a quarter higher, 1 s of silence; and the same downwards."""
    parts = [(200, 1, 0.1), (200, 0.5, 0.1 * 3.0**sign), (200 * 1.25**sign, 0.5, 0.1), (200, 1, 0)]
    path = write_sound(tmp_path / "a.mkv", in_turn(*parts)[None])
    values = acoustics(ClipMaterial(name="tones", video=path))
    up, down = ("high", "low") if sign > 0 else ("low", "high")
    spread = np.sqrt(0.25 * 0.75)  # of something that is there for a quarter of the time
    expected = {
        "speech_length": 2.0,
        f"{up}_volume": 0.25,
        f"{down}_volume": 0.0,
        f"{up}_pitch": 0.25,
        f"{down}_pitch": 0.0,
        "std_volume": 20 * np.log10(3) * spread,  # 4.13 dB
        "std_pitch": 12 * np.log2(1.25) * spread,  # 1.67 semitones
        "voiced": 2 / 3,
    }
    for column, value in expected.items():
        assert values[column] == pytest.approx(value, rel=0.05, abs=0.03), column


def test_the_tracks_are_in_decibels_and_hertz() -> None:
    track = track_voice(Sound(tone(220, 1, level=0.1)), USUAL)
    assert track.pitch_F == pytest.approx(220, abs=0.5)
    assert track.volume_F[10:-10] == pytest.approx(20 * np.log10(0.1 / np.sqrt(2) / 2e-5), abs=0.05)


def test_the_numbers_follow_from_a_track_by_their_definition() -> None:
    track = VoiceTrack(
        volume_F=np.array([60.0, 60, 60, 67, 53, 60, 90, 10]),
        pitch_F=np.array([100.0, 100, 100, 113, 88, 100, 0, 0]),
        step_s=0.01,
    )
    semitones = 12 * np.log2(np.array([100, 100, 100, 113, 88, 100]) / 100)
    expected = [0.06, 1 / 6, 1 / 6, 1 / 6, 1 / 6, np.std([0, 0, 0, 7, -7, 0]), semitones.std(), 6 / 8]
    np.testing.assert_allclose(acoustics_of(track, None, USUAL), expected, rtol=1e-6)
    assert acoustics_of(track, 4.5, USUAL)[0] == 4.5
    stricter = AcousticsSettings(loud_db=7.5, high_semitones=2.2)
    np.testing.assert_allclose(acoustics_of(track, None, stricter)[1:5], [0, 0, 0, 1 / 6], rtol=1e-6)


def test_a_gain_and_a_lower_voice_change_nothing_but_what_they_are() -> None:
    tune = [(200, 0.6, 0.1), (240, 0.3, 0.1), (200, 0.3, 0.25)]
    quieter = [(hz, seconds, level / 10) for hz, seconds, level in tune]
    lower = [(hz / 2, seconds, level) for hz, seconds, level in tune]
    usual, *others = (acoustics_of(track_voice(Sound(in_turn(*part)), USUAL), None, USUAL) for part in (tune, quieter, lower))
    for other in others:
        np.testing.assert_allclose(other, usual, atol=0.15)


sounds = arrays(np.float32, st.integers(0, 3000), elements=st.floats(-1, 1, width=32), fill=st.sampled_from([0.0, 1.0, 1e-30]))
periods = st.builds(
    lambda part_S, times: np.tile(part_S, times), arrays(np.float32, 100, elements=st.floats(-1, 1, width=32)), st.integers(1, 80)
)


@settings(max_examples=150, deadline=None)
@given(samples_S=sounds | periods)
def test_the_numbers_are_finite_and_in_range_whatever_the_sound(samples_S: Samples) -> None:
    sound = Sound(np.ascontiguousarray(samples_S, dtype=np.float32))
    values = acoustics_of(track_voice(sound, USUAL), None, USUAL)
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert 0 <= values[0] <= sound.duration_s + 0.01
    assert (values[[1, 2, 3, 4, 7]] <= 1).all()
    np.testing.assert_array_equal(values, acoustics_of(track_voice(sound, USUAL), None, USUAL))


@pytest.mark.parametrize("floor_hz", [30, 75, 99.7, 333])
def test_a_sound_about_as_long_as_praats_window_has_numbers(floor_hz: float) -> None:
    usual = AcousticsSettings(pitch_floor_hz=floor_hz, pitch_ceiling_hz=700)
    window = 6.4 / floor_hz * 16_000
    lengths = [round(window * factor) + more for factor in (0.45, 0.5, 1, 1.01) for more in range(-4, 5)]
    tracks = [track_voice(Sound(tone(500, 1)[:length]), usual) for length in lengths]
    assert {track.pitch_F.size > 0 for track in tracks} == {False, True}
    assert all(np.isfinite(acoustics_of(track, None, usual)).all() for track in tracks)


def test_speech_lasts_as_long_as_the_transcript_says(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", in_turn((200, 1, 0.1), (200, 1, 0))[None])
    said = tmp_path / "a.vtt"

    def length(vtt: str | None, text: str = "") -> float:
        said.write_text(f"WEBVTT\n\n{vtt or ''}")
        transcript = said if vtt is not None else None
        return acoustics(ClipMaterial(name="a", video=path, transcript=transcript, text=text))["speech_length"]

    voiced_s = pytest.approx(1, abs=0.03)
    assert length(None) == voiced_s
    assert length(None, text="words without times") == voiced_s
    assert length("00:00.500 --> 00:01.750\nhello") == 1.25
    assert length("00:00.500 --> 00:09.000\nhello") == 2  # no longer than the clip
    assert length("") == 0  # nobody speaks: a tone is no speech


def test_a_broken_transcript_is_the_reason_why_a_clip_lacks_acoustics(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", tone(200, 1)[None])
    (tmp_path / "a.srt").write_text("1\n00:00:0x --> 00:01\nhello\n")
    clip = ClipMaterial(name="a", video=path, transcript=tmp_path / "a.srt")
    found = extract_features(clip, {"acoustics": Acoustics(USUAL)})
    assert "a.srt: no cue can be read" in found.lacking["acoustics"]


def test_speaking_and_silent_simulated_clips_sound_different(simulated_folder: Path) -> None:
    voiced: dict[bool, list[float]] = {True: [], False: []}
    for clip in DATASETS["simulated"](Source(simulated_folder)).clips[:24]:
        with material_of(clip) as material:
            values = acoustics(material)
            speaks = material.words is not None
            told_s = material.words.speech_s if material.words else 0.0
        assert values["speech_length"] == pytest.approx(told_s)
        voiced[speaks].append(values["voiced"])
        assert (values["std_pitch"] > 0.2) == speaks
    assert min(voiced[True]) > 0.1 > 0.01 > max(voiced[False])


@pytest.mark.parametrize(
    "changed", [{"pitch_floor_hz": 300, "pitch_ceiling_hz": 400}, {"loud_db": 0}, {"step_s": 0}, {"high_semitones": float("nan")}]
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed)).split("_")[0]):
        AcousticsSettings(**changed)
