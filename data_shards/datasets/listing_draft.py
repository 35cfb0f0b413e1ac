"""A listing in the making: an entry that cannot become a clip is a reject with its reason, and loses nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from data_shards.datasets.video_files import VIDEO_SUFFIXES
from data_shards.errors import ClipError
from data_shards.listing import ListedClip, Reject

__all__ = ["ListingDraft"]


class ListingDraft:
    """The clips so far, by id in the order of the label file, and the rejects."""

    def __init__(self) -> None:
        self.clips: dict[str, ListedClip] = {}
        self.rejects: list[Reject] = []

    def add(self, clip: ListedClip, *, place: str) -> None:
        """Take a clip in. ClipError where its id is there already."""
        if clip.clip_id in self.clips:
            raise ClipError(f"{place}: clip {clip.clip_id} is labelled a second time; the first one counts")
        self.clips[clip.clip_id] = clip

    @contextmanager
    def entry(self, name: str) -> Iterator[None]:
        """One entry of a label file, by the name it has there: a ClipError in this block becomes its reject."""
        path = PurePosixPath(name)
        clip_id = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else name
        try:
            yield
        except ClipError as error:
            self.rejects.append(Reject(clip_id=clip_id, source=name, reason=str(error)))
