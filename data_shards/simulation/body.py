"""Draws what is around a head: hair behind the neck, neck and shoulders, and a phone in the hand."""

from PIL import ImageDraw

from data_shards.simulation.person import Person, shade

Point = tuple[float, float]

_SHOULDER = [(0.36, 1.24), (0.62, 1.36), (1.15, 1.50), (1.48, 1.72), (1.66, 2.2), (1.74, 3.2)]
_SEAM = [(1.0, 1.9), (1.06, 1.9), (1.16, 3.2), (1.04, 3.2)]
_COLLAR = [(0.40, 1.20), (0.02, 1.52), (0.26, 1.72), (0.56, 1.36)]
_NECKLINE = [(-0.42, 1.26), (-0.2, 1.46), (0.0, 1.51), (0.2, 1.46), (0.42, 1.26)]
_NECK = [(-0.36, 0.5), (0.36, 0.5), (0.42, 1.45), (-0.42, 1.45)]
_NECK_SHADOW = [(-0.36, 0.8), (0.36, 0.8), (0.37, 1.08), (0.0, 1.2), (-0.37, 1.08)]
# The right half of the hair behind the neck, by hair style.
_BACK_HAIR = {
    "long": [(0.60, -0.55), (0.88, -0.1), (0.96, 0.5), (1.00, 1.3), (0.86, 1.62), (0.5, 1.75)],
    "bob": [(0.60, -0.55), (0.88, -0.1), (0.95, 0.45), (0.93, 0.72), (0.80, 0.88), (0.5, 0.94)],
}
_PHONE = [(-0.36, 0.0), (0.30, -0.06), (0.42, 2.0), (-0.24, 2.0)]


def draw_body(draw: ImageDraw.ImageDraw, person: Person, anchor_px: Point, unit_px: float) -> None:
    """Back hair, neck and shoulders. anchor_px: the head's centre at rest; unit_px: a head half-height."""

    def at(points: list[Point]) -> list[Point]:
        return [(anchor_px[0] + unit_px * x, anchor_px[1] + unit_px * y) for x, y in points]

    if person.hair_style in _BACK_HAIR:
        draw.polygon(at(_outline(_BACK_HAIR[person.hair_style])), shade(person.hair, 0.72))
    neck = shade(person.skin, 0.80)
    draw.polygon(at(_NECK), neck)
    draw.polygon(at(_NECK_SHADOW), shade(neck, 0.84))
    draw.polygon(at(_outline([(0.0, 1.48), *_SHOULDER])), person.clothes)
    seam = shade(person.clothes, 0.78)
    for half in (_SEAM, _mirrored(_SEAM)):
        draw.polygon(at(half), seam)
    if person.collar:
        for half in (_COLLAR, _mirrored(_COLLAR)):
            draw.polygon(at(half), shade(person.clothes, 1.22))
    else:
        draw.line(at(_NECKLINE), seam, round(0.05 * unit_px))


def draw_phone(draw: ImageDraw.ImageDraw, person: Person, anchor_px: Point, unit_px: float) -> None:
    """A hand holding a phone. anchor_px: the middle of its upper edge; unit_px: a head half-height."""
    corners = [(anchor_px[0] + unit_px * x, anchor_px[1] + unit_px * y) for x, y in _PHONE]
    draw.polygon(corners, (28, 28, 34))
    draw.line(corners[:2], (150, 190, 230), round(0.04 * unit_px))
    for finger in range(4):
        left, top = anchor_px[0] + 0.22 * unit_px, anchor_px[1] + (0.14 + 0.15 * finger) * unit_px
        box = (left, top, left + 0.30 * unit_px, top + 0.15 * unit_px)
        draw.ellipse(box, fill=shade(person.skin, 0.95))


def _mirrored(points: list[Point]) -> list[Point]:
    return [(-x, y) for x, y in points]


def _outline(right_half: list[Point]) -> list[Point]:
    """A closed outline from its right half."""
    return _mirrored(right_half)[::-1] + right_half
