"""A recording of a lesson, watched once: who is there, and window by window what the model reads of each of them.

Runs in a child process (`serving/lesson/child.py`). Held in memory are the pictures between two looks, the small JPEGs of one
window, and who is followed; so a lesson of hours takes what one of a minute takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from data_shards.errors import ClipError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample
from data_shards.extraction.look import shows_camera_off
from data_shards.gallery.faces import FindFaces
from data_shards.gallery.looks import Between, Looker
from data_shards.gallery.recording import Picture, Recording, RecordingStream
from data_shards.gallery.tracking import Track, Tracker
from data_shards.schema import Stored
from serving.lesson.messages import Begun, Ended, Marked, Message, Passed, PersonSeen, WindowSeen
from serving.lesson.record import Tile
from serving.lesson.tile_frames import TileFrames
from serving.lesson.watch_state import WatchState
from serving.lesson.window_frames import SeenPerson, WindowFrames

__all__ = ["LessonSettings", "Told", "Watch", "WindowClips"]

_PARTS_WITHOUT_FRAMES = 10  # by which it is known how long somebody was there, where the model reads no frames
_TIE_S = 1e-6

Told = tuple[Message, tuple[bytes, ...]]


class LessonSettings(Stored):
    """How a lesson is cut and kept.

    window_s: [choice] 10 s, the length of DAiSEE's clips. looks_per_s: how often the tiles are looked for. stretch_s: after so
    much of the lesson what is known is written down, so that a killed job loses no more. min_s: [choice] a lesson, and its last
    window, are 2 s long at least, the shortest clip that a recording is cut into.
    """

    window_s: float = Field(default=10.0, ge=2.0, le=600.0)
    looks_per_s: float = Field(default=2.0, ge=0.2, le=30)
    stretch_s: float = Field(default=60.0, gt=0)
    min_s: float = Field(default=2.0, gt=0)


class WindowClips(Protocol):
    """Makes each person's part of a window into a clip, for a model that reads more than frames."""

    def sample(self, window: WindowFrames, people: dict[int, Track], end_s: float) -> Iterator[tuple[int, ClipSample]]:
        """Track's number and its sample, in the order given; a person whose clip cannot be used is left out."""
        ...


@dataclass(frozen=True)
class _Waiting:
    """A picture that was on screen at the centre of a part, kept until it is known where everybody was then."""

    part: int
    centre_s: float
    picture: Picture


