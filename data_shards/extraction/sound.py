"""A clip's sound as one channel of samples, by PyAV: no external program.

Letters: C channels, S samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.decode import check_container
from data_shards.errors import ClipError

__all__ = ["SAMPLE_RATE_HZ", "Sound", "read_sound"]

SAMPLE_RATE_HZ = 16_000  # Praat's pitch ceiling and every harmonic that tells voices apart lie far below half of it
_MAX_S = 3600.0  # 230 MB of samples, twice that in Praat; the longest published clips take five minutes

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sound:
    """samples_S float32 in [-1, 1], all channels mixed, at rate_hz; every value is a number."""

    samples_S: Samples
    rate_hz: int = SAMPLE_RATE_HZ

    @property
    def duration_s(self) -> float:
        return len(self.samples_S) / self.rate_hz


def read_sound(path: Path, *, max_s: float = _MAX_S) -> Sound | None:
    """The sound of a clip at 16 kHz, None where it has no sound track; a track of silence is sound.

    The channels' mean is taken, so that what is in all of them keeps its level and nothing leaves [-1, 1]. Where a file
    has several tracks, the one that ffmpeg takes for the best is read. Packets that cannot be decoded are left out; samples
    that are no numbers, which float PCM can hold, are silence.
    ClipError where the file or its whole track is damaged, or is longer than max_s seconds.
    """
    import av

    check_container(path)
    parts: list[Samples] = []
    room = round(max_s * SAMPLE_RATE_HZ)
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            track = container.streams.best("audio")
            if track is None:
                return None
            if track.codec_context is None:
                raise ClipError(f"{path.name}: a sound codec that is not known here; re-encode it as AAC")
            for samples_S in _mono(_frames(container, track, path)):
                room -= len(samples_S)
                if room < 0:  # counted, for a header may say anything
                    raise ClipError(f"{path.name}: its sound is longer than the limit of {max_s:g} s; cut it")
                parts.append(samples_S)
    except av.error.FFmpegError as error:
        raise ClipError(f"{path.name}: damaged, its sound cannot be read ({error.strerror}); re-encode it") from None
    if not parts:
        return None
    whole_S = np.concatenate(parts)
    return Sound(np.clip(np.nan_to_num(whole_S, copy=False, nan=0.0), -1.0, 1.0, out=whole_S))


def _frames(container: Any, track: Any, path: Path) -> Iterator[Any]:
    """The track's frames that can be decoded, in order. ClipError where there are packets, but no frame comes of any."""
    import av

    found = damaged = False
    for packet in container.demux(track):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:  # a damaged stretch; what follows may be whole
            damaged = True
            continue
        found = found or bool(frames)
        yield from frames
    if damaged and not found:
        raise ClipError(f"{path.name}: damaged, nothing of its sound can be decoded; re-encode it")


def _mono(frames: Iterator[Any]) -> Iterator[Samples]:
    """The frames' channels mixed, at 16 kHz. A track may change its rate or its channels on the way."""
    from av import AudioResampler

    resampler, form = None, None
    for frame in frames:
        if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
            if resampler is not None:
                yield from map(_mixed, resampler.resample(None))
            resampler = AudioResampler(format="flt", layout=frame.layout, rate=SAMPLE_RATE_HZ)
        frame.pts = None  # gaps between time stamps are no reason to stop
        assert resampler is not None
        yield from map(_mixed, resampler.resample(frame))
    if resampler is not None:
        yield from map(_mixed, resampler.resample(None))


def _mixed(frame: Any) -> Samples:
    # interleaved, for PyAV 18.1.0 reads beyond the planes of a frame with eight planar channels, and the process dies
    samples_SC = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(samples_SC.mean(axis=1), dtype=np.float32)
