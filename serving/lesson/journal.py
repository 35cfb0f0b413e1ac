"""What a lesson's job knows so far, on disk: numbers as JSON lines, and where its watch goes on.

windows.jsonl   a line a window, numbers alone
watch.json      what a Watch said last (`watch_state.py`), written when all windows before it are on the disk
lesson.json     which model and settings they are of, and the time that was spent before
clips/          of the window that is being scored, where the model reads more than frames
All of them are worth nothing without the recording, and are deleted with it.
"""

import json
import os
import shutil
from pathlib import Path

from data_shards.atomic import write_whole
from data_shards.errors import ShardError
from data_shards.schema import Stored
from serving.answer import Window
from serving.lesson.record import Tile
from serving.lesson.watch import LessonSettings

__all__ = ["Journal", "LessonHead", "ScoredPerson", "ScoredWindow"]


class ScoredPerson(Stored):
    """A person in a window of the lesson, by the number of their track."""

    track: int
    tile: Tile
    window: Window


class ScoredWindow(Stored):
    """A window of the lesson with everybody in it."""

    number: int
    start_s: float
    end_s: float
    people: tuple[ScoredPerson, ...]


class LessonHead(Stored):
    """What the numbers are of; others do not go on with them. recording: its size in bytes and its time of writing."""

    model: str
    settings: LessonSettings
    recording: tuple[int, int]


class _Mark(Stored):
    next_window: int
    took_s: float
    state: str


class Journal:
    """The files of one lesson in a folder. `open` it first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.windows: list[ScoredWindow] = []
        self.state: bytes | None = None
        self.took_s = 0.0

    def open(self, head: LessonHead) -> None:
        """Read what an earlier run of the same left whole; anything else is begun anew."""
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.clips, ignore_errors=True)  # of a killed child
        self.clips.mkdir()
        try:
            if (self._folder / "lesson.json").read_bytes() == head.to_bytes():
                mark = _Mark.from_bytes((self._folder / "watch.json").read_bytes(), origin="watch.json")
                self._read_windows(mark)
        except (OSError, ShardError, json.JSONDecodeError):  # half a line, or none: it costs the time to do it again
            self.windows, self.state, self.took_s = [], None, 0.0
        if self.state is None:
            (self._folder / "watch.json").unlink(missing_ok=True)
            write_whole(self._folder / "lesson.json", head.to_bytes())
        lines = b"".join(window.to_bytes() for window in self.windows)
        write_whole(self._folder / "windows.jsonl", lines)  # without what was written after the mark

    @property
    def clips(self) -> Path:
        """Where the child may write."""
        return self._folder / "clips"

    def add(self, window: ScoredWindow) -> None:
        """A window's numbers, at the end of the file."""
        self.windows.append(window)
        with (self._folder / "windows.jsonl").open("ab") as file:
            file.write(window.to_bytes())
            file.flush()

    def mark(self, state: bytes, *, next_window: int, took_s: float) -> None:
        """All windows before next_window are there: from here a killed job goes on."""
        with (self._folder / "windows.jsonl").open("rb") as file:
            os.fsync(file.fileno())
        write_whole(self._folder / "watch.json", _Mark(next_window=next_window, took_s=took_s, state=state.decode()).to_bytes())

    def _read_windows(self, mark: _Mark) -> None:
        lines = (self._folder / "windows.jsonl").read_bytes().splitlines(keepends=True)[: mark.next_window]
        windows = [ScoredWindow.from_bytes(line, origin="windows.jsonl") for line in lines]
        if [window.number for window in windows] == list(range(mark.next_window)):
            self.windows, self.state, self.took_s = windows, mark.state.encode(), mark.took_s
