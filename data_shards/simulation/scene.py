"""The still parts of a picture: the room behind the person, and the light on the room and on the head."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from data_shards.simulation.person import BACKDROPS, Person, Rgb, shade

_BOOK_TONES: tuple[Rgb, ...] = ((150, 70, 66), (70, 104, 140), (196, 168, 104), (84, 124, 92), (112, 88, 130))
# Red falls off least in the shade of skin, blue most.
_SHADE_POWER_RGB = np.array([0.75, 1.0, 1.15])


def draw_room(person: Person, width_px: int, height_px: int) -> Image.Image:
    """The room behind a person, out of focus: an RGB image of the given size."""
    rng = np.random.default_rng(person.room_seed)
    image = Image.new("RGB", (width_px, height_px), person.wall)
    draw = ImageDraw.Draw(image)
    unit = height_px / 100.0
    floor_y = rng.uniform(80, 95) * unit
    draw.rectangle((0, floor_y, width_px, height_px), fill=shade(person.wall, 0.78))
    beside = BACKDROPS[rng.integers(len(BACKDROPS))]
    backdrops = (person.backdrop, beside) if rng.random() < 0.5 else (beside, person.backdrop)
    for backdrop, middle in zip(backdrops, (25 * unit, width_px - 25 * unit), strict=True):
        x, half = middle + rng.uniform(-9, 9) * unit, rng.uniform(11, 24) * unit
        _BACKDROP_PAINTERS[backdrop](draw, person, rng, (x - half, x + half), unit)
    return image.filter(ImageFilter.GaussianBlur(0.9 * unit))


def _paint_shelf(
    draw: ImageDraw.ImageDraw,
    person: Person,
    rng: np.random.Generator,
    span: tuple[float, float],
    unit: float,
) -> None:
    first, apart = rng.uniform(20, 36), rng.uniform(22, 32)
    for row in range(3):
        board_y = (first + apart * row) * unit
        x = span[0]
        while x < span[1] - 4 * unit:
            thickness, tall = rng.uniform(2, 5) * unit, rng.uniform(11, 19) * unit
            if rng.random() < 0.85:
                tone = shade(_BOOK_TONES[rng.integers(len(_BOOK_TONES))], rng.uniform(0.8, 1.15))
                draw.rectangle((x, board_y - tall, x + thickness, board_y), fill=tone)
            x += thickness + 0.4 * unit
        draw.rectangle((span[0] - unit, board_y, span[1] + unit, board_y + 2.2 * unit), fill=(134, 100, 70))


def _paint_window(
    draw: ImageDraw.ImageDraw,
    person: Person,
    rng: np.random.Generator,
    span: tuple[float, float],
    unit: float,
) -> None:
    sky = shade((206, 228, 246), rng.uniform(0.92, 1.03))
    top, bottom = rng.uniform(2, 24) * unit, rng.uniform(50, 78) * unit
    draw.rectangle((span[0] - 2 * unit, top - 2 * unit, span[1] + 2 * unit, bottom + 2 * unit), fill=(240, 238, 232))
    draw.rectangle((span[0], top, span[1], bottom), fill=sky)
    draw.chord((span[0] + 4 * unit, bottom - 20 * unit, span[1] - 6 * unit, bottom + 20 * unit), 180, 360, fill=(128, 164, 116))
    draw.rectangle((span[0] - 2 * unit, bottom, span[1] + 2 * unit, bottom + 12 * unit), fill=shade(person.wall, 0.96))
    middle = sum(span) / 2
    draw.rectangle((middle - unit, top, middle + unit, bottom), fill=(240, 238, 232))


def _paint_picture(
    draw: ImageDraw.ImageDraw,
    person: Person,
    rng: np.random.Generator,
    span: tuple[float, float],
    unit: float,
) -> None:
    top = rng.uniform(4, 22) * unit
    bottom = top + rng.uniform(24, 44) * unit
    draw.rectangle((span[0], top, span[1], bottom), fill=(92, 70, 54))
    draw.rectangle((span[0] + 2 * unit, top + 2 * unit, span[1] - 2 * unit, bottom - 2 * unit), fill=(232, 226, 214))
    for _ in range(4):
        tone = _BOOK_TONES[rng.integers(len(_BOOK_TONES))]
        x, y = (
            rng.uniform(span[0] + 4 * unit, span[1] - 16 * unit),
            rng.uniform(top + 4 * unit, bottom - 16 * unit),
        )
        draw.ellipse((x, y, x + 12 * unit, y + 10 * unit), fill=tone)


def _paint_curtain(
    draw: ImageDraw.ImageDraw,
    person: Person,
    rng: np.random.Generator,
    span: tuple[float, float],
    unit: float,
) -> None:
    tone = shade(_BOOK_TONES[rng.integers(len(_BOOK_TONES))], 1.25)
    fold_px = (span[1] - span[0]) / 8
    for fold in range(8):
        x = span[0] + fold * fold_px
        draw.rectangle((x, 0, x + fold_px + unit, 92 * unit), fill=shade(tone, 1.0 if fold % 2 else 0.86))


def _paint_nothing(
    draw: ImageDraw.ImageDraw,
    person: Person,
    rng: np.random.Generator,
    span: tuple[float, float],
    unit: float,
) -> None:
    draw.line((0, 91 * unit, 400 * unit, 91 * unit), fill=shade(person.wall, 0.9), width=max(1, round(unit)))


_BACKDROP_PAINTERS = {
    "shelf": _paint_shelf,
    "window": _paint_window,
    "picture": _paint_picture,
    "curtain": _paint_curtain,
    "plain": _paint_nothing,
}


def room_light(person: Person, width_px: int, height_px: int) -> Image.Image:
    """Light falling across the whole frame with the lens's vignette, as an RGB image to multiply with."""
    y_H1, x_1W = np.linspace(-1.0, 1.0, height_px)[:, None], np.linspace(-1.0, 1.0, width_px)[None, :]
    slope_HW = 0.20 * (person.light_x * x_1W + person.light_y * y_H1)
    vignette_HW = 0.10 * (x_1W**2 + y_H1**2)
    return _as_light(0.93 + slope_HW - vignette_HW, np.ones(3), np.array(person.light_tint))


