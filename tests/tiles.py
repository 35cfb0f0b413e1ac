"""Made clips of cameras that are off: one colour, dark noise, tiles with a name; and the pieces to write others."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Frame = npt.NDArray[np.uint8]

WIDTH_PX, HEIGHT_PX = 640, 360


def plain(colour: tuple[int, int, int]) -> Frame:
    return np.full((HEIGHT_PX, WIDTH_PX, 3), colour, np.uint8)


def dark_noise(deviation: float, seed: int) -> Frame:
    noise = np.random.default_rng(seed).normal(8, deviation, (HEIGHT_PX, WIDTH_PX, 3))
    return noise.clip(0, 255).astype(np.uint8)


def tile(photo: Frame | None = None, *, ring: bool = False, side: int = 160) -> Frame:
    """A tile as meetings show it: a ground, a disc with initials or a photo, a name; a ring around the one who speaks."""
    image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), (40, 44, 52))
    draw = ImageDraw.Draw(image)
    left, top = (WIDTH_PX - side) // 2, (HEIGHT_PX - side) // 2
    if photo is None:
        draw.ellipse((left, top, left + side, top + side), fill=(180, 80, 60))
        draw.text((left + 35, top + 35), "AB", font=ImageFont.load_default(70), fill="white")
    else:
        mask = Image.new("L", (side, side), 0)
        ImageDraw.Draw(mask).ellipse((0, 0, side, side), fill=255)
        image.paste(Image.fromarray(photo).resize((side, side)), (left, top), mask)
    draw.text((12, HEIGHT_PX - 34), "Anna Example", font=ImageFont.load_default(22), fill="white")
    if ring:
        draw.rectangle((0, 0, WIDTH_PX - 1, HEIGHT_PX - 1), outline=(90, 200, 90), width=5)
    return np.asarray(image)


def write_clip(path: Path, frames: Iterable[Frame], *, fps: int = 10) -> Path:
    """An H.264 clip of the frames, each on screen for 1 / fps seconds."""
    import av

    with av.open(str(path), "w") as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=fps)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        assert stream is not None
        container.mux(stream.encode())
    return path
