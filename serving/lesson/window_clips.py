"""Each person's part of a window as a clip of its own, with its sound, for models that read what extractors make of clips.

A second pass over the recording follows the first one window behind: a window's clips are cut when it is known where everybody
was in it. So the model reads the very thing that `rapt shards cut` makes for training. Clips lie in a folder that is gone
when the window is told.
"""

import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from data_shards.errors import ClipError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample, clip_sample
from data_shards.gallery.cutter import Cutter
from data_shards.gallery.plan import PlannedClip
from data_shards.gallery.recording import Picture, Recording, RecordingStream, Sound
from data_shards.gallery.tracking import TileSpan, Track
from serving.lesson.watch_state import WatchState
from serving.lesson.window_frames import WindowFrames

__all__ = ["ClipsOfWindows"]

_MAX_AHEAD = 90  # pictures that wait for a window's sound: a file whose sound comes later than that does without


class ClipsOfWindows:
    """Give it the windows in order of time. scratch: a folder for their clips; state: where the first pass goes on."""

    def __init__(self, recording: Recording, recipe: ClipRecipe, scratch: Path, *, state: WatchState | None = None) -> None:
        self._recording, self._recipe, self._scratch = recording, recipe, scratch
        stream = RecordingStream(
            recording,
            with_sound=True,
            from_s=state.shown_s if state else 0.0,
            may_seek=state is None or state.num_damaged == 0,
        )
        self._pieces: Iterator[Picture | Sound] = iter(stream)
        self._kept: list[Picture | Sound] = []

    def sample(self, window: WindowFrames, people: dict[int, Track], end_s: float) -> Iterator[tuple[int, ClipSample]]:
        """Track's number and its sample; a person whose clip cannot be used is left out."""
        clips = {number: _planned(window, track, end_s) for number, track in people.items()}
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            self._cut(Path(folder), [clip for clip in clips.values() if clip], end_s)
            for number, clip in clips.items():
                path = Path(folder) / clip.name if clip else None
                if path is None or not path.exists():
                    continue
                try:
                    yield number, clip_sample(path, self._recipe)
                except ClipError:
                    continue
                finally:
                    path.unlink()

    def _cut(self, folder: Path, clips: list[PlannedClip], end_s: float) -> None:
        """Cut the window that ends at end_s. What was read beyond it, and the last picture in it, is kept for the next one."""
        cutter = Cutter(folder, self._recording, clips)
        heard_s = 0.0 if self._recording.sound_rate_hz else float("inf")
        ahead: list[Picture | Sound] = []
        shown: Picture | None = None
        num_beyond = 0
        kept, self._kept = self._kept, []
        for piece in chain(kept, self._pieces):
            if isinstance(piece, Sound):
                cutter.hear(piece)
                heard_s = max(heard_s, piece.time_s + piece.samples_CS.shape[1] / self._recording.sound_rate_hz)
                if heard_s > end_s:
                    ahead.append(piece)
            elif piece.time_s < end_s:
                cutter.show(piece)
                shown = piece
            else:
                ahead.append(piece)
                num_beyond += 1
            if num_beyond and (heard_s >= end_s or num_beyond > _MAX_AHEAD):
                break
        cutter.finish()
        self._kept = [*([shown] if shown else []), *ahead]


def _planned(window: WindowFrames, track: Track, end_s: float) -> PlannedClip | None:
    """The person's clip: from when to when they were there, with the tiles of that time; the first fills what lies before it,
    and one that is missed for a moment stays."""
    begin_s, until_s = window.span_s(window.people[track.number], end_s)
    spans = [*track.tiles]
    if track.open_since is not None:
        spans.append(TileSpan(start_s=track.open_since, end_s=until_s, box=track.box))
    inside = [span for span in spans if span.end_s > begin_s and span.start_s < until_s]
    if not inside:
        return None
    return PlannedClip(subject=f"track{track.number}", start_s=begin_s, end_s=until_s, speaker="", speech="", tiles=tuple(inside))
