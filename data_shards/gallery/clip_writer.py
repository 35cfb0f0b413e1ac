"""One clip out of a passing recording: its tile cropped, its sound kept, both on the clip's own clock.

Letters: C sound channels, S sound samples.

Pictures are cropped in yuv420p, so no colour is converted, and keep their own time stamps, so a variable frame rate stays
what it is. Sound is laid down by its time stamps: holes are filled with silence, overlaps are cut.
"""

from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data_shards.atomic import whole_file
from data_shards.gallery.layout import Box
from data_shards.gallery.plan import PlannedClip
from data_shards.gallery.recording import Picture, Recording, Sound, plane

if TYPE_CHECKING:
    import av

__all__ = ["ClipWriter", "cropped"]

_VIDEO_OPTIONS: dict[str, object] = {"preset": "superfast", "crf": "20", "threads": "1", "bf": "0"}
_AUDIO_BITS_PER_S = 96_000
_CLOCK = Fraction(1, 90_000)
_SOUND_SLACK_S = 0.02  # stamps in milliseconds tremble; a hole shorter than this is none
_SILENCE_S = 10.0  # laid down at a time


class ClipWriter:
    """Writes one clip; it appears under its name at `finish`, and `abandon` leaves nothing."""

    def __init__(self, folder: Path, clip: PlannedClip, recording: Recording) -> None:
        import av
        from av.codec.context import Flags

        self.clip = clip
        self._rate_hz = recording.sound_rate_hz
        self._tile_number = 0
        self._last_pts = -1
        self._num_heard = 0
        self._num_samples = round((clip.end_s - clip.start_s) * self._rate_hz)
        self._stack = ExitStack()
        try:
            beside = self._stack.enter_context(whole_file(folder / clip.name, durable=False))
            self._container = self._stack.enter_context(av.open(str(beside), "w", format="mp4"))
        except BaseException:
            self._stack.close()
            raise
        self._video = self._container.add_stream("libx264", rate=Fraction(recording.fps).limit_denominator(1001))
        self._video.options = _VIDEO_OPTIONS
        self._video.width, self._video.height = clip.size_px
        self._video.pix_fmt, self._video.time_base = "yuv420p", _CLOCK
        self._video.codec_context.time_base = _CLOCK
        self._video.codec_context.gop_size = max(1, round(2 * recording.fps))
        self._video.codec_context.thread_count = 1
        self._video.codec_context.flags |= Flags.frame_duration  # or each picture, and so the last, lasts the average
        self._audio: av.AudioStream | None = None
        self._layout = "mono" if recording.sound_channels < 2 else "stereo"
        if self._rate_hz:
            self._audio = self._container.add_stream("aac", rate=self._rate_hz, layout=self._layout)
            self._audio.bit_rate = _AUDIO_BITS_PER_S
            self._audio.codec_context.thread_count = 1

    def show(self, picture: Picture, until_s: float) -> None:
        """Take in a picture that is on screen from picture.time_s to until_s, which must reach into the clip."""
        start_s = max(picture.time_s, self.clip.start_s)
        tile = self._tile_at(start_s)
        frame = cropped(picture.frame, tile, self.clip.size_px)
        if self._last_pts < 0:  # what the numbers mean is said once, at the start
            context = self._video.codec_context
            context.color_range, context.colorspace = frame.color_range, frame.colorspace
            context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        pts = max(self._last_pts + 1, round((start_s - self.clip.start_s) / _CLOCK))
        frame.pts, frame.time_base, self._last_pts = pts, _CLOCK, pts
        frame.duration = max(1, round((min(until_s, self.clip.end_s) - self.clip.start_s) / _CLOCK) - pts)
        self._container.mux(self._video.encode(frame))

    def hear(self, sound: Sound) -> None:
        """Take in sound; what lies outside the clip is cut off."""
        at = round((sound.time_s - self.clip.start_s) * self._rate_hz)
        if abs(at - self._num_heard) < _SOUND_SLACK_S * self._rate_hz:
            at = self._num_heard if at > 0 or self._num_heard else at
        samples_CS = sound.samples_CS
        if at + samples_CS.shape[1] <= self._num_heard or at >= self._num_samples:
            return
        self._fill_with_silence(at)
        begin = max(0, self._num_heard - at)
        self._lay_down(samples_CS[:, begin : begin + self._num_samples - self._num_heard])

    def finish(self) -> None:
        """End both streams and give the file its name."""
        try:
            if self._audio is not None:
                self._fill_with_silence(self._num_samples)
                self._container.mux(self._audio.encode(None))
            self._container.mux(self._video.encode(None))
        except BaseException as error:
            self.abandon(error)
            raise
        self._stack.close()

    def abandon(self, error: BaseException) -> None:
        """Close and remove what was written."""
        with suppress(Exception):  # the first error is the one to tell; the file beside is gone either way
            self._stack.__exit__(type(error), error, error.__traceback__)

    def _tile_at(self, time_s: float) -> Box:
        tiles = self.clip.tiles
        while self._tile_number + 1 < len(tiles) and time_s >= tiles[self._tile_number + 1].start_s:
            self._tile_number += 1
        return tiles[self._tile_number].box

    def _fill_with_silence(self, until: int) -> None:
        channels = 1 if self._layout == "mono" else 2
        while self._num_heard < until:
            length = min(until - self._num_heard, round(_SILENCE_S * self._rate_hz))
            self._lay_down(np.zeros((channels, length), np.float32))

    def _lay_down(self, samples_CS: npt.NDArray[np.float32]) -> None:
        import av

        assert self._audio is not None
        piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_CS), format="fltp", layout=self._layout)
        piece.sample_rate, piece.pts, piece.time_base = self._rate_hz, self._num_heard, Fraction(1, self._rate_hz)
        self._container.mux(self._audio.encode(piece))
        self._num_heard += samples_CS.shape[1]


def cropped(frame: "av.VideoFrame", box: Box, size_px: tuple[int, int]) -> "av.VideoFrame":
    """The part of a yuv420p frame inside a box.

    [choice] After a change of layout the tile is scaled to the clip's size, and its shape with it where it differs.
    """
    import av

    out = av.VideoFrame(box.width, box.height, "yuv420p")
    for number, half in enumerate((1, 2, 2)):
        target_HW = plane(out, number)
        x, y = box.x // half, box.y // half
        target_HW[:] = plane(frame, number)[y : y + target_HW.shape[0], x : x + target_HW.shape[1]]
    if (box.width, box.height) != size_px:
        out = out.reformat(width=size_px[0], height=size_px[1])
    out.color_range, out.colorspace = frame.color_range, frame.colorspace
    out.color_primaries, out.color_trc = frame.color_primaries, frame.color_trc
    return out
