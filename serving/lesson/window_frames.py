"""A window of a lesson while it passes: who was there, and what of them the model reads, as small JPEGs.

Letters: T frames that a model reads of a clip.

[choice] A person is in a window where their tile was there for half of it or more. Who came or left meanwhile is shown for
the time that they were there, by T frames at the centres of equal parts of it, of which those between two taken ones repeat
the nearest: as the training clips show it, whose frames repeat where there are too few.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from data_shards.gallery.layout import Box
from data_shards.sample import Sample, SampleMeta

__all__ = ["SeenPerson", "WindowFrames"]

MIN_PRESENCE = 0.5
_MIN_OFF_SHARE = 0.5
_TIE_S = 0.001  # as data_shards/decode.py settles it


@dataclass
class SeenPerson:
    """A person in a window: part number to JPEG, how many looks saw the tile, a face in it, the camera off, and where."""

    jpegs: dict[int, bytes] = field(default_factory=dict)
    num_looks: int = 0
    num_faces: int = 0
    num_off: int = 0
    boxes: Counter[Box] = field(default_factory=Counter)

    @property
    def is_off(self) -> bool:
        """[choice] The camera was off for half of the window or more: what is left is too little to judge by."""
        return self.num_off >= _MIN_OFF_SHARE * max(1, self.num_looks) and self.num_off > 0

    @property
    def face_share(self) -> float:
        """The share of looks that showed a face."""
        return round(self.num_faces / max(1, self.num_looks), 4)


class WindowFrames:
    """The window from start_s to end_s in num_parts equal parts, of which it takes the picture on screen at each centre."""

    def __init__(self, number: int, start_s: float, end_s: float, num_parts: int) -> None:
        self.number, self.start_s, self.end_s, self.num_parts = number, start_s, end_s, num_parts
        self.people: dict[int, SeenPerson] = {}
        self._next = 0

    def due(self, until_s: float) -> Iterator[tuple[int, float]]:
        """(part, its centre in seconds) of those not yet taken that lie before the next picture, which comes at until_s."""
        while self._next < self.num_parts and self.centre_s(self._next) + _TIE_S < until_s:
            yield self._next, self.centre_s(self._next)
            self._next += 1

    def centre_s(self, part: int) -> float:
        """The centre of a part, in seconds of the recording."""
        return self.start_s + (part + 0.5) * (self.end_s - self.start_s) / self.num_parts

    def person(self, track: int) -> SeenPerson:
        return self.people.setdefault(track, SeenPerson())

    def present(self, end_s: float) -> dict[int, SeenPerson]:
        """Who was there for long enough, by track; end_s: where the window really ended."""
        num_parts = max(1, sum(self.centre_s(part) < end_s for part in range(self.num_parts)))
        return {
            track: seen
            for track, seen in sorted(self.people.items())
            if seen.boxes and len(seen.jpegs) >= MIN_PRESENCE * num_parts
        }

    def span_s(self, seen: SeenPerson, end_s: float) -> tuple[float, float]:
        """From when to when somebody was there, in seconds of the recording."""
        length_s = (self.end_s - self.start_s) / self.num_parts
        return self.start_s + min(seen.jpegs) * length_s, min(end_s, self.start_s + (max(seen.jpegs) + 1) * length_s)

    def sample(self, seen: SeenPerson, end_s: float, *, fps: float) -> Sample:
        """What the model reads of the person; end_s: where the window really ended."""
        begin_s, until_s = self.span_s(seen, end_s)
        taken = np.array(sorted(seen.jpegs))
        taken_s = np.array([self.centre_s(part) for part in taken])
        times_T = begin_s + (np.arange(self.num_parts) + 0.5) * (until_s - begin_s) / self.num_parts
        jpegs = [seen.jpegs[int(taken[np.abs(taken_s - time_s).argmin()])] for time_s in times_T]
        box = seen.boxes.most_common(1)[0][0]
        meta = SampleMeta(
            clip_id=f"window {self.number}",
            subject="",
            session="",
            split="",
            labels={},
            source_sha256="",
            fps=fps,
            duration_s=round(until_s - begin_s, 4),
            source_width_px=box.width,
            source_height_px=box.height,
            frame_times_s=tuple(round(float(time_s - begin_s), 4) for time_s in times_T),
            jpeg_offsets=(0, *np.cumsum([len(jpeg) for jpeg in jpegs]).tolist()),
        )
        return Sample(meta=meta, frames_mjpeg=b"".join(jpegs))
