"""What the child that watches a recording says to who scores it: records as JSON with bytes behind them, never a pickle."""

import json
import struct
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from data_shards.errors import ServiceError
from data_shards.schema import Stored
from serving.lesson.record import Tile

__all__ = ["Begun", "Ended", "Failed", "Marked", "Message", "Passed", "PersonSeen", "WindowSeen", "packed", "unpacked"]

_LENGTH = struct.Struct("<I")


class Begun(Stored):
    """What the recording's header says, and the size in which it is watched."""

    kind: Literal["begun"] = "begun"
    duration_s: float
    width_px: int
    height_px: int


class Passed(Stored):
    """So far it has been watched. Comes at every look, so that a child that says nothing hangs."""

    kind: Literal["passed"] = "passed"
    time_s: float


class PersonSeen(Stored):
    """A person in a window. track: a number of this recording's; tile: where they were for most of the window; seen: whether
    there is something to score, of which `members` names the bytes that follow, as a shard's members; lacking: as a
    ClipSample's."""

    track: int
    tile: Tile
    seen: Literal["face", "no_face", "camera_off"]
    face_share: float = Field(ge=0, le=1)
    members: tuple[str, ...] = ()
    lacking: dict[str, str] = Field(default_factory=dict)


class WindowSeen(Stored):
    """A window of the lesson with everybody whose tile was there."""

    kind: Literal["window"] = "window"
    number: int = Field(ge=0)
    start_s: float
    end_s: float
    people: tuple[PersonSeen, ...]


class Marked(Stored):
    """All windows before `next_window` have been told; the bytes that follow are what the watch goes on with from there."""

    kind: Literal["marked"] = "marked"
    next_window: int


class Ended(Stored):
    """The recording is over. tracks: the numbers of those who are somebody, in the order of their names."""

    kind: Literal["ended"] = "ended"
    end_s: float
    tracks: tuple[int, ...]
    problems: tuple[str, ...] = ()


class Failed(Stored):
    """The recording cannot be used (of_recording), or the child cannot work; either way in a sentence."""

    kind: Literal["failed"] = "failed"
    of_recording: bool
    sentence: str


Message = Begun | Passed | WindowSeen | Marked | Ended | Failed
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def packed(message: Message, blobs: tuple[bytes, ...] = ()) -> bytes:
    """A message and the bytes that belong to it as one piece."""
    head = json.dumps({"message": message.model_dump(mode="json"), "sizes": [len(blob) for blob in blobs]}).encode()
    return b"".join((_LENGTH.pack(len(head)), head, *blobs))


def unpacked(content: bytes) -> tuple[Message, tuple[bytes, ...]]:
    """The reverse. ServiceError where it is none: the other side is broken, or no longer its own."""
    try:
        (length,) = _LENGTH.unpack_from(content)
        head = json.loads(content[_LENGTH.size : _LENGTH.size + length])
        blobs, at = [], _LENGTH.size + length
        for size in head["sizes"]:
            blobs.append(content[at : at + size])
            at += size
        if at != len(content):
            raise ValueError
        return _MESSAGE.validate_python(head["message"]), tuple(blobs)
    except (struct.error, ValueError, TypeError, KeyError, ValidationError):
        raise ServiceError("what watches recordings said something that is no message; try again") from None
