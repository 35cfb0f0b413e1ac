"""A long gallery recording of drawn people, whose every tile is known. Simulated: nobody was recorded."""

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from data_shards.gallery.layout import Box
from data_shards.simulation.behaviour import simulate_behaviour
from data_shards.simulation.cohort import clip_rng, person_rng
from data_shards.simulation.person import draw_person
from data_shards.simulation.render import Portrait

__all__ = ["Scene", "grid", "longer", "write_gallery"]

_GROUND = 30
_LOOP_S = 6  # of each person's movements, played there and back
_OFF_RGB = (52, 60, 90)


@dataclass(frozen=True)
class Scene:
    """From start_s to end_s, who is where, and whose camera is off."""

    start_s: float
    end_s: float
    tiles: dict[int, Box]
    off: frozenset[int] = field(default=frozenset())


def grid(people: list[int], columns: int, size: tuple[int, int], gap: int = 6) -> dict[int, Box]:
    """Tiles of 16:9 in rows of a picture of that size, as large as they can be."""
    num_rows = -(-len(people) // columns)
    width = min((size[0] - gap) // columns - gap, ((size[1] - gap) // num_rows - gap) * 16 // 9) // 2 * 2
    height = width * 9 // 16 // 2 * 2
    top = (size[1] - num_rows * (height + gap) + gap) // 4 * 2
    left = (size[0] - columns * (width + gap) + gap) // 4 * 2
    return {
        person: Box(x=left + at % columns * (width + gap), y=top + at // columns * (height + gap), width=width, height=height)
        for at, person in enumerate(people)
    }


def write_gallery(path: Path, scenes: tuple[Scene, ...], *, size: tuple[int, int] = (1920, 1080), fps: int = 15) -> Path:
    """Write an mp4 of the scenes, in H.264 with a key frame every 4 s."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "26"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.gop_size = 4 * fps
        for index in range(round(scenes[-1].end_s * fps)):
            frame = av.VideoFrame.from_ndarray(_draw(scenes, index, size, fps), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def longer(source: Path, path: Path, times: int) -> Path:
    """The recording so many times after each other, its packets copied as they are."""
    with av.open(str(source)) as first, av.open(str(path), "w") as container:
        video = first.streams.video[0]
        out = container.add_stream_from_template(video)
        assert video.duration is not None
        for number in range(times):
            first.seek(0)
            for packet in first.demux(video):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.pts, packet.dts = packet.pts + number * video.duration, packet.dts + number * video.duration
                packet.stream = out
                container.mux(packet)
    return path


def _draw(scenes: tuple[Scene, ...], index: int, size: tuple[int, int], fps: int) -> npt.NDArray[np.uint8]:
    picture = np.full((size[1], size[0], 3), _GROUND, np.uint8)
    for scene in scenes:
        if scene.start_s <= index / fps < scene.end_s:
            for person, box in scene.tiles.items():
                tile = picture[box.y : box.y + box.height, box.x : box.x + box.width]
                if person in scene.off:
                    tile[:] = _OFF_RGB
                    tile[box.height * 2 // 5 : box.height * 3 // 5, box.width * 9 // 20 : box.width * 11 // 20] = 220
                else:
                    frames = _loop(person, box.width, box.height, fps)
                    tile[:] = frames[index % len(frames)]
    return picture


@cache
def _loop(person: int, width: int, height: int, fps: int) -> list[npt.NDArray[np.uint8]]:
    """A drawn person's movements, without a jump where they begin again."""
    rng = clip_rng(7, person)
    track = simulate_behaviour(person % 4, _LOOP_S, fps, rng)
    portrait = Portrait(draw_person(person_rng(7, person)), width_px=width, height_px=height, rng=rng)
    frames = list(portrait.frames(track))
    return [*frames, *frames[-2:0:-1]]
