"""What a dataset says before any video is opened: which clips there are, with their labels, subjects and splits."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from data_shards.schema import Stored
from data_shards.storage.source import SourceFile

__all__ = [
    "ENGAGEMENT_LEVELS",
    "NO_LEVEL",
    "SPLITS",
    "Extractors",
    "FeatureFile",
    "ListedClip",
    "Listing",
    "Origin",
    "Reject",
]

SPLITS = ("train", "validation", "test")
ENGAGEMENT_LEVELS = ("very low", "low", "high", "very high")  # DAiSEE's four levels, label 0 to 3
Extractors = dict[str, dict[str, JsonValue]]  # input to what made it: name, version, settings
NO_LEVEL = -1  # a clip that is not labelled with one of a label's levels; training leaves it out


class Reject(Stored):
    """A clip left out of the shards, and why; one line of `rejects.jsonl`."""

    clip_id: str
    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FeatureFile:
    """A file that holds features of one clip, and how it is read: a name in `data_shards.features.READERS`."""

    file: SourceFile
    reader: Literal["openface_csv"]


@dataclass(frozen=True, kw_only=True)
class ListedClip:
    """A labelled clip: a video, features somebody computed from it, or both, and to which split it belongs.

    labels: label name to level, e.g. {"engagement": 3}, or NO_LEVEL; session: a recording sitting, where the dataset
    knows it; extra: further columns of the dataset's own label file, kept as text; features: name to float32 array, or
    to the file that holds it. transcript and openface_csv are there for extractors alone: building does not open them;
    unclear: which of these two it lacks because it cannot be told which file is the clip's, and why.
    """

    clip_id: str
    subject: str
    split: str
    labels: dict[str, int]
    video: SourceFile | None = None
    features: dict[str, npt.NDArray[np.float32] | FeatureFile] = field(default_factory=dict, compare=False)
    session: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    transcript: SourceFile | None = None
    openface_csv: SourceFile | None = None
    unclear: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, SourceFile]:
        """What there is to extract features from: `video`, `transcript` and `openface_csv`, those there are."""
        named = {"video": self.video, "transcript": self.transcript, "openface_csv": self.openface_csv}
        return {name: file for name, file in named.items() if file is not None}

    @property
    def source_name(self) -> str:
        """What the clip is called where it came from, for a person to find it."""
        return self.video.name if self.video else self.clip_id


class Origin(Stored):
    """Where a listing comes from. dataset: a name in DATASETS; source: the folder or bucket that was listed."""

    dataset: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All clips of a dataset in their published order, and the entries that could not become clips.

    label_names: label name to the names of its levels, lowest first; simulated: no real person is in any clip;
    notice: what a reader of any figure on this dataset must know; extractors: feature name to who computed it.
    """

    dataset: str
    label_names: dict[str, tuple[str, ...]]
    clips: tuple[ListedClip, ...]
    rejects: tuple[Reject, ...] = ()
    simulated: bool = False
    notice: str = ""
    extractors: Extractors = field(default_factory=dict)
    origin: Origin | None = None
