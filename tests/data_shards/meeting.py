"""A meeting recorded in gallery view, composed of real clips, whose every tile and sound is known.

Each second a tone starts and, at the same time, a white square lights up in the right top corner of every tile.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

from data_shards.gallery.layout import Box

FPS = 15
SOUND_RATE_HZ = 32_000
SIZE = (960, 540)
GROUND = 26
FLASH_S = 0.2
PEOPLE = {  # in order of first appearance and reading order: the subject each must get
    "test1.avi": "person0",
    "test2.avi": "person1",
    "test3.avi": "person2",
    "5100462069.avi": "person3",
    "swiz3n.mpg": "person4",
    "WolfgangLanger_Pexels.mp4": "person5",
}


@dataclass(frozen=True)
class Scene:
    """From start_s to end_s, who is where."""

    start_s: float
    end_s: float
    tiles: dict[str, Box]


def grid(names: list[str], columns: int, width: int, height: int, gap: int = 6) -> dict[str, Box]:
    """Tiles in rows, each row centred, as a gallery shows them."""
    rows = [names[i : i + columns] for i in range(0, len(names), columns)]
    tiles = {}
    top = (SIZE[1] - len(rows) * height - (len(rows) - 1) * gap) // 2
    for number, row in enumerate(rows):
        left = (SIZE[0] - len(row) * width - (len(row) - 1) * gap) // 2
        for column, name in enumerate(row):
            tiles[name] = Box(x=left + column * (width + gap), y=top + number * (height + gap), width=width, height=height)
    return tiles


a, b, c, d, e, f = PEOPLE
SCENES = (
    Scene(0, 6.2, grid([a, b, c, d], 2, 464, 262)),
    Scene(6.2, 10.8, grid([c, a, b], 2, 464, 262)),  # d leaves, and everybody moves
    Scene(10.8, 18, grid([b, e, a, f, c], 3, 306, 172)),  # two join, the tiles shrink
)


@cache
def tile_pictures(video: Path, width: int, height: int) -> list[np.ndarray]:
    """A clip's frames at FPS, cut to the tile's shape as meeting programs do, there and back without a jump."""
    frames: list[np.ndarray] = []
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            if frame.time < len(frames) / FPS - 1e-6:
                continue
            scale = max(width / frame.width, height / frame.height)
            size = (round(frame.width * scale), round(frame.height * scale))
            image = frame.to_image().resize(size, Image.Resampling.BILINEAR)
            left, top = (size[0] - width) // 2, (size[1] - height) // 2
            frames.append(np.asarray(image.crop((left, top, left + width, top + height))))
            if len(frames) == 24:
                break
    return [*frames, *frames[-2:0:-1]]


def draw(videos: Path, scenes: tuple[Scene, ...], time_s: float) -> np.ndarray:
    picture = np.full((SIZE[1], SIZE[0], 3), GROUND, np.uint8)
    for scene in scenes:
        if scene.start_s <= time_s < scene.end_s:
            for name, box in scene.tiles.items():
                frames = tile_pictures(videos / name, box.width, box.height)
                tile = frames[round(time_s * FPS) % len(frames)].copy()
                if time_s % 1 < FLASH_S - 1e-6:
                    tile[: box.height // 8, -box.width // 8 :] = 255
                picture[box.y : box.y + box.height, box.x : box.x + box.width] = tile
    return picture


def tone() -> np.ndarray:
    """One second of sound: a tone of FLASH_S, then silence."""
    t = np.arange(SOUND_RATE_HZ) / SOUND_RATE_HZ
    return (0.5 * np.sin(2 * np.pi * 440 * t) * (t < FLASH_S)).astype(np.float32)


def write_meeting(
    videos: Path,
    path: Path,
    scenes: tuple[Scene, ...] = SCENES,
    *,
    with_sound: bool = True,
    times_s: list[float] | None = None,
    sound_late_s: float = 0.0,
) -> Path:
    """Write the meeting as mp4. times_s: other times than every 1/FPS; sound_late_s: sound and flash stay together, but
    the file's sound starts so much later than its picture."""
    end_s = scenes[-1].end_s
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "18"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        video.codec_context.time_base = Fraction(1, 90_000)
        sound = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo") if with_sound else None
        for time_s in times_s or [i / FPS for i in range(round(end_s * FPS))]:
            frame = av.VideoFrame.from_ndarray(draw(videos, scenes, time_s), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 90_000), Fraction(1, 90_000)
            container.mux(video.encode(frame))
        for second in range(round(end_s)):
            if sound is None:
                break
            samples = np.stack([tone(), tone()])
            at = second * SOUND_RATE_HZ
            if second == 0:
                samples, at = samples[:, round(sound_late_s * SOUND_RATE_HZ) :], round(sound_late_s * SOUND_RATE_HZ)
            piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
            piece.sample_rate, piece.pts, piece.time_base = SOUND_RATE_HZ, at, Fraction(1, SOUND_RATE_HZ)
            container.mux(sound.encode(piece))
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return path
