"""What is said in a clip: every form of a transcript says the same, and what cannot be read is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.errors import ClipError
from data_shards.extraction.words import Words, read_words

VTT = "WEBVTT\n\n00:00.500 --> 00:01.250\nset white\n\nNOTE a pause\n\n00:01.750 --> 00:02.500\n<b>in z</b>\nthree now\n"
SRT = "1\n00:00:00,500 --> 00:00:01,250\nset white\n\n2\n00:00:01,750 --> 00:00:02,500\nin z three now\n"
SEGMENTS = [{"start": 0.5, "end": 1.25, "text": " set white"}, {"start": 1.75, "end": 2.5, "text": " in z\nthree now", "id": 1}]
GRID = "set white in z three now"


def read(folder: Path, name: str, content: Any, text: str = "") -> Words | None:
    path = folder / name
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    return read_words(path, text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.vtt", VTT),
        ("a.VTT", VTT.encode("utf-16")),
        ("a.srt", SRT),
        ("a.srt", SRT.replace("\n", "\r\n").encode("utf-8-sig")),
        ("a.json", SEGMENTS),
        ("a.json", SEGMENTS[::-1]),
        ("a.json", {"segments": SEGMENTS}),
        ("a.json", {"text": "as a whole", "language": "en", "segments": SEGMENTS}),
        ("a.json", json.dumps(SEGMENTS).encode("utf-8-sig")),
    ],
)
def test_every_form_with_times_says_the_same(name: str, content: Any, tmp_path: Path) -> None:
    assert read(tmp_path, name, content, text="the label file's") == Words(GRID, 1.5)


@pytest.mark.parametrize(
    "content", [{"text": f" {GRID}\n"}, {"text": GRID, "segments": []}, {"text": GRID, "segments": None}, [{"text": GRID}]]
)
def test_json_without_times_says_the_words_alone(content: Any, tmp_path: Path) -> None:
    assert read(tmp_path, "a.json", content) == Words(GRID, None)


def test_text_of_the_label_file_counts_where_there_is_no_transcript() -> None:
    assert read_words(None, f"  {GRID} \n") == Words(GRID, None)
    assert read_words(None, " \n") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.vtt", "WEBVTT\n\nNOTE simulated\n"),
        ("a.vtt", "WEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red }\n"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n<i> </i>\n"),
        ("a.srt", ""),
        ("a.srt", "\n\n"),
        ("a.json", {"text": ""}),
        ("a.json", {"text": "", "segments": []}),
        ("a.json", {"segments": []}),
        ("a.json", []),
        ("a.json", [{"start": 0, "end": 1, "text": " "}]),
    ],
)
def test_a_transcript_without_words_says_that_nobody_speaks(name: str, content: Any, tmp_path: Path) -> None:
    assert read(tmp_path, name, content, text="the label file's") is None


def test_speech_is_the_union_of_its_cues(tmp_path: Path) -> None:
    cues = [(0.0, 2.0, "a"), (1.0, 1.5, "b"), (1.5, 3.0, "c"), (4.0, 5.0, "d"), (6.0, 6.0, "e"), (7.0, 9.0, " ")]
    words = read(tmp_path, "a.json", [{"start": start, "end": end, "text": text} for start, end, text in cues])
    assert words == Words("a b c d e", 4.0)
    vtt = "\n\n".join(f"00:{start:06.3f} --> 00:{end:06.3f}\n{text}" for start, end, text in cues)
    assert read(tmp_path, "a.vtt", vtt) == words


def test_speakers_are_not_read_out_and_everybody_is_heard(tmp_path: Path) -> None:
    vtt = "WEBVTT\n\n00:00.000 --> 00:01.000\nAnna: hello\n\n00:01.000 --> 00:02.000\n<v Bob>hello Anna</v>\n"
    assert read(tmp_path, "a.vtt", vtt) == Words("hello hello Anna", 2.0)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.vtt", "WEBVTT\n\n00:00.000 --> soon\nhello\n", r"^a\.vtt: no cue can be read \(a\.vtt line 3"),
        ("a.vtt", VTT + "\n00:09.000 --> 00:08.000\nhello\n", r"^a\.vtt line 12: ends at 8 s, before its start at 9 s; mend"),
        ("a.srt", "Dear all,\nwelcome", r"^a\.srt: no WebVTT or SRT transcript"),
        ("a.vtt", "WEBVTT\n\nhello", r"^a\.vtt: no WebVTT or SRT transcript"),
        ("a.srt", b"\x00\x81\xfe\xff", r"^a\.srt: not text in UTF-8"),
        ("a.json", "", r"^a\.json: not readable as JSON"),
        ("a.json", "{'text': 'a'}", r"^a\.json: not readable as JSON"),
        ("a.json", "[" * 100_000, r"^a\.json: not readable as JSON"),
        ("a.json", "9" * 10_000, r"^a\.json: not readable as JSON"),
        ("a.json", b"\x81\xfe", r"^a\.json: not text in UTF-8"),
        ("a.json", "12", r"^a\.json: no transcript; write"),
        ("a.json", {}, r"^a\.json segment 1: no object with a text"),
        ("a.json", {"text": 3}, r"^a\.json segment 1: no object with a text"),
        ("a.json", {"segments": {"text": "a"}}, r"^a\.json: no transcript; write"),
        ("a.json", {"segments": [{"name": "nod", "start_s": 0, "end_s": 1}]}, r"segment 1: no object with a text"),
        ("a.json", ["hello"], r"^a\.json segment 1: no object with a text"),
        ("a.json", [*SEGMENTS, {"start": "0", "end": 1, "text": "a"}], r"^a\.json segment 3: start is '0', no number"),
        ("a.json", [{"start": 0, "text": "a"}], r"segment 1: end is 'None', no number"),
        ("a.json", [{"start": -1, "end": 1, "text": "a"}], r"segment 1: start is '-1', no number"),
        ("a.json", [{"start": True, "end": 1, "text": "a"}], r"segment 1: start is 'True', no number"),
        ("a.json", '[{"start": 0, "end": NaN, "text": "a"}]', r"segment 1: end is 'nan', no number"),
        ("a.json", '[{"start": 0, "end": 1e999, "text": "a"}]', r"segment 1: end is 'inf', no number"),
        ("a.json", [{"start": 0, "end": 10**400, "text": "a"}], r"segment 1: end is '1000.*', no number"),
        ("a.json", [{"start": 2, "end": 1, "text": "a"}], r"segment 1: ends at 1 s, before its start at 2 s; mend"),
        ("a.json", [{"text": "a"}] * 100_001, r"^a\.json: over 100000 segments"),
        ("a.json", {"text": "a " * 100_001}, r"^a\.json: 200,001 characters, over the limit of 200,000"),
        ("a.json", b" " * (20 * 2**20 + 1), r"^a\.json: over 20 MiB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_transcript_that_cannot_be_read_is_a_sentence(name: str, content: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=sentence) as raised:
        read(tmp_path, name, content)
    assert str(tmp_path) not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_transcript_and_too_long_a_text_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"^none\.json: the transcript cannot be read \(No such file"):
        read_words(tmp_path / "none.json", "")
    with pytest.raises(ClipError, match="the text in the label file: 200,001 characters"):
        read_words(None, "a" * 200_001)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "segments", "start", "end"]), inner),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=values)
def test_any_json_ends_in_words_or_a_sentence(content: Any, tmp_path: Path) -> None:
    try:
        words = read(tmp_path, "a.json", json.dumps(content))
    except ClipError:
        return
    if words:
        assert words.text.strip()
        assert words.speech_s is None or 0 <= words.speech_s < float("inf")
