"""What a dataset says before any video is opened: which clips there are, with their labels, subjects and splits."""

from dataclasses import dataclass, field
from pathlib import Path

from data_shards.schema import Stored

__all__ = ["ENGAGEMENT_LEVELS", "SPLITS", "ListedClip", "Listing", "Reject"]

SPLITS = ("train", "validation", "test")
ENGAGEMENT_LEVELS = ("very low", "low", "high", "very high")  # DAiSEE's four levels, label 0 to 3


class Reject(Stored):
    """A clip left out of the shards, and why; one line of `rejects.jsonl`."""

    clip_id: str
    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ListedClip:
    """A labelled clip: a video file, what it shows and to which split it belongs.

    labels: label name to level, e.g. {"engagement": 3}; session: a recording sitting, where the dataset knows it;
    extra: further columns of the dataset's own label file, kept as text.
    """

    clip_id: str
    path: Path
    subject: str
    split: str
    labels: dict[str, int]
    session: str = ""
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All clips of a dataset in their published order, and the entries that could not become clips.

    label_names: label name to the names of its levels, lowest first; simulated: no real person is in any clip.
    """

    dataset: str
    label_names: dict[str, tuple[str, ...]]
    clips: tuple[ListedClip, ...]
    rejects: tuple[Reject, ...] = ()
    simulated: bool = False
