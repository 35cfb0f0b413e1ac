"""What a simulated person looks and sounds like, and the room they sit in."""

from dataclasses import dataclass

import numpy as np

Rgb = tuple[int, int, int]

HAIR_STYLES = ("short", "side_part", "bob", "long", "bun", "curly", "cropped")
BACKDROPS = ("shelf", "window", "picture", "plain", "curtain")
_SKIN_TONES: tuple[Rgb, ...] = (
    (255, 224, 200),
    (246, 208, 178),
    (234, 188, 152),
    (216, 164, 124),
    (190, 136, 98),
    (160, 108, 76),
    (128, 84, 58),
)
_HAIR_TONES: tuple[Rgb, ...] = (
    (40, 32, 30),
    (66, 46, 36),
    (104, 70, 46),
    (148, 104, 62),
    (200, 160, 100),
    (146, 70, 40),
    (150, 146, 144),
)
_IRIS_TONES: tuple[Rgb, ...] = ((70, 44, 28), (96, 62, 34), (58, 84, 104), (62, 88, 62), (48, 36, 32))
_CLOTHES_TONES: tuple[Rgb, ...] = (
    (64, 92, 140),
    (150, 62, 66),
    (70, 120, 98),
    (92, 92, 104),
    (206, 196, 178),
    (196, 142, 60),
    (112, 82, 136),
)
_WALL_TONES: tuple[Rgb, ...] = (
    (222, 214, 200),
    (196, 208, 214),
    (212, 220, 204),
    (226, 206, 196),
    (190, 190, 204),
    (206, 202, 178),
    (148, 132, 118),
    (104, 122, 130),
    (96, 84, 92),
    (70, 92, 84),
)
_FRAME_TONES: tuple[Rgb, ...] = ((36, 34, 38), (88, 56, 40), (120, 40, 48), (90, 94, 104))


@dataclass(frozen=True, kw_only=True)
class Person:
    """A person's looks, voice and room. Lengths are in head half-heights (chin to crown is 2).

    backdrop: what stands on one side of the room; room_seed draws the rest of it.
    face_width: half-width of the face. jaw: how much the jaw narrows, 0..1. eye_spacing: eye centre from
    the middle. eye_width, eye_height: half-sizes of the open eye. head_scale: head half-height as a share
    of the frame height. light_x, light_y: direction to the light in the picture, light_y negative is above.
    light_level: 0.85..1.1. flicker: share by which the light slowly rises and falls. noise: camera noise in
    8-bit levels. f0_hz: voice pitch.
    """

    skin: Rgb
    hair: Rgb
    iris: Rgb
    lips: Rgb
    clothes: Rgb
    wall: Rgb
    light_tint: tuple[float, float, float]
    hair_style: str
    backdrop: str
    glasses: Rgb | None
    beard: bool
    collar: bool
    face_width: float
    jaw: float
    eye_spacing: float
    eye_width: float
    eye_height: float
    brow_thickness: float
    nose_length: float
    mouth_width: float
    head_scale: float
    offset_x: float
    offset_y: float
    light_x: float
    light_y: float
    light_level: float
    flicker: float
    noise: float
    f0_hz: float
    room_seed: int


def draw_person(rng: np.random.Generator) -> Person:
    """A random person. The same rng state gives the same person."""
    skin = _between(_SKIN_TONES, rng)
    beard = bool(rng.random() < 0.2)
    style = HAIR_STYLES[rng.integers(len(HAIR_STYLES))]
    if beard and style in ("bob", "long", "bun"):
        style = "short"
    warmth = rng.uniform(-1.0, 1.0)
    return Person(
        skin=skin,
        hair=_pick(_HAIR_TONES, rng),
        iris=_pick(_IRIS_TONES, rng),
        lips=mix(skin, (176, 64, 74), rng.uniform(0.30, 0.55)),
        clothes=_pick(_CLOTHES_TONES, rng),
        wall=_pick(_WALL_TONES, rng),
        light_tint=(1.0, 0.985 - 0.02 * abs(warmth), 0.96 - 0.06 * warmth),
        hair_style=style,
        backdrop=BACKDROPS[rng.integers(len(BACKDROPS))],
        glasses=_FRAME_TONES[rng.integers(len(_FRAME_TONES))] if rng.random() < 0.35 else None,
        beard=beard,
        collar=bool(rng.random() < 0.5),
        face_width=rng.uniform(0.70, 0.79),
        jaw=rng.uniform(0.25, 0.75),
        eye_spacing=rng.uniform(0.30, 0.35),
        eye_width=rng.uniform(0.175, 0.205),
        eye_height=rng.uniform(0.095, 0.120),
        brow_thickness=rng.uniform(0.028, 0.055),
        nose_length=rng.uniform(0.27, 0.34),
        mouth_width=rng.uniform(0.21, 0.27),
        head_scale=rng.uniform(0.275, 0.315),
        offset_x=rng.uniform(-0.18, 0.18),
        offset_y=rng.uniform(-0.08, 0.08),
        light_x=float(rng.choice((-1.0, 1.0))) * rng.uniform(0.25, 0.75),
        light_y=rng.uniform(-0.7, -0.3),
        light_level=rng.uniform(0.88, 1.08),
        flicker=rng.uniform(0.0, 0.04),
        noise=rng.uniform(0.8, 2.4),
        f0_hz=rng.uniform(90.0, 150.0) if beard else rng.uniform(90.0, 240.0),
        room_seed=int(rng.integers(2**31)),
    )


def shade(color: Rgb, factor: float) -> Rgb:
    """The colour made darker (factor below 1) or lighter."""
    red, green, blue = (min(255, max(0, round(value * factor))) for value in color)
    return red, green, blue


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """The colour that is `share` of the way from the first to the second."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _between(tones: tuple[Rgb, ...], rng: np.random.Generator) -> Rgb:
    position = rng.uniform(0.0, len(tones) - 1.001)
    return mix(tones[int(position)], tones[int(position) + 1], position % 1.0)


def _pick(tones: tuple[Rgb, ...], rng: np.random.Generator) -> Rgb:
    return shade(tones[rng.integers(len(tones))], rng.uniform(0.9, 1.1))
