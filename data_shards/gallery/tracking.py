"""Regions of one picture after another to people: who is where from when to when.

Letters: P pixels of a small picture, C = 3 RGB channels.

[choice] A person is known again by the whole picture in the tile, not by the face: between two looks half a second
apart a webcam's picture hardly changes, wherever the tile has moved and however large it is drawn. Measured on the real
clips as 24x24 RGB, the mean difference is at most 4 of 256 levels within a webcam clip, at most 21 with a moving camera,
and at least 40 between two people. So no face is ever compared with another, and nothing biometric is kept.
[choice] A box around a face moves with a person who walks, or with the camera, and then shows another wall: it is known
again by its place. Measured on the real crowd at two looks a second: true pairs overlap by 0.54 and more and differ by at
most 43 levels; the face beside one's own overlaps by up to 0.56, but then differs more and overlaps less than the true one.
[choice] A tile that turns black or into a name in its place is the same person with the camera off, who is known again by
the picture from before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data_shards.gallery.layout import Box, overlap
from data_shards.schema import Stored

__all__ = ["Person", "Region", "SmallPicture", "TileSpan", "Track", "Tracker"]

SmallPicture = npt.NDArray[np.float32]  # (P, C), whole levels from 0 to 255
SMALL_SIDE_PX = 24
SAME_PLACE_LEVELS = 32.0  # mean difference up to which a tile in its place shows the same person
MOVED_LEVELS = 15.0  # and up to which a tile elsewhere, or after an absence, does
SAME_PLACE_OVERLAP = 0.3
FACE_BOX_LEVELS = 45.0  # the same for a box around a face
FACE_BOX_OVERLAP = 0.5
_OVERLAP_LEVELS = 40.0  # how many levels of difference a whole overlap makes up for, where face boxes are paired
MIN_FACE_S = 1.0  # a face seen for less in all is no person: a picture on a slide, a mistake of the detector
MAX_HOLE_S = 1.5  # a tile that was missed for so long and is back in its place was there
_TIE_S = 1e-6
_MAX_TRACKS = 256  # a recording of nothing but cuts must not fill the memory


@dataclass(frozen=True)
class Region:
    """A part of one picture in which a person may be.

    is_tile: its borders are the image's own, so they are kept only within 15 %; a box around a face is kept within 50 %.
    is_off: a tile that is black or one colour, but for a name.
    """

    box: Box
    has_face: bool
    picture_PC: SmallPicture
    is_tile: bool = True
    is_off: bool = False

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
class Track:
    """A person so far. `open_since` and `face_since` are None while the tile or the face is not seen.

    number: its own among a recording's; box: the tile, kept while it only trembles; seen_box: exactly where it was seen last;
    picture_PC: as they were last seen with the camera on. face_s_before: seconds of the faces that were forgotten (`forget`).
    """

    number: int
    box: Box
    seen_box: Box
    picture_PC: SmallPicture
    seen_s: float
    is_tile: bool = True
    is_off: bool = False
    open_since: float | None = None
    face_since: float | None = None
    face_s_before: float = 0.0
    tiles: list[TileSpan] = field(default_factory=list)
    faces: list[tuple[float, float]] = field(default_factory=list)

    @property
    def face_s(self) -> float:
        """Seconds in which the face was seen, up to the last time it went out of sight."""
        return self.face_s_before + sum(end - start for start, end in self.faces)

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

    def box_at(self, time_s: float) -> Box | None:
        """Where the tile was, None where it was not there: known from the look before the last one on."""
        if self.open_since is not None and time_s >= self.open_since - _TIE_S:
            return self.box
        return next((span.box for span in reversed(self.tiles) if span.start_s - _TIE_S <= time_s < span.end_s), None)

    def forget(self) -> None:
        """Keep only the first and the last few spans: those of hours fill the memory."""
        self.tiles[1:-3] = []
        self.face_s_before += sum(end - start for start, end in self.faces[:-1])
        self.faces[:-1] = []


class Tracker:
    """Give it the regions of each look in order of time; `people` at the end gives everybody who was seen."""

    def __init__(self, tracks: Sequence[Track] = (), *, next_number: int = 0, num_dropped: int = 0) -> None:
        self.tracks = list(tracks)
        self.next_number, self.num_dropped = next_number, num_dropped

    @property
    def present(self) -> list[Track]:
        """Those whose tile was there at the last look."""
        return [track for track in self.tracks if track.open_since is not None]

    def look(self, time_s: float, regions: Sequence[Region], changed_at: Callable[[Box], float]) -> None:
        """Take in one look. changed_at: when, since the look before, the picture inside a box became what it is now."""
        matched = self._match(time_s, regions)
        for track in self.present:
            if track.number not in matched:
                self._miss(track, time_s, changed_at)
        taken = set(matched.values())
        for track in self.tracks:
            if track.number in matched:
                self._follow(track, regions[matched[track.number]], time_s, changed_at)
        for at, region in enumerate(regions):
            if at not in taken and region.has_face:
                track = Track(self.next_number, region.box, region.box, region.picture_PC, time_s)
                self.next_number += 1
                self._follow(track, region, time_s, changed_at)
                self.tracks.append(track)
        self._drop_oldest()

    def ordered(self, end_s: float) -> list[Track]:
        """Everybody, by first appearance and then in reading order, their last spans closed; `num_dropped` says how many were
        seen for less than MIN_FACE_S in all and are left out."""
        for track in self.tracks:
            track.close_tile(end_s)
            track.close_face(end_s)
        kept = [track for track in self.tracks if track.tiles and track.face_s >= MIN_FACE_S]
        self.num_dropped += len(self.tracks) - len(kept)
        return sorted(kept, key=lambda track: (track.tiles[0].start_s, track.tiles[0].box.y, track.tiles[0].box.x))

    def people(self, end_s: float) -> tuple[list[Person], int]:
        """`ordered` as person0, person1, ...; and how many were dropped."""
        people = [
            Person(subject=f"person{number}", tiles=tuple(track.tiles), faces=tuple(track.faces))
            for number, track in enumerate(self.ordered(end_s))
        ]
        return people, self.num_dropped

    def _match(self, time_s: float, regions: Sequence[Region]) -> dict[int, int]:
        """Track's number to the region's place, the most alike first, each once."""
        pairs = []
        for track in self.tracks:
            for at, region in enumerate(regions):
                cost = _cost(track, region, time_s)
                if cost is not None:
                    pairs.append((cost, track.number, at))
        matched: dict[int, int] = {}
        taken: set[int] = set()
        for _, number, at in sorted(pairs):
            if number not in matched and at not in taken:
                matched[number] = at
                taken.add(at)
        return matched

    @staticmethod
    def _miss(track: Track, time_s: float, changed_at: Callable[[Box], float]) -> None:
        """Nothing was seen of somebody who was there. A tile that is gone is gone; a face is only turned away, for a while."""
        moment_s = changed_at(track.box)
        track.close_face(moment_s)
        if track.is_tile:
            track.close_tile(moment_s)
        elif time_s - track.seen_s > MAX_HOLE_S:
            track.close_tile(track.seen_s)

    @staticmethod
    def _follow(track: Track, region: Region, time_s: float, changed_at: Callable[[Box], float]) -> None:
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
        track.seen_s, track.seen_box, track.is_tile, track.is_off = time_s, region.box, region.is_tile, region.is_off
        if not region.is_off:
            track.picture_PC = region.picture_PC

    def _drop_oldest(self) -> None:
        """Where there are too many: first those who were seen for a moment, then those who have been away for longest."""
        away = [track for track in self.tracks if track.open_since is None]
        excess = len(self.tracks) - _MAX_TRACKS
        if excess > 0:
            away.sort(key=lambda track: (track.face_s >= MIN_FACE_S, track.seen_s))
            gone = {track.number for track in away[:excess]}
            self.tracks = [track for track in self.tracks if track.number not in gone]
            self.num_dropped += len(gone)


def _cost(track: Track, region: Region, time_s: float) -> float | None:
    """How little the region is like the track, in levels; None where it cannot be the same person."""
    present = track.open_since is not None
    if not present and not region.has_face:
        return None  # an empty chair is like another: only a face comes back
    share = overlap(track.seen_box, region.box)
    if region.is_off:
        return -1.0 if present and track.is_tile and share >= region.keep_overlap else None
    difference = float(np.abs(track.picture_PC - region.picture_PC).mean())
    recent = present or time_s - track.seen_s <= MAX_HOLE_S
    if recent and not (track.is_tile or region.is_tile):
        if share >= FACE_BOX_OVERLAP and difference <= FACE_BOX_LEVELS:
            return difference - _OVERLAP_LEVELS * share
    elif recent and share >= SAME_PLACE_OVERLAP and difference <= SAME_PLACE_LEVELS:
        return difference
    return difference if difference <= MOVED_LEVELS else None
