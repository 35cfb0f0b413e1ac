"""Hands a passing recording's pictures and sound to the clips they belong to."""

from collections.abc import Sequence
from pathlib import Path

from data_shards.gallery.clip_writer import ClipWriter
from data_shards.gallery.plan import PlannedClip
from data_shards.gallery.recording import Picture, Recording, Sound

__all__ = ["Cutter"]

_MAX_LAG_S = 20.0  # sound that comes so much later than its picture is given up, or every clip would stay open


class Cutter:
    """Takes pictures and sound in the file's order; only the clips that they belong to are open."""

    def __init__(self, folder: Path, recording: Recording, clips: Sequence[PlannedClip]) -> None:
        self._folder, self._recording = folder, recording
        self._waiting = sorted(clips, key=lambda clip: clip.start_s, reverse=True)
        self._open: list[ClipWriter] = []
        self._shown: Picture | None = None  # on screen until the next one comes
        self._heard_s = 0.0 if recording.sound_rate_hz else float("inf")
        self.num_finished = 0

    def show(self, picture: Picture) -> None:
        self._show_until(picture.time_s)
        self._shown = picture
        self._close_finished(picture.time_s)

    def hear(self, sound: Sound) -> None:
        end_s = sound.time_s + sound.samples_CS.shape[1] / self._recording.sound_rate_hz
        self._open_until(end_s)
        for writer in self._open:
            writer.hear(sound)
        self._heard_s = end_s

    def finish(self) -> None:
        """The recording is over: its last picture stays for one frame, or as long as a planned clip lasts."""
        if self._shown is not None:
            self._show_until(max([self._shown.time_s + 1 / self._recording.fps, *(w.clip.end_s for w in self._open)]))
        self._heard_s = float("inf")
        self._close_finished(float("inf"))

    def abandon(self, error: BaseException) -> None:
        for writer in self._open:
            writer.abandon(error)

    def _open_until(self, time_s: float) -> None:
        while self._waiting and self._waiting[-1].start_s < time_s:
            self._open.append(ClipWriter(self._folder, self._waiting.pop(), self._recording))

    def _show_until(self, until_s: float) -> None:
        if self._shown is None:
            return
        self._open_until(until_s)
        for writer in self._open:
            if writer.clip.start_s < until_s and self._shown.time_s < writer.clip.end_s:
                writer.show(self._shown, until_s)

    def _close_finished(self, shown_s: float) -> None:
        """Finish the clips of which both picture and sound have passed."""
        silent = shown_s - self._heard_s > _MAX_LAG_S
        over_s = shown_s if silent else min(shown_s, self._heard_s)
        for writer in [writer for writer in self._open if writer.clip.end_s <= over_s]:
            self._open.remove(writer)
            writer.finish()
            self.num_finished += 1
