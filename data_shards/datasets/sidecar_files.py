"""What lies beside a dataset's videos for extractors: transcripts and OpenFace CSVs, found by the videos' stems."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data_shards.datasets.video_files import VIDEO_SUFFIXES
from data_shards.errors import ClipError
from data_shards.storage.source import Source, SourceFile

__all__ = ["SidecarFiles", "Sidecars", "transcript_beside"]

_TIMED_SUFFIXES = frozenset([".vtt", ".srt"])
_TRANSCRIPT_FOLDERS = frozenset(["transcripts", "transcript"])
_OPENFACE_FOLDERS = frozenset(["openface"])


class Sidecars(NamedTuple):
    """The files of one clip, named as `ListedClip` names them, and why one of them is lacking though there are some."""

    transcript: SourceFile | None
    openface_csv: SourceFile | None
    unclear: dict[str, str]


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
        """A video's files."""
        path = PurePosixPath(video.name)
        return self._found(path.stem, path)

    def of_stem(self, stem: str) -> Sidecars:
        """The files of a clip that its stem alone tells from all others, there with or without a video."""
        return self._found(stem, None)

    def _found(self, stem: str, video: PurePosixPath | None) -> Sidecars:
        files: dict[str, SourceFile | None] = {}
        unclear: dict[str, str] = {}
        for kind, paths, folders in (
            ("transcript", self._transcripts.get(stem, []), _TRANSCRIPT_FOLDERS),
            ("openface_csv", self._csvs.get(stem, []), _OPENFACE_FOLDERS),
        ):
            try:
                files[kind] = self._one(stem, self._own(video, paths) if video else paths, folders)
            except ClipError as error:  # the clip lacks one file, and is a clip all the same
                unclear[kind] = str(error)
        return Sidecars(files.get("transcript"), files.get("openface_csv"), unclear)

    def _own(self, video: PurePosixPath, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
        """Those of its stem's files that belong to no other video. ClipError where that cannot be told."""
        own = []
        for path in files:
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
        """The file in one of these folders, else the only one. ClipError where there are several."""
        ranked = sorted(paths, key=lambda path: (not _lies_in(path, folders), path))
        if not ranked:
            return None
        if len(ranked) > 1 and _lies_in(ranked[0], folders) == _lies_in(ranked[1], folders):
            raise ClipError(f"clip {stem}: {ranked[0]} and {ranked[1]} both have its name; rename or remove one")
        return self._files[ranked[0].as_posix()]


def transcript_beside(clip: Path) -> Path | None:
    """The transcript of a clip's stem in a folder `transcripts` in the clip's own folder or beside that, else beside the clip.

    For one clip on this machine, where the rest of its dataset is not to be listed. Of several WebVTT goes first, then SRT.
    """
    own = clip.absolute().parent
    named = [
        folder
        for place in (own, own.parent)
        if place.is_dir()
        for folder in sorted(place.iterdir())
        if folder.name.casefold() in _TRANSCRIPT_FOLDERS and folder.is_dir()
    ]
    for folder, suffixes in (*((folder, (".vtt", ".srt", ".json")) for folder in named), (own, (".vtt", ".srt"))):
        files = sorted(file for file in folder.iterdir() if file.stem == clip.stem and file.is_file()) if folder.is_dir() else []
        for suffix in suffixes:
            if found := next((file for file in files if file.suffix.lower() == suffix), None):
                return found
    return None


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