def head_light(person: Person, half_height_px: float) -> Image.Image:
    """Lambert shading of an ellipsoid head in the middle of a square, fading to full light around it.

    half_height_px: head half-height. Returns a square RGB image, three half-heights wide, to multiply with.
    """
    axis = np.linspace(-1.5, 1.5, round(3.0 * half_height_px))
    x_HW, y_HW = np.meshgrid(axis / (1.08 * person.face_width), axis / 1.08)
    radius_HW = np.sqrt(x_HW**2 + y_HW**2)
    rim_HW = np.maximum(radius_HW, 1.0)
    depth_HW = np.sqrt(np.maximum(0.0, 1.0 - radius_HW**2))
    light = np.array([person.light_x, person.light_y, 0.9])
    light = light / np.linalg.norm(light)
    lambert_HW = np.maximum(0.0, (x_HW * light[0] + y_HW * light[1]) / rim_HW + depth_HW * light[2])
    shade_HW = 0.64 + 0.36 * lambert_HW**0.8
    fade_HW = np.exp(-(((rim_HW - 1.0) / 0.11) ** 2))
    return _as_light(1.0 - (1.0 - shade_HW) * fade_HW, _SHADE_POWER_RGB, np.ones(3))


def _as_light(
    level_HW: npt.NDArray[np.float64], power_RGB: npt.NDArray[np.float64], tint_RGB: npt.NDArray[np.float64]
) -> Image.Image:
    level_HW3 = np.clip(level_HW, 0.0, 1.0)[:, :, None] ** power_RGB * tint_RGB
    return Image.fromarray(np.round(255.0 * np.clip(level_HW3, 0.0, 1.0)).astype(np.uint8), "RGB")
