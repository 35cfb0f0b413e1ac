"""A transcript, WebVTT or SRT, of a meeting as Zoom writes it or of a clip, to utterances.

Read leniently: byte order mark, any line ends, comma or dot before the milliseconds, hours and indices optional, cue
settings, NOTE, STYLE and REGION blocks. The speaker is the `Name:` before the words, or a WebVTT voice tag. Our own
reader because a damaged cue must be named by its line: pysubs2 1.8.1 drops it in silence and loses voice tags,
webvtt-py 0.6.0 refuses SRT without indices and loses words after an arrow.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import DataError
from data_shards.listing import Reject
from data_shards.schema import Stored

__all__ = ["Transcript", "Utterance", "read_text", "read_transcript"]

MAX_BYTES = 20 * 2**20  # a spoken hour takes about 100 kB
MAX_CUES = 100_000
MAX_SPEAKER_LENGTH = 64

_STAMP = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s.*)?", flags=re.ASCII)
# none of these may look beyond the next of what it begins with: a line of a million "<v " would take hours
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s([^<>]+)>")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
_LONG_NUMBER = re.compile(r"&#\d{8,};?")  # of no character, and Python refuses to read thousands of digits
_SPEAKER = re.compile(rf"([^\W\d_][^:\n]{{0,{MAX_SPEAKER_LENGTH - 1}}}):\s+(.*)", flags=re.DOTALL)
_SILENT_BLOCKS = ("NOTE", "STYLE", "REGION", "WEBVTT")


class Utterance(Stored):
    """What was said from start_s to end_s >= start_s, in seconds of the recording; speaker is empty where none is named."""

    start_s: float
    end_s: float
    speaker: str = ""
    text: str = ""


@dataclass(frozen=True)
class Transcript:
    """Utterances in order of their start, and the cues that could not be read, each named by its line."""

    utterances: tuple[Utterance, ...]
    rejects: tuple[Reject, ...] = ()


def read_transcript(path: Path, *, place: str = "", may_be_silent: bool = False) -> Transcript:
    """Read a WebVTT or SRT file. DataError where it is missing, too large, no text, or holds no cue that can be read.

    place: what the errors call the file, its path unless given; may_be_silent: a file with nothing in it but WebVTT's header
    and notes, as programs write it where nobody speaks, gives no utterance instead of an error.
    """
    place = place or str(path)
    utterances: list[Utterance] = []
    rejects: list[Reject] = []
    lines = read_text(path, place=place).splitlines()
    only_silent_blocks = True
    for number, block in _blocks(lines):
        if block[0].split(" ")[0].split("\t")[0] in _SILENT_BLOCKS and "-->" not in block[0]:
            continue
        only_silent_blocks = False
        # the time line comes first, or second after an index or a name; later arrows are words
        at = next((i for i, line in enumerate(block[:2]) if "-->" in line), None)
        if at is None:
            continue
        if len(utterances) == MAX_CUES:
            raise DataError(f"{place} line {number}: over {MAX_CUES} cues, which is no meeting; cut the transcript")
        times = _TIMES.fullmatch(block[at])
        line = f"{path.name} line {number + at}"
        if times is None:
            rejects.append(_reject(line, f"'{block[at].strip()[:60]}' is no pair of time stamps"))
            continue
        start_s, end_s = _seconds(times.groups()[:4]), _seconds(times.groups()[4:])
        if end_s < start_s:  # Whisper writes words that take no time, and they are words
            rejects.append(_reject(line, f"ends at {end_s:g} s, before its start at {start_s:g} s"))
            continue
        speaker, text = _speaker_and_words(block[at + 1 :])
        utterances.append(Utterance(start_s=start_s, end_s=end_s, speaker=speaker, text=text))
    if not utterances and not (may_be_silent and only_silent_blocks):
        if rejects:
            raise DataError(f"{place}: no cue can be read ({rejects[0].reason}); mend the time stamps")
        first = next((f"line {n} is '{line.strip()[:60]}'" for n, line in enumerate(lines, 1) if line.strip()), "it is empty")
        raise DataError(f"{place}: no WebVTT or SRT transcript, no '00:00:01.000 --> 00:00:02.000' in it ({first}); name another")
    utterances.sort(key=lambda utterance: (utterance.start_s, utterance.end_s))
    return Transcript(tuple(utterances), tuple(rejects))


def _blocks(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number of the first line, lines) of each run of lines that are not blank."""
    block: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return (1000 * whole + int((fraction or "0").ljust(3, "0"))) / 1000


def _speaker_and_words(lines: list[str]) -> tuple[str, str]:
    """The speaker, and the words on one line without tags."""
    raw = " ".join(line.strip() for line in lines)
    voice = _VOICE.search(raw)
    plain = " ".join(_unescaped(_TAG.sub("", raw)).replace("\x00", "").split())
    if voice:
        return " ".join(_unescaped(voice[1]).split())[:MAX_SPEAKER_LENGTH], plain
    named = _SPEAKER.fullmatch(plain)
    return (named[1].strip(), named[2]) if named else ("", plain)


def _unescaped(text: str) -> str:
    return html.unescape(_LONG_NUMBER.sub("\N{REPLACEMENT CHARACTER}", text))


def _reject(place: str, reason: str) -> Reject:
    return Reject(clip_id=place, source=place, reason=f"{place}: {reason}; mend it, or this utterance is left out")


def read_text(path: Path, *, place: str) -> str:
    """A transcript file's text, UTF-8 or UTF-16. DataError, which calls the file `place`, where it is none or too large."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{place}: not a plain file; name the transcript's file")
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{place}: over {MAX_BYTES // 2**20} MiB, which is no transcript; name the .vtt or .srt file")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{place}: the transcript cannot be read ({error.strerror}); check its name") from None
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{place}: not text in UTF-8 or UTF-16; save the transcript as UTF-8") from None
