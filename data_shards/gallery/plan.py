"""Which clips are cut: every span of time for every person who is in view.

[choice] Which tile shows the speaker is not known from the picture, so an utterance makes one clip of each person, and
the speaker's name goes into the CSV as the transcript gives it. [choice] CMOSE's utterances are 13.72 s on average; here
those under 2 s are left out, and those over 60 s are cut into equal parts.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Self

from pydantic import Field, model_validator

from data_shards.errors import DataError
from data_shards.gallery.people import People
from data_shards.gallery.tracking import Person, TileSpan
from data_shards.listing import Reject
from data_shards.schema import Stored
from data_shards.transcript import Utterance

__all__ = ["CutSettings", "PlannedClip", "even_spans", "plan_clips"]

_TIE_S = 0.0005


class CutSettings(Stored):
    """How spans become clips.

    every_s: fixed length; None where utterances are given. min_s, max_s: of a clip. min_face: the share of the span, 0
    to 1, in which the person's face must be seen. looks_per_s: how often the tiles are looked for.
    """

    every_s: float | None = Field(default=None, gt=0)
    min_s: float = Field(default=2.0, gt=0)
    max_s: float = Field(default=60.0, gt=0, le=3600)
    min_face: float = Field(default=0.5, ge=0, le=1)
    looks_per_s: float = Field(default=2.0, ge=0.2, le=30)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_s < 2 * self.min_s:
            raise ValueError(f"the longest clip, {self.max_s:g} s, must be at least twice the shortest, {self.min_s:g} s")
        if self.every_s is not None and not self.min_s <= self.every_s <= self.max_s:
            raise ValueError(f"every {self.every_s:g} s is outside the clips' {self.min_s:g} to {self.max_s:g} s")
        return self


class PlannedClip(Stored):
    """A person from start_s to end_s, where their tile was meanwhile, and what was said by whom."""

    subject: str
    start_s: float
    end_s: float
    speaker: str
    speech: str
    tiles: tuple[TileSpan, ...]

    @property
    def name(self) -> str:
        """The clip's path below OUT; times in milliseconds."""
        return f"clips/{self.subject}_{round(self.start_s * 1000):08d}_{round(self.end_s * 1000):08d}.mp4"

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height): of the tile that it shows for the longest time."""
        longest = max(self.tiles, key=lambda tile: tile.end_s - tile.start_s)
        return longest.box.width, longest.box.height


def even_spans(end_s: float, every_s: float) -> list[Utterance]:
    """Spans of `every_s` from the start to the end of a recording; the last may be shorter."""
    count = math.ceil(end_s / every_s - 1e-6)
    return [Utterance(start_s=round(i * every_s, 3), end_s=round(min(end_s, (i + 1) * every_s), 3)) for i in range(count)]


def plan_clips(
    people: People, utterances: Sequence[Utterance], settings: CutSettings, *, recording: str
) -> tuple[list[PlannedClip], list[Reject]]:
    """The clips to cut, in order of their start, and what is left out with its reason.

    DataError where every utterance lies beyond the recording's end: then the two do not belong together.
    """
    if all(utterance.start_s >= people.end_s for utterance in utterances):
        raise DataError(
            f"{recording}: every utterance starts after its end at {people.end_s:.1f} s; name the transcript of this recording"
        )
    clips: list[PlannedClip] = []
    rejects: list[Reject] = []
    for span in _distinct(utterances):
        place = f"{span.start_s:.3f} to {span.end_s:.3f} s"
        end_s = min(span.end_s, people.end_s)
        length_s = end_s - span.start_s
        if span.start_s >= people.end_s:
            rejects.append(_reject(recording, place, f"starts after the recording's end at {people.end_s:.1f} s"))
        elif length_s < settings.min_s - _TIE_S:
            rejects.append(_reject(recording, place, f"{length_s:.2f} s long, under the shortest of {settings.min_s:g} s"))
        else:
            for part in _parts(span.model_copy(update={"end_s": end_s}), settings.max_s):
                for person in people.people:
                    made = _clip_of(person, part, settings)
                    if isinstance(made, PlannedClip):
                        clips.append(made)
                    elif made:
                        part_place = f"{person.subject} {part.start_s:.3f} to {part.end_s:.3f} s"
                        rejects.append(_reject(recording, part_place, made))
    return clips, rejects


def _distinct(utterances: Sequence[Utterance]) -> Iterator[Utterance]:
    """Two voices with the same time stamps are one span, since they would be one clip."""
    ordered = sorted(utterances, key=lambda u: (u.start_s, u.end_s))
    for (start_s, end_s), same in groupby(ordered, key=lambda u: (u.start_s, u.end_s)):
        voices = list(same)
        speaker = " + ".join(dict.fromkeys(voice.speaker for voice in voices if voice.speaker))
        text = " / ".join(voice.text for voice in voices if voice.text)
        yield Utterance(start_s=start_s, end_s=end_s, speaker=speaker, text=text)


def _parts(span: Utterance, max_s: float) -> list[Utterance]:
    """A span over `max_s` as equal parts under it."""
    length_s = span.end_s - span.start_s
    count = math.ceil(length_s / max_s - 1e-6)
    edges = [round(span.start_s + i * length_s / count, 3) for i in range(count + 1)]
    return [span.model_copy(update={"start_s": edges[i], "end_s": edges[i + 1]}) for i in range(count)]


def _clip_of(person: Person, span: Utterance, settings: CutSettings) -> PlannedClip | str:
    """The person's clip in this span, the reason why there is none, or nothing where the person is not in view at all."""
    tiles = _longest_run(person, span.start_s, span.end_s)
    if not tiles:
        return ""
    start_s, end_s = tiles[0].start_s, tiles[-1].end_s
    if end_s - start_s < settings.min_s - _TIE_S:
        return f"in view for {end_s - start_s:.2f} s, under the shortest of {settings.min_s:g} s"
    seen_s = sum(max(0.0, min(end, end_s) - max(start, start_s)) for start, end in person.faces)
    share = seen_s / (span.end_s - span.start_s)
    if share < settings.min_face:
        return f"the face is seen in {share:.0%} of the span, under {settings.min_face:.0%}"
    return PlannedClip(
        subject=person.subject, start_s=start_s, end_s=end_s, speaker=span.speaker, speech=span.text, tiles=tuple(tiles)
    )


def _longest_run(person: Person, start_s: float, end_s: float) -> list[TileSpan]:
    """The person's tiles inside a span, of the longest time without a hole."""
    runs: list[list[TileSpan]] = []
    for tile in person.tiles:
        begin, end = max(tile.start_s, start_s), min(tile.end_s, end_s)
        if begin >= end:
            continue
        inside = TileSpan(start_s=begin, end_s=end, box=tile.box)
        if runs and begin - runs[-1][-1].end_s <= _TIE_S:
            runs[-1].append(inside)
        else:
            runs.append([inside])
    return max(runs, key=lambda run: run[-1].end_s - run[0].start_s, default=[])


def _reject(recording: str, place: str, reason: str) -> Reject:
    return Reject(clip_id=place, source=recording, reason=f"{place}: {reason}")
