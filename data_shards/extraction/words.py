"""What is said in a clip: its transcript, WebVTT, SRT or JSON, or the text in its label file."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Words", "read_words"]


@dataclass(frozen=True)
class Words:
    """text: all that is said, in order; speech_s: for how long, None where the transcript has no times."""

    text: str
    speech_s: float | None


def read_words(transcript: Path | None, text: str) -> Words | None:
    """The words of a clip, None where there are none. ClipError where the transcript cannot be read."""
    raise NotImplementedError(transcript, text)
