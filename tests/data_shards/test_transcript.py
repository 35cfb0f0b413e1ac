"""Transcripts as meeting programs and people write them, and files that are none."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import DataError
from data_shards.transcript import MAX_BYTES, Transcript, read_transcript

ZOOM = "WEBVTT\n\n1\n00:00:01.230 --> 00:00:04.560\nAnna Maria: hello all\n\n2\n00:00:05.000 --> 01:00:06.000\nBob: a --> b\n"
EXPECTED = [(1.23, 4.56, "Anna Maria", "hello all"), (5.0, 3606.0, "Bob", "a --> b")]


def read(tmp_path: Path, content: str | bytes) -> list[tuple[float, float, str, str]]:
    path = tmp_path / "meeting.vtt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(u.start_s, u.end_s, u.speaker, u.text) for u in read_transcript(path).utterances]


@pytest.mark.parametrize(
    "content",
    [
        ZOOM,
        ZOOM.replace("\n", "\r\n"),
        ZOOM.replace("\n", "\r"),
        ZOOM.encode("utf-8-sig"),
        ZOOM.encode("utf-16"),
        ZOOM.replace("WEBVTT\n", "WEBVTT - a title\nKind: captions\n"),
        ZOOM.replace("WEBVTT\n\n", ""),  # SRT with dots, as Zoom saves captions
        ZOOM.replace("WEBVTT\n\n", "").replace(".", ","),  # SRT
        ZOOM.replace("\n1\n", "\n").replace("\n2\n", "\n"),  # no indices
        ZOOM.replace("04.560", "04.560 align:start position:10%"),
        ZOOM.replace("00:00:01.230 --> 00:00:04.560", "00:01.230-->0:04.56"),
        ZOOM.replace("\n\n1\n", "\n\nNOTE made by hand\n00:01 --> never\n\nSTYLE\n::cue { color: red }\n\nfirst cue\n"),
        ZOOM.replace("Anna Maria: hello all", "<v.loud Anna Maria>hello <b>all</b></v>"),
        ZOOM.replace("hello all", "hello\nall"),
        ZOOM + "\n\n\n",
    ],
)
def test_every_spelling_of_a_transcript_is_read(tmp_path: Path, content: str | bytes) -> None:
    assert read(tmp_path, content) == EXPECTED


def test_words_without_a_speaker_keep_their_colons_and_numbers(tmp_path: Path) -> None:
    text = "00:00:01,000 --> 00:00:02,000\nat 12:30 I said &amp; meant\n42\n"
    assert read(tmp_path, text) == [(1.0, 2.0, "", "at 12:30 I said & meant 42")]


def test_overlapping_utterances_are_kept_in_order_of_their_start(tmp_path: Path) -> None:
    text = "00:03.000 --> 00:09.000\nBob: two\n\n00:01.000 --> 00:05.000\nAnna: one\n"
    assert [u[2] for u in read(tmp_path, text)] == ["Anna", "Bob"]


def test_damaged_cues_are_named_by_their_line_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text(ZOOM + "\n3\n00:00:0x.000 --> 00:00:09.000\nBob: lost\n\n4\n00:00:09.000 --> 00:00:08.000\nBob: back\n")
    transcript = read_transcript(path)
    assert len(transcript.utterances) == 2
    assert [reject.reason.split(";")[0] for reject in transcript.rejects] == [
        "a.vtt line 12: '00:00:0x.000 --> 00:00:09.000' is no pair of time stamps",
        "a.vtt line 16: ends at 8 s, before its start at 9 s",
    ]


@pytest.mark.parametrize("content", ["", "WEBVTT\n\nNOTE nobody speaks\n", "\ufeffWEBVTT - title\nKind: captions\n"])
def test_a_transcript_in_which_nobody_speaks_is_read_where_that_may_be(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text(content, encoding="utf-8")
    assert read_transcript(path, may_be_silent=True) == Transcript(())
    with pytest.raises(DataError, match=r"a\.vtt: no WebVTT or SRT transcript"):
        read_transcript(path)


def test_a_file_without_cues_that_says_something_else_is_no_silent_transcript(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text("WEBVTT\n\nhello all\n")
    with pytest.raises(DataError, match=r"^the minutes: no WebVTT or SRT transcript"):
        read_transcript(path, place="the minutes", may_be_silent=True)


@pytest.mark.parametrize(
    "piece", ["<v ", "<v.", "<v   ", "<b", "</", "<1:", "{\\", "<v a {\\", "&#1", " ", "Anna ", "<v\t."], ids=repr
)
def test_a_line_of_a_million_characters_is_read_in_one_go(tmp_path: Path, piece: str) -> None:
    long = piece * (1_000_000 // len(piece))
    began_s = time.process_time()
    ((start_s, *_),) = read(tmp_path, f"00:01.000 --> 00:02.000\n<v{long}x\n")
    assert start_s == 1
    assert time.process_time() - began_s < 20  # hours where a pattern looks at the rest of the line again and again


def test_a_character_of_a_number_that_none_has_is_no_word(tmp_path: Path) -> None:
    assert read(tmp_path, f"00:01.000 --> 00:02.000\na &#38; &#{'9' * 5000}; b\n") == [(1.0, 2.0, "", "a & \ufffd b")]


def test_words_that_take_no_time_are_kept(tmp_path: Path) -> None:
    assert read(tmp_path, "00:01.000 --> 00:01.000\nyes\n") == [(1.0, 1.0, "", "yes")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is empty"),
        (b"\n\nDear all,\nwelcome", r"line 3 is 'Dear all,'"),
        (b"WEBVTT\n", "no WebVTT or SRT transcript"),
        (b"1\n00:00 -> 00:01\nhello", "no WebVTT or SRT transcript"),
        (b"00:00:01.000 --> soon\nhello", r"line 1: '00:00:01.000 --> soon' is no pair of time stamps"),
        (b"\x00\x00\x00\x20ftypisom\xff\xfe", "not text"),
        (b"a" * (MAX_BYTES + 1), "over 20 MiB"),
    ],
)
def test_what_is_no_transcript_gets_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read(tmp_path, content)


def test_a_missing_transcript_and_a_folder_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_transcript(tmp_path / "none.vtt")
    with pytest.raises(DataError, match="not a plain file"):
        read_transcript(tmp_path)


@given(content=st.text(alphabet="WEBVTT01:.,-> \n\rN{<v/", max_size=200) | st.binary(max_size=100))
def test_no_content_ends_in_anything_but_utterances_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    try:
        utterances = read(tmp_path_factory.mktemp("t"), content)
    except DataError:
        return
    assert utterances
    assert all(start <= end for start, end, _, _ in utterances)
