"""The videos of a dataset by their stem, which is how published label files name them."""

from collections.abc import Collection
from pathlib import PurePosixPath

from data_shards.errors import ClipError
from data_shards.listing import Reject
from data_shards.storage.source import Source, SourceFile

__all__ = ["VIDEO_SUFFIXES", "VideoFiles", "stem_of"]

VIDEO_SUFFIXES = frozenset([".avi", ".mp4", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".ts", ".3gp"])
_SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}  # as published, in whatever case


class VideoFiles:
    """Every video below `source`, or below folders called `within` where there is one."""

    def __init__(self, source: Source, *, within: str = "") -> None:
        names = [PurePosixPath(name) for name in source.files if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES]
        if any(within in PurePosixPath(name).parts[:-1] for name in source.files):
            names = [name for name in names if within in name.parts[:-1]]
        self.by_stem: dict[str, list[SourceFile]] = {}
        for name in names:
            self.by_stem.setdefault(name.stem, []).append(source.files[name.as_posix()])

    def find(self, stem: str) -> SourceFile | None:
        """The video of that stem, None where there is none. ClipError where there are several."""
        found = self.by_stem.get(stem, [])
        if len(found) > 1:
            raise ClipError(f"clip {stem}: {found[0].name} and {found[1].name} have one name; rename or remove one")
        return found[0] if found else None

    def get(self, stem: str, *, place: str) -> SourceFile:
        """The video of that stem. ClipError where there is none or several."""
        video = self.find(stem)
        if video is None:
            raise ClipError(f"clip {stem}: labelled in {place}, but no video of that name is there")
        return video

    def split_of(self, video: SourceFile) -> str:
        """The split whose folder a video lies in, the innermost where several do; empty where none does."""
        folders = [part.casefold() for part in PurePosixPath(video.name).parts[:-1]]
        return next((_SPLIT_FOLDERS[folder] for folder in reversed(folders) if folder in _SPLIT_FOLDERS), "")

    def check_split(self, video: SourceFile, stem: str, split: str, *, place: str) -> None:
        """ClipError where a video lies in the folder of another split than its label file puts it into."""
        published = self.split_of(video)
        if published and published != split:
            raise ClipError(f"clip {stem}: lies in the {published} folder, but {place} puts it into {split}")

    def unlabelled(self, labelled: Collection[str]) -> list[Reject]:
        """A reject for every video whose stem is not among the labelled ones."""
        return [
            Reject(clip_id=stem, source=video.name, reason=f"clip {stem}: has no line in any label file")
            for stem, videos in sorted(self.by_stem.items())
            for video in videos
            if stem not in labelled
        ]


def stem_of(text: str, *, place: str) -> str:
    """The stem of a file name in a label file. ClipError where it is empty or names a folder: clips are found by name."""
    name = PurePosixPath(text.replace("\\", "/"))
    if len(name.parts) != 1 or not name.stem.strip("."):
        raise ClipError(f"{place}: '{text[:80]}' is no file name; write the clip's name without its folder")
    return name.stem
