"""A process that reads frames with decord, decord2 (a module of the same name) or PyAV. Started by bench_decoders."""

import time
from typing import Any

import numpy as np

from benchmarks.worker import answer


def _decord(path: str, width: int, height: int, numbers: list[int] | None) -> Any:
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    reader = decord.VideoReader(path, width=width, height=height, num_threads=1)
    return reader.get_batch(picked_frames(len(reader)) if numbers is None else numbers).asnumpy()


def _pyav(path: str, width: int, height: int, numbers: list[int] | None) -> Any:
    """Every frame up to the last one wanted is decoded in order, the wanted ones are scaled."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if numbers is None:
            with av.open(path) as counted:  # the header's count is missing or wrong in some: packets are counted
                numbers = picked_frames(sum(packet.size > 0 for packet in counted.demux(video=0)))
        wanted, frames = set(numbers), {}
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
                frames[number] = scaled.to_ndarray()
            if number >= max(wanted):
                break
        return np.stack([frames[number] for number in numbers])


def picked_frames(num_frames: int) -> list[int]:
    """50 frames at the centres of equal parts."""
    return [int((i + 0.5) * num_frames / 50) for i in range(50)]


_DECODERS = {"decord": _decord, "decord2": _decord, "pyav": _pyav}


def read(decoder: str, path: str, width: int, height: int, save_to: str | None = None) -> dict[str, Any]:
    """Open a clip and read 50 frames: seconds by the clock and of the processor, or the reason why not."""
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    try:
        frames = _DECODERS[decoder](path, width, height, None)
    except Exception as error:
        return {"failed": f"{type(error).__name__}"}
    took = {"clock_s": time.perf_counter() - begun_s, "cpu_s": time.process_time() - begun_cpu_s}
    if save_to:
        np.save(save_to, frames)
    return took


def every_frame(path: str, width: int, height: int, save_to: str) -> None:
    """Save all frames, decoded from the first to the last without a seek: what the others' frames are compared with."""
    import av

    with av.open(path) as container:
        frames = [frame.reformat(width=width, height=height, format="rgb24") for frame in container.decode(video=0)]
    np.save(save_to, np.stack([frame.to_ndarray() for frame in frames]))


def open_often(decoder: str, path: str, width: int, height: int, times: int) -> None:
    """Open a clip and read its first two frames, again and again."""
    for _ in range(times):
        _DECODERS[decoder](path, width, height, [0, 1])


if __name__ == "__main__":
    answer({"read": read, "every_frame": every_frame, "open_often": open_often})
