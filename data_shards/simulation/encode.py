"""Writes frames and sound as an mp4 file: H.264 and AAC, on one thread, so equal input gives equal bytes."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from data_shards.simulation.settings import NOTE
from data_shards.simulation.sound import SAMPLE_RATE_HZ

_VIDEO_OPTIONS = {"preset": "superfast", "crf": "28", "threads": "1", "bf": "0"}
_AUDIO_BITS_PER_S = 48_000


def write_mp4(
    path: Path,
    frames: Iterable[npt.NDArray[np.uint8]],
    sound_S: npt.NDArray[np.int16],
    *,
    title: str,
    fps: int,
    width_px: int,
    height_px: int,
) -> None:
    """Writes uint8 RGB frames (height_px, width_px, 3) and mono 16 kHz sound, tagged as simulated."""
    with av.open(str(path), "w", format="mp4") as container:
        container.metadata.update({"title": f"simulated {title}", "comment": NOTE})
        video = container.add_stream("libx264", rate=fps, options=_VIDEO_OPTIONS)
        video.width, video.height, video.pix_fmt, video.gop_size = width_px, height_px, "yuv420p", 2 * fps
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        audio.bit_rate = _AUDIO_BITS_PER_S
        audio.codec_context.thread_count = 1
        num_heard = 0
        for index, frame_HW3 in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame_HW3, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            container.mux(video.encode(picture))
            # Sound goes in beside the frame it belongs to, so that the file is interleaved.
            end = min(len(sound_S), round((index + 1) * SAMPLE_RATE_HZ / fps))
            piece = av.AudioFrame.from_ndarray(sound_S[None, num_heard:end], format="s16", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = (
                SAMPLE_RATE_HZ,
                num_heard,
                Fraction(1, SAMPLE_RATE_HZ),
            )
            container.mux(audio.encode(piece))
            num_heard = end
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
