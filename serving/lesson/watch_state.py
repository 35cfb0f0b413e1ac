"""What a watch goes on with after its process was killed: who is followed, as they were last seen, and where it was.

It holds a picture of 24x24 pixels of each person's tile, by which they are known again; it is deleted with the recording.
"""

import base64
from typing import Self

import numpy as np
from pydantic import Field

from data_shards.gallery.layout import Box
from data_shards.gallery.looks import LookerState
from data_shards.gallery.tracking import SmallPicture, TileSpan, Track, Tracker
from data_shards.schema import Stored

__all__ = ["WatchState"]


class _TrackState(Stored):
    number: int
    box: Box
    seen_box: Box
    picture: str
    seen_s: float
    is_tile: bool
    is_off: bool
    open_since: float | None
    face_since: float | None
    face_s_before: float
    tiles: tuple[TileSpan, ...]
    faces: tuple[tuple[float, float], ...]


class _TileState(Stored):
    looked_s: float
    has_face: bool
    box: Box
    picture: str


class WatchState(Stored):
    """At the end of a window: shown_s is the time of the picture on screen, at which the recording is entered again.

    num_damaged: pieces passed over up to there; next_look_s: when the tiles are looked at again.
    """

    shown_s: float
    next_look_s: float
    next_window: int = Field(ge=0)
    next_start_s: float
    num_damaged: int
    next_number: int
    num_dropped: int
    tracks: tuple[_TrackState, ...]
    looked: tuple[_TileState, ...]
    next_whole_s: float
    whole_every_s: float

    @classmethod
    def of(cls, tracker: Tracker, looker: LookerState, **where: float) -> Self:
        """The state of a tracker and of what a looker remembers; where: the other fields."""
        return cls.model_validate(
            {
                **where,
                "next_number": tracker.next_number,
                "num_dropped": tracker.num_dropped,
                "tracks": tuple(_track_state(track) for track in tracker.tracks),
                "looked": tuple(
                    _TileState(looked_s=looked_s, has_face=has_face, box=box, picture=_text(picture))
                    for looked_s, has_face, box, picture in looker.tiles
                ),
                "next_whole_s": looker.next_whole_s,
                "whole_every_s": looker.whole_every_s,
            }
        )

    def tracker(self) -> Tracker:
        """The tracker as it was."""
        tracks = [_track(track) for track in self.tracks]
        return Tracker(tracks, next_number=self.next_number, num_dropped=self.num_dropped)

    def looker(self) -> LookerState:
        """What the looker remembered."""
        tiles = [(tile.looked_s, tile.has_face, tile.box, _picture(tile.picture)) for tile in self.looked]
        return LookerState(tiles, self.next_whole_s, self.whole_every_s)


def _track_state(track: Track) -> _TrackState:
    fields = {name: getattr(track, name) for name in _TrackState.model_fields if name not in ("picture", "tiles", "faces")}
    return _TrackState(**fields, picture=_text(track.picture_PC), tiles=tuple(track.tiles), faces=tuple(track.faces))


def _track(state: _TrackState) -> Track:
    fields = {name: getattr(state, name) for name in _TrackState.model_fields if name not in ("picture", "tiles", "faces")}
    return Track(**fields, picture_PC=_picture(state.picture), tiles=list(state.tiles), faces=list(state.faces))


def _text(picture_PC: SmallPicture) -> str:
    return base64.b64encode(picture_PC.astype(np.uint8).tobytes()).decode()


def _picture(text: str) -> SmallPicture:
    return np.frombuffer(base64.b64decode(text), np.uint8).astype(np.float32).reshape(-1, 3)
