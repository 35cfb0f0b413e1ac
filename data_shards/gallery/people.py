"""A recording to the people in it: looks at a few pictures a second, in one pass, holding one look's pictures.

[choice] Two looks a second: people join and move tiles seldom, and the moment of a change is then found among the
pictures between two looks, so a tile's span is exact to a picture.
"""

from collections.abc import Callable

from data_shards.errors import ClipError, DataError
from data_shards.gallery.faces import FindFaces
from data_shards.gallery.looks import Between, look_at_all
from data_shards.gallery.recording import Picture, Recording, RecordingStream
from data_shards.gallery.tracking import Person, Tracker
from data_shards.listing import Reject
from data_shards.schema import Stored

__all__ = ["People", "find_people"]


class People(Stored):
    """Everybody in a recording, until when it lasts, and what was odd about it."""

    end_s: float
    people: tuple[Person, ...]
    rejects: tuple[Reject, ...] = ()


def find_people(
    recording: Recording,
    find_faces: FindFaces,
    *,
    looks_per_s: float = 2.0,
    progress: Callable[[int, int], None] = lambda done_s, total_s: None,
) -> People:
    """Follow every person's tile through the recording. ClipError where nothing decodes, DataError where nobody is seen.

    progress(done, total) counts seconds of the recording.
    """
    tracker, between = Tracker(), Between()
    stream = RecordingStream(recording)
    next_look_s, end_s, step_s = 0.0, 0.0, 0.0
    for picture in stream:
        assert isinstance(picture, Picture)
        step_s = min(picture.time_s - end_s, 1.0) if end_s else 1 / recording.fps
        end_s = picture.time_s
        between.add(picture)
        if picture.time_s < next_look_s:
            continue
        tracker.look(picture.time_s, look_at_all(picture, find_faces), between.changed_at)
        between.start_again()
        next_look_s = max(next_look_s + 1 / looks_per_s, picture.time_s)
        progress(round(picture.time_s), max(round(recording.duration_s), round(picture.time_s)))
    if not stream.num_pictures:
        raise ClipError(f"{recording.path.name}: damaged, no picture of it can be decoded; re-encode it")
    end_s += step_s
    people, num_dropped = tracker.people(end_s)
    if not people:
        damage = f" ({stream.num_damaged} damaged pieces were passed over)" if stream.num_damaged else ""
        raise DataError(
            f"{recording.path.name}: no face was seen in it for a second or more{damage}; is it a gallery-view recording?"
        )
    return People(end_s=round(end_s, 3), people=tuple(people), rejects=tuple(_oddities(recording, stream, end_s, num_dropped)))


def _oddities(recording: Recording, stream: RecordingStream, end_s: float, num_dropped: int) -> list[Reject]:
    name, reasons = recording.path.name, []
    if stream.num_damaged:
        reasons.append(f"{stream.num_damaged} damaged pieces were passed over; the clips there may be jerky")
    if end_s < recording.duration_s - max(1.0, 0.01 * recording.duration_s):
        reasons.append(f"its pictures end at {end_s:.1f} s although its header says {recording.duration_s:.1f} s")
    if num_dropped:
        reasons.append(f"{num_dropped} faces were seen for less than a second each and are nobody's")
    return [Reject(clip_id=name, source=name, reason=f"{name}: {reason}") for reason in reasons]