class Watch:
    """Iterate once: messages with their bytes, in order of the lesson's time. ClipError where it cannot be used.

    state: what an earlier watch of the same recording with the same settings said last; what is told then follows on it, and is
    the same as without the break.
    """

    def __init__(
        self,
        recording: Recording,
        recipe: ClipRecipe,
        find_faces: FindFaces,
        settings: LessonSettings,
        *,
        state: WatchState | None = None,
        clips: WindowClips | None = None,
    ) -> None:
        self._recording, self._settings, self._clips = recording, settings, clips
        self._frames = TileFrames(recipe.preprocess) if recipe.preprocess and not recipe.extractors else None
        self._num_parts = recipe.preprocess.num_frames if recipe.preprocess else _PARTS_WITHOUT_FRAMES
        self._tracker = state.tracker() if state else Tracker()
        self._looker = Looker(find_faces, state.looker() if state else None)
        self._between = Between()
        self._next_look_s = state.next_look_s if state else 0.0
        self._window = self._new_window(state.next_window if state else 0, state.next_start_s if state else 0.0)
        self._shown: Picture | None = None
        self._looked_s = -1.0
        self._waiting: list[_Waiting] = []
        self._state = state
        self._stream = RecordingStream(
            recording,
            from_s=state.shown_s if state else 0.0,
            may_seek=state is None or state.num_damaged == 0,  # where a damaged file is entered is chance
        )

    def __iter__(self) -> Iterator[Told]:
        recording = self._recording
        yield Begun(duration_s=recording.duration_s, width_px=recording.width_px, height_px=recording.height_px), ()
        step_s = 1 / recording.fps
        for picture in self._stream:
            assert isinstance(picture, Picture)
            if self._shown is None and self._state is not None:
                self._enter(picture)
                continue
            yield from self._finished_before(picture.time_s)
            step_s = min(picture.time_s - self._shown.time_s, 1.0) if self._shown else step_s
            self._take(picture.time_s, self._shown or picture)
            self._shown = picture
            self._between.add(picture)
            if picture.time_s >= self._next_look_s:
                self._look()
                yield Passed(time_s=picture.time_s), ()
        if self._shown is None:
            raise ClipError("the recording is damaged, no picture of it can be decoded; re-encode it")
        yield from self._end(self._shown.time_s + step_s)

    def _enter(self, picture: Picture) -> None:
        """The picture that was on screen when the state was taken, and had been looked at."""
        self._shown, self._looked_s = picture, picture.time_s
        self._between.add(picture)

    def _finished_before(self, time_s: float) -> Iterator[Told]:
        """The windows that are over when the next picture comes, each looked at once more at its end."""
        while self._shown is not None and time_s >= self._window.end_s - _TIE_S:
            self._take(float("inf"), self._shown)
            if self._shown.time_s > self._looked_s:
                self._look()
            self._place()
            yield from self._tell(self._window.end_s)
            window = self._window
            self._window = self._new_window(window.number + 1, window.end_s)
            for track in self._tracker.tracks:
                track.forget()
            every = max(1, round(self._settings.stretch_s / self._settings.window_s))
            if self._window.number % every == 0:
                yield Marked(next_window=self._window.number), (self._now().to_bytes(),)

    def _take(self, until_s: float, picture: Picture) -> None:
        """The picture is what was on screen at the centres before until_s."""
        self._waiting += [_Waiting(part, centre_s, picture) for part, centre_s in self._window.due(until_s)]

    def _look(self) -> None:
        """At the picture on screen; then it is known where everybody was until now."""
        assert self._shown is not None
        time_s = self._shown.time_s
        self._tracker.look(time_s, self._looker.regions(self._shown, self._tracker.present), self._between.changed_at)
        self._between.start_again()
        self._looked_s, self._next_look_s = time_s, max(self._next_look_s + 1 / self._settings.looks_per_s, time_s)
        for track in self._tracker.present:
            seen = self._window.person(track.number)
            seen.num_looks += 1
            seen.num_faces += track.face_since is not None
            seen.num_off += track.is_off
        self._place()

    def _place(self) -> None:
        """Cut everybody's tile out of the pictures that wait."""
        for waiting in self._waiting:
            for track in self._tracker.tracks:
                box = track.box_at(waiting.centre_s)
                if box is not None:
                    seen = self._window.person(track.number)
                    seen.boxes[box] += 1
                    seen.jpegs[waiting.part] = self._frames.jpeg(waiting.picture, box) if self._frames else b""
        self._waiting.clear()

    def _tell(self, end_s: float) -> Iterator[Told]:
        """What is known of the window, which ended at end_s."""
        window, people = self._window, []
        blobs: list[bytes] = []
        present = window.present(end_s)
        to_score = {number: seen for number, seen in present.items() if seen.num_faces and not seen.is_off}
        samples = self._samples(to_score, end_s)
        off = {number for number, clip in samples.items() if _shows_camera_off(clip)}
        for number, seen in present.items():
            told = PersonSeen(
                track=number,
                tile=self._tile(seen, *window.span_s(seen, end_s)),
                seen="camera_off" if seen.is_off or number in off else "face" if seen.num_faces else "no_face",
                face_share=seen.face_share,
            )
            if told.seen == "face" and number in samples:
                members = samples[number].sample.members()
                told = told.model_copy(update={"members": tuple(members), "lacking": samples[number].lacking})
                blobs += members.values()
            elif told.seen == "face":
                continue
            people.append(told)
        yield (
            WindowSeen(number=window.number, start_s=round(window.start_s, 3), end_s=round(end_s, 3), people=tuple(people)),
            tuple(blobs),
        )

    def _samples(self, to_score: dict[int, SeenPerson], end_s: float) -> dict[int, ClipSample]:
        if self._clips is not None:
            tracks = {track.number: track for track in self._tracker.tracks if track.number in to_score}
            return dict(self._clips.sample(self._window, tracks, end_s))
        fps = self._recording.fps
        return {number: ClipSample(self._window.sample(seen, end_s, fps=fps), {}) for number, seen in to_score.items()}

    def _end(self, end_s: float) -> Iterator[Told]:
        if end_s < self._settings.min_s:
            raise ClipError(f"the recording is {end_s:.1f} s long; a lesson has {self._settings.min_s:g} s at least")
        assert self._shown is not None
        if self._shown.time_s > self._looked_s:
            self._take(end_s, self._shown)
            self._look()
        self._take(end_s, self._shown)
        self._place()
        end_s = min(end_s, self._window.end_s)
        if end_s - self._window.start_s >= self._settings.min_s:
            yield from self._tell(end_s)
        tracks = tuple(track.number for track in self._tracker.ordered(end_s))
        yield Ended(end_s=round(end_s, 3), tracks=tracks, problems=tuple(self._problems(end_s))), ()

    def _problems(self, end_s: float) -> Iterator[str]:
        num_damaged = self._stream.num_damaged + (self._state.num_damaged if self._state else 0)
        if num_damaged:
            yield f"{num_damaged} damaged pieces of the recording were passed over; the numbers there rest on less"
        said_s = self._recording.duration_s
        if end_s < said_s - max(1.0, 0.01 * said_s):
            yield f"its pictures end at {end_s:.1f} s although its header says {said_s:.1f} s"
        if self._tracker.num_dropped:
            yield f"{self._tracker.num_dropped} faces were seen for less than a second each and are nobody's"

    def _now(self) -> WatchState:
        assert self._shown is not None
        return WatchState.of(
            self._tracker,
            self._looker.state,
            shown_s=self._shown.time_s,
            next_look_s=self._next_look_s,
            next_window=self._window.number,
            next_start_s=self._window.start_s,
            num_damaged=self._stream.num_damaged + (self._state.num_damaged if self._state else 0),
        )

    def _new_window(self, number: int, start_s: float) -> WindowFrames:
        """The last one ends where the header says that the recording does, unless it goes on."""
        end_s, said_s = start_s + self._settings.window_s, self._recording.duration_s
        if start_s + self._settings.min_s <= said_s < end_s - _TIE_S:
            end_s = said_s
        return WindowFrames(number, start_s, end_s, self._num_parts)

    def _tile(self, seen: SeenPerson, start_s: float, end_s: float) -> Tile:
        box = seen.boxes.most_common(1)[0][0]
        width_px, height_px = self._recording.width_px, self._recording.height_px
        return Tile(
            start_s=round(start_s, 3),
            end_s=round(end_s, 3),
            left=round(box.x / width_px, 4),
            top=round(box.y / height_px, 4),
            width=round(box.width / width_px, 4),
            height=round(box.height / height_px, 4),
        )


def _shows_camera_off(clip: ClipSample) -> bool:
    """As a clip's look tells it, which knows more than one picture does: a still tile with somebody's photo has a face."""
    return clip.look.camera_off if clip.look else shows_camera_off(clip.sample)
