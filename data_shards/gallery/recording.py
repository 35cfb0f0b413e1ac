"""A recording of a meeting, read as a stream of pictures and sound by PyAV: never more than one of each is held.

Letters: C sound channels, S sound samples; H height in pixels, W width in pixels.
Times are seconds from the recording's start, which is where a transcript counts from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data_shards.decode import DecodeLimits, check_container, check_header
from data_shards.errors import ClipError

if TYPE_CHECKING:
    import av

__all__ = ["RECORDING_LIMITS", "Picture", "Recording", "RecordingStream", "Sound", "open_recording", "plane"]

RECORDING_LIMITS = DecodeLimits(max_duration_s=12 * 3600.0)
_AAC_RATES_HZ = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})
_DEFAULT_FPS = 25.0
_INDEXED_FORMATS = ("mov", "matroska")  # ffmpeg's names of containers in which a time is found exactly
_LEAD_S = 0.5  # a sound decoder needs what comes shortly before
_TIE_S = 1e-6


@dataclass(frozen=True)
class Recording:
    """What a recording's header says. width_px and height_px are even; sound_rate_hz is 0 where there is no sound."""

    path: Path
    width_px: int
    height_px: int
    fps: float
    duration_s: float
    sound_rate_hz: int = 0
    sound_channels: int = 0


@dataclass(frozen=True)
class Picture:
    """A frame in yuv420p of the recording's size, shown from time_s on."""

    time_s: float
    frame: "av.VideoFrame"

    def luma(self) -> npt.NDArray[np.uint8]:
        """luma_HW: its brightness, a view."""
        return plane(self.frame, 0)

    def rgb(self) -> npt.NDArray[np.uint8]:
        """rgb_HWC: its colours."""
        return np.asarray(self.frame.to_ndarray(format="rgb24"))


@dataclass(frozen=True)
class Sound:
    """Samples as float32 in [-1, 1] at the recording's sound_rate_hz, heard from time_s on."""

    time_s: float
    samples_CS: npt.NDArray[np.float32]


def open_recording(path: Path, limits: DecodeLimits = RECORDING_LIMITS) -> Recording:
    """Read the header. ClipError with the reason: missing, no video, too large, too long, turned, or damaged."""
    import av

    check_container(path)
    check_header(path, limits)
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            video = container.streams.video[0]
            rate = video.average_rate or video.guessed_rate
            fps = float(rate) if rate and 0 < rate <= 240 else _DEFAULT_FPS
            width, height = video.codec_context.width, video.codec_context.height
            sound_rate_hz = channels = 0
            if container.streams.audio and container.streams.audio[0].codec_context is not None:
                context = container.streams.audio[0].codec_context
                channels = min(2, context.layout.nb_channels)
                sound_rate_hz = context.sample_rate if context.sample_rate in _AAC_RATES_HZ else 48_000
            return Recording(
                path=path,
                width_px=width // 2 * 2,
                height_px=height // 2 * 2,
                fps=fps,
                duration_s=(container.duration or 0) / av.time_base,
                sound_rate_hz=sound_rate_hz if channels else 0,
                sound_channels=channels,
            )
    except av.error.FFmpegError as error:
        raise ClipError(f"{path.name}: damaged, its header cannot be read ({error.strerror}); re-encode it") from None


