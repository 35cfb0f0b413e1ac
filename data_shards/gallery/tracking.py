"""Regions of one picture after another to people: who is where from when to when.

Letters: P pixels of a small picture, C = 3 RGB channels.

[choice] A person is known again by the whole picture in the tile, not by the face: between two looks half a second
apart a webcam's picture hardly changes, wherever the tile has moved and however large it is drawn. Measured on the real
clips as 24x24 RGB, the mean difference is at most 4 of 256 levels within a webcam clip, at most 21 with a moving camera,
and at least 40 between two people. So no face is ever compared with another, and nothing biometric is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data_shards.gallery.layout import Box, overlap
from data_shards.schema import Stored

__all__ = ["Person", "Region", "TileSpan", "Tracker"]

SAME_PLACE_LEVELS = 32.0  # mean difference up to which a tile in its place shows the same person
MOVED_LEVELS = 15.0  # and up to which a tile elsewhere, or after an absence, does
SAME_PLACE_OVERLAP = 0.3
MIN_FACE_S = 1.0  # a face seen for less in all is no person: a picture on a slide, a mistake of the detector
MAX_HOLE_S = 1.5  # a tile that was missed for so long and is back in its place was there


@dataclass(frozen=True)
class Region:
    """A part of one picture in which a person may be.

    is_tile: its borders are the image's own, so they are kept only within 15 %; a box around a face is kept within 50 %.
    """

    box: Box
    has_face: bool
    picture_PC: npt.NDArray[np.float32]
    is_tile: bool = True

    @property
    def keep_overlap(self) -> float:
        """The overlap down to which the box of the look before is kept, so that a clip does not tremble."""
        return 0.85 if self.is_tile else 0.5


class TileSpan(Stored):
    """From start_s to end_s a person's tile was at `box`."""

    start_s: float
    end_s: float
    box: Box


class Person(Stored):
    """Where a person's tile was over time, and when their face was seen: (start_s, end_s) each, in order."""

    subject: str
    tiles: tuple[TileSpan, ...]
    faces: tuple[tuple[float, float], ...]


@dataclass
class _Track:
    """A person so far. `open_since` and `face_since` are None while the tile or the face is not seen."""

    box: Box
    picture_PC: npt.NDArray[np.float32]
    seen_s: float
    open_since: float | None = None
    face_since: float | None = None
    tiles: list[TileSpan] = field(default_factory=list)
    faces: list[tuple[float, float]] = field(default_factory=list)

    def close_tile(self, time_s: float) -> None:
        if self.open_since is not None and time_s > self.open_since:
            last = self.tiles[-1] if self.tiles else None
            if last and last.box == self.box and self.open_since - last.end_s <= MAX_HOLE_S:
                self.tiles[-1] = last.model_copy(update={"end_s": round(time_s, 3)})
            else:
                self.tiles.append(TileSpan(start_s=round(self.open_since, 3), end_s=round(time_s, 3), box=self.box))
        self.open_since = None

    def close_face(self, time_s: float) -> None:
        if self.face_since is not None and time_s > self.face_since:
            self.faces.append((round(self.face_since, 3), round(time_s, 3)))
        self.face_since = None


class Tracker:
    """Give it the regions of each look in order of time; `people` at the end gives everybody who was seen."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []

    def look(self, time_s: float, regions: Sequence[Region], changed_at: Callable[[Box], float]) -> None:
        """Take in one look. changed_at: when, since the look before, the picture inside a box became what it is now."""
        matched = self._match(time_s, regions)
        for number, track in enumerate(self._tracks):
            if track.open_since is not None and number not in matched:
                moment_s = changed_at(track.box)
                track.close_tile(moment_s)
                track.close_face(moment_s)
        taken = set(matched.values())
        for number, at in matched.items():
            self._follow(self._tracks[number], regions[at], time_s, changed_at)
        for at, region in enumerate(regions):
            if at not in taken and region.has_face:
                track = _Track(box=region.box, picture_PC=region.picture_PC, seen_s=time_s)
                self._follow(track, region, time_s, changed_at)
                self._tracks.append(track)

    def people(self, end_s: float) -> tuple[list[Person], int]:
        """Everybody, as person0, person1, ... by first appearance and then in reading order; and how many were dropped.

        Dropped are faces seen for less than MIN_FACE_S in all.
        """
        for track in self._tracks:
            track.close_tile(end_s)
            track.close_face(end_s)
        kept = [t for t in self._tracks if t.tiles and sum(end - start for start, end in t.faces) >= MIN_FACE_S]
        kept.sort(key=lambda track: (track.tiles[0].start_s, track.tiles[0].box.y, track.tiles[0].box.x))
        people = [
            Person(subject=f"person{number}", tiles=tuple(track.tiles), faces=tuple(track.faces))
            for number, track in enumerate(kept)
        ]
        return people, len(self._tracks) - len(kept)

    def _match(self, time_s: float, regions: Sequence[Region]) -> dict[int, int]:
        """Track number to region number, the most alike first, each once."""
        pairs = []
        for number, track in enumerate(self._tracks):
            for at, region in enumerate(regions):
                present = track.open_since is not None
                if not present and not region.has_face:
                    continue  # an empty chair is like another: only a face comes back
                recent = present or time_s - track.seen_s <= MAX_HOLE_S
                in_place = recent and overlap(track.box, region.box) >= SAME_PLACE_OVERLAP
                difference = float(np.abs(track.picture_PC - region.picture_PC).mean())
                if difference <= (SAME_PLACE_LEVELS if in_place else MOVED_LEVELS):
                    pairs.append((difference, number, at))
        matched: dict[int, int] = {}
        taken: set[int] = set()
        for _, number, at in sorted(pairs):
            if number not in matched and at not in taken:
                matched[number] = at
                taken.add(at)
        return matched

    @staticmethod
    def _follow(track: _Track, region: Region, time_s: float, changed_at: Callable[[Box], float]) -> None:
        kept = overlap(track.box, region.box) >= region.keep_overlap
        since_s = time_s
        if track.open_since is None or not kept:
            since_s = changed_at(region.box)
            track.close_tile(since_s)
            if not kept:
                track.box = region.box
            track.open_since = since_s
        if region.has_face and track.face_since is None:
            track.face_since = since_s
        elif not region.has_face:
            track.close_face(time_s)
        track.picture_PC, track.seen_s = region.picture_PC, time_s
