"""What is said in a clip: its transcript, WebVTT, SRT or JSON, or the text in its label file."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data_shards.errors import ClipError, DataError
from data_shards.transcript import MAX_CUES, read_text, read_transcript

__all__ = ["Words", "read_words"]

_MAX_CHARACTERS = 200_000  # three hours of talk; BERT takes minutes for as much
_LATEST_S = 1e7  # four months
_FORMS = '{"text": "..."}, or a list (or {"segments": [...]}) of {"start": s, "end": s, "text": "..."}'


@dataclass(frozen=True)
class Words:
    """text: all that is said, in order, on one line; speech_s: for how long, None where the transcript has no times."""

    text: str
    speech_s: float | None


class _Cue(NamedTuple):
    start_s: float | None
    end_s: float | None
    text: str


def read_words(transcript: Path | None, text: str) -> Words | None:
    """The words of a clip, None where there are none. ClipError where the transcript cannot be read.

    A transcript goes before the label file's text. JSON is what Whisper writes: {"text": ...}, or segments of start, end
    (seconds) and text, as a list or below "segments". A transcript without any cue says that nobody speaks, and so do cues
    without words. Speakers' names are no part of the text of WebVTT and SRT; everybody's words are.
    speech_s is the union of the cues with words, so two who speak at once are counted once. A cue that cannot be read makes
    the whole transcript unusable: half of the words would be another clip's worth, and nobody would know.
    """
    if transcript is None:
        cues = [_Cue(None, None, text)]
    elif transcript.suffix.lower() == ".json":
        cues = _json_cues(transcript)
    else:
        cues = _timed_cues(transcript)
    spoken = [cue for cue in (cue._replace(text=" ".join(cue.text.split())) for cue in cues) if cue.text]
    if not spoken:
        return None
    words = " ".join(cue.text for cue in spoken)
    if len(words) > _MAX_CHARACTERS:
        place = transcript.name if transcript else "the text in the label file"
        raise ClipError(f"{place}: {len(words):,} characters, over the limit of {_MAX_CHARACTERS:,} for one clip; cut it")
    return Words(words, _union_s(spoken))


def _union_s(cues: Iterable[_Cue]) -> float | None:
    """Seconds in which any cue runs; None where one has no times."""
    total_s = reached_s = 0.0
    for start_s, end_s, _ in sorted(cues, key=lambda cue: cue.start_s or 0.0):
        if start_s is None or end_s is None:
            return None
        total_s += max(0.0, end_s - max(start_s, reached_s))
        reached_s = max(reached_s, end_s)
    return total_s


def _timed_cues(path: Path) -> list[_Cue]:
    try:
        found = read_transcript(path, place=path.name, may_be_silent=True)
    except DataError as error:
        raise ClipError(str(error)) from None
    if found.rejects:
        raise ClipError(found.rejects[0].reason.split(";")[0] + "; mend the transcript")
    return [_Cue(cue.start_s, cue.end_s, cue.text) for cue in found.utterances]


def _json_cues(path: Path) -> list[_Cue]:
    try:
        content = json.loads(read_text(path, place=path.name))
    except DataError as error:
        raise ClipError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ClipError(f"{path.name}: not readable as JSON ({str(error)[:80]}); write the transcript again") from None
    segments = content
    if isinstance(content, dict):
        segments = content.get("segments")
        if segments is None or ("text" in content and not segments):
            segments = [content]
    if not isinstance(segments, list):
        raise ClipError(f"{path.name}: no transcript; write {_FORMS}")
    if len(segments) > MAX_CUES:
        raise ClipError(f"{path.name}: over {MAX_CUES} segments, which is no clip; cut the transcript")
    cues = [_json_cue(segment, f"{path.name} segment {number}") for number, segment in enumerate(segments, start=1)]
    if all(cue.start_s is not None for cue in cues):
        cues.sort(key=lambda cue: cue.start_s or 0.0)
    return cues


def _json_cue(segment: Any, place: str) -> _Cue:
    if not isinstance(segment, dict) or not isinstance(segment.get("text"), str):
        raise ClipError(f"{place}: no object with a text; write {_FORMS}")
    if segment.get("start") is None and segment.get("end") is None:
        return _Cue(None, None, segment["text"])
    start_s, end_s = (_time_s(segment, name, place) for name in ("start", "end"))
    if end_s < start_s:
        raise ClipError(f"{place}: ends at {end_s:g} s, before its start at {start_s:g} s; mend the transcript")
    return _Cue(start_s, end_s, segment["text"])


def _time_s(segment: dict[str, Any], name: str, place: str) -> float:
    time = segment.get(name)
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time <= _LATEST_S:
        raise ClipError(f"{place}: {name} is '{str(time)[:40]}', no number of seconds; mend the transcript")
    return float(time)