class RecordingStream:
    """Iterate once over the recording's pictures and, if asked for, its sound, in the file's order.

    What cannot be decoded is passed over and counted in `num_damaged`; a recording that breaks off ends there.
    ClipError where a picture goes over the limits, or the recording is turned on its side.
    from_s: only what starts then or later comes, the same pictures as in a whole pass. may_seek: a container with an index is
    entered near there; without it, and in other containers, everything before is decoded too.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        with_sound: bool = False,
        limits: DecodeLimits = RECORDING_LIMITS,
        from_s: float = 0.0,
        may_seek: bool = True,
    ) -> None:
        self._recording = recording
        self._from_s, self._may_seek = from_s, may_seek
        self._with_sound = with_sound and recording.sound_rate_hz > 0
        self._limits = limits
        self.num_damaged = 0
        self.num_pictures = 0
        self._last_s = -1.0

    def __iter__(self) -> Iterator[Picture | Sound]:
        import av

        with av.open(str(self._recording.path), metadata_errors="ignore") as container:
            origin_s = (container.start_time or 0) / av.time_base
            video = container.streams.video[0]
            if self._may_seek and any(name in container.format.name for name in _INDEXED_FORMATS):
                _enter(container, origin_s + self._from_s - _LEAD_S)
            video.thread_type = "AUTO"
            streams = [video, container.streams.audio[0]] if self._with_sound else [video]
            resampler = self._resampler()
            packets = container.demux(*streams)
            while True:
                try:
                    frames = next(packets).decode()
                except StopIteration:
                    break
                except av.error.EOFError:
                    break
                except av.error.InvalidDataError:
                    self.num_damaged += 1
                    continue
                except av.error.FFmpegError:  # the file itself cannot be read on
                    self.num_damaged += 1
                    break
                for frame in frames:
                    if isinstance(frame, av.VideoFrame):
                        yield from self._picture(frame, origin_s)
                    elif isinstance(frame, av.AudioFrame) and frame.pts is not None:
                        for piece in resampler.resample(frame):
                            if piece.pts is not None and piece.time_base is not None:
                                yield from self._sound(float(piece.pts * piece.time_base) - origin_s, piece)

    def _sound(self, time_s: float, piece: "av.AudioFrame") -> Iterator[Sound]:
        if time_s + piece.samples / piece.sample_rate > self._from_s:
            yield Sound(time_s, piece.to_ndarray().astype(np.float32, copy=False))

    def _resampler(self) -> "av.AudioResampler":
        import av

        layout = "mono" if self._recording.sound_channels < 2 else "stereo"
        return av.AudioResampler(format="fltp", layout=layout, rate=self._recording.sound_rate_hz or 48_000)

    def _picture(self, frame: "av.VideoFrame", origin_s: float) -> Iterator[Picture]:
        name, recording = self._recording.path.name, self._recording
        if frame.pts is not None and frame.time_base is not None:
            time_s = float(frame.pts * frame.time_base) - origin_s
        else:
            time_s = self._last_s + 1 / recording.fps if self._last_s >= 0 else 0.0
        if time_s <= self._last_s:  # a broken clock: a picture can only follow the one before
            self.num_damaged += 1
            return
        if time_s > self._limits.max_duration_s or self.num_pictures >= self._limits.max_frames:
            raise ClipError(f"{name}: over the limit of {self._limits.max_duration_s / 3600:g} hours; cut it in parts")
        if frame.width * frame.height > self._limits.max_pixels:
            raise ClipError(f"{name}: {frame.width}x{frame.height} pixels at {time_s:.1f} s, over the limit; re-encode it")
        if frame.rotation:
            raise ClipError(f"{name}: recorded turned by {frame.rotation} degrees, which no meeting is; re-encode it upright")
        self._last_s = time_s
        if time_s < self._from_s - _TIE_S:
            return
        if not self.num_pictures:
            self.num_damaged = 0 if self._from_s else self.num_damaged  # what lies before was counted by whoever read it
        self.num_pictures += 1
        if (frame.format.name, frame.width, frame.height) != ("yuv420p", recording.width_px, recording.height_px):
            frame = frame.reformat(width=recording.width_px, height=recording.height_px, format="yuv420p")
        yield Picture(time_s, frame)


def _enter(container: "av.container.InputContainer", time_s: float) -> None:
    """Go to the last key frame before time_s, by the file's own clock; to the start where that is not found."""
    import av

    video = container.streams.video[0]
    if time_s <= 0 or video.time_base is None:
        return
    try:
        container.seek(int(time_s * av.time_base))
        first = next((packet for packet in container.demux(video) if packet.pts is not None), None)
        lands = first is not None and first.is_keyframe and float(first.pts * video.time_base) <= time_s  # type: ignore[operator]
        container.seek(int(time_s * av.time_base) if lands else container.start_time or 0)
    except av.error.FFmpegError:
        container.seek(container.start_time or 0)


def plane(frame: "av.VideoFrame", number: int) -> npt.NDArray[np.uint8]:
    """One plane of a yuv420p frame: 0 brightness, 1 and 2 the colours at half the size. A view, without the padding."""
    stored = frame.planes[number]
    return np.frombuffer(memoryview(stored), np.uint8).reshape(stored.height, stored.line_size)[:, : stored.width]
