"""What an extractor is: from one clip's pictures, sound and words to one array of features.

Letters: N frames of a portion, H height, W width, C = 3 RGB channels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from data_shards.decode_stream import StreamInfo
from data_shards.errors import ClipError
from data_shards.extraction.sound import Sound, read_sound
from data_shards.extraction.words import Words, read_words
from data_shards.schema import Stored

__all__ = ["ClipMaterial", "Extractor", "ExtractorSettings", "Reading"]

Floats = npt.NDArray[np.float32]


class ExtractorSettings(Stored):
    """What an extractor can be told; stored in the manifest and in every bundle that reads its feature, so that a served
    clip goes through the same. Paths of weights and models are no part of it: their sha256 is."""


@dataclass(frozen=True, kw_only=True)
class ClipMaterial:
    """What there is of one clip, on this machine. Sound and words are read once, when first asked for.

    transcript: WebVTT, SRT or JSON; text: what was said, where the label file itself says it; openface_csv: what
    OpenFace's FeatureExtraction wrote. unclear: as in ListedClip, the kinds of file of which it cannot be told which is the
    clip's, and why.
    """

    name: str
    video: Path | None = None
    transcript: Path | None = None
    text: str = ""
    openface_csv: Path | None = None
    unclear: dict[str, str] = field(default_factory=dict)

    @cached_property
    def sound(self) -> Sound | None:
        """The clip's sound, None where it has no sound track. ClipError where it is damaged."""
        return read_sound(self.video) if self.video else None

    @cached_property
    def words(self) -> Words | None:
        """What is said, None where nobody says so. ClipError where the transcript cannot be read, or is one of several."""
        if "transcript" in self.unclear:
            raise ClipError(self.unclear["transcript"])
        return read_words(self.transcript, self.text)


class Reading:
    """One clip under one extractor: `see` is called with the pictures in order, then `finish` once."""

    def see(self, frames_NHWC: npt.NDArray[np.uint8], times_N: npt.NDArray[np.float64]) -> None:
        """The next N upright RGB frames, at most `fps` a second, and their seconds from the clip's start, which are even: the
        centres of the parts of time at which a frame is on screen. One that stays longer comes again."""
        raise AssertionError(f"{type(self).__name__} looks at no pictures")

    def finish(self) -> Floats | None:
        """The feature, its first axis time where it has one; None where the clip has no such thing (`lacking` says why)."""
        raise AssertionError(f"{type(self).__name__} does not define finish")

    lacking: str = ""  # after finish: why there is none, e.g. "no sound track"


class Extractor(ABC):
    """One process's extractor of one feature, its weights loaded. A context manager: what it holds is freed at the end.

    settings_type names what it can be told; fps: how many frames a second it looks at, None where it looks at none.
    """

    settings_type: ClassVar[type[ExtractorSettings]]
    fps: float | None = None

    def __init__(self, settings: Any) -> None:
        """Load what it needs. ConfigError where that is not there: what, where, what to do."""
        self.settings = settings

    @staticmethod
    def needs_only_the_clip(settings: Any) -> bool:
        """Whether any video can be put through it: a served clip comes without files that others made of it."""
        return True

    @property
    def about(self) -> dict[str, JsonValue]:
        """What the manifest says of it beside its name and settings: versions, sha256 of weights, columns, units."""
        return {}

    @abstractmethod
    def read(self, clip: ClipMaterial, stream: StreamInfo | None) -> Reading:
        """Start on a clip; stream: what is known of its pictures, None where there is no video."""

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Free what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
