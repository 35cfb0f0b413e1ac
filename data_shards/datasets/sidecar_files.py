"""What lies beside a dataset's videos for extractors: transcripts and OpenFace CSVs, found by the videos' stems."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from data_shards.datasets.video_files import VIDEO_SUFFIXES
from data_shards.errors import ClipError
from data_shards.storage.source import Source, SourceFile

__all__ = ["SidecarFiles", "Sidecars"]

_TIMED_SUFFIXES = frozenset([".vtt", ".srt"])
_TRANSCRIPT_FOLDERS = frozenset(["transcripts", "transcript"])
_OPENFACE_FOLDERS = frozenset(["openface"])


class Sidecars(NamedTuple):
    """The files of one clip, named as `ListedClip` names them."""

    transcript: SourceFile | None
    openface_csv: SourceFile | None


class SidecarFiles:
    """Every .vtt, .srt and .csv below `source`, and every .json in a folder `transcripts`, by its stem.

    A file belongs to the video of its stem, wherever both lie. Of several files of one kind, the one in a folder called
    `transcripts` or `openface` counts. Where several videos have one stem, a file belongs to the one with which it shares
    most folder names, counted from the file upwards: transcripts/train/1.vtt to clips/train/1.mp4, not to clips/test/1.mp4.
    [choice] JSON counts in that folder alone, because elsewhere it may be anything about a clip, such as the behaviour
    behind a simulated one; nothing is opened to find out. A label file is taken for a CSV of a video only where it has
    the video's very name.
    """

    def __init__(self, source: Source) -> None:
        self._files = source.files
        self._videos: dict[str, list[PurePosixPath]] = {}
        self._transcripts: dict[str, list[PurePosixPath]] = {}
        self._csvs: dict[str, list[PurePosixPath]] = {}
        for path in map(PurePosixPath, source.files):
            suffix = path.suffix.lower()
            if suffix in VIDEO_SUFFIXES:
                self._videos.setdefault(path.stem, []).append(path)
            elif suffix in _TIMED_SUFFIXES or (suffix == ".json" and _lies_in(path, _TRANSCRIPT_FOLDERS)):
                self._transcripts.setdefault(path.stem, []).append(path)
            elif suffix == ".csv":
                self._csvs.setdefault(path.stem, []).append(path)

    def of(self, video: SourceFile) -> Sidecars:
        """A video's files. ClipError where it cannot be told which file is the video's."""
        path = PurePosixPath(video.name)
        return Sidecars(
            transcript=self._one(path.stem, self._own(path, self._transcripts), _TRANSCRIPT_FOLDERS),
            openface_csv=self._one(path.stem, self._own(path, self._csvs), _OPENFACE_FOLDERS),
        )

    def transcript_of(self, stem: str) -> SourceFile | None:
        """The transcript of a clip that its stem alone tells from all others, there with or without a video."""
        return self._one(stem, self._transcripts.get(stem, []), _TRANSCRIPT_FOLDERS)

    def openface_of(self, stem: str) -> SourceFile | None:
        """The OpenFace CSV of such a clip."""
        return self._one(stem, self._csvs.get(stem, []), _OPENFACE_FOLDERS)

    def _own(self, video: PurePosixPath, files: dict[str, list[PurePosixPath]]) -> list[PurePosixPath]:
        """The files of the video's stem that belong to no other video."""
        own = []
        for path in files.get(video.stem, []):
            rivals = [other for other in self._videos.get(video.stem, []) if other != video]
            nearness = _num_shared_folders(path, video)
            nearest = max((_num_shared_folders(path, other) for other in rivals), default=-1)
            if nearness == nearest:
                other = next(other for other in rivals if _num_shared_folders(path, other) == nearest)
                raise ClipError(f"{path}: may belong to {video} or to {other}; rename one of the videos, and the file with it")
            if nearness > nearest:
                own.append(path)
        return own

    def _one(self, stem: str, paths: Iterable[PurePosixPath], folders: frozenset[str]) -> SourceFile | None:
        """The file in one of these folders, else the only one."""
        ranked = sorted(paths, key=lambda path: (not _lies_in(path, folders), path))
        if not ranked:
            return None
        if len(ranked) > 1 and _lies_in(ranked[0], folders) == _lies_in(ranked[1], folders):
            raise ClipError(f"clip {stem}: {ranked[0]} and {ranked[1]} both have its name; rename or remove one")
        return self._files[ranked[0].as_posix()]


def _lies_in(path: PurePosixPath, folders: frozenset[str]) -> bool:
    return any(part.casefold() in folders for part in path.parts[:-1])


def _num_shared_folders(one: PurePosixPath, other: PurePosixPath) -> int:
    """How many folder names two files share, counted from the files upwards."""
    shared = 0
    for mine, theirs in zip(reversed(one.parts[:-1]), reversed(other.parts[:-1]), strict=False):
        if mine != theirs:
            break
        shared += 1
    return shared
