"""Draws a head: the skin, the features of the face, hair, ears and glasses.

Letters: N points, 2 their coordinates.
"""

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw

from data_shards.simulation.head import (
    Pose,
    Projector,
    eye_parts,
    face_outline,
    hair_cap,
    mouth_parts,
    nose_parts,
)
from data_shards.simulation.person import Person, Rgb, mix, shade

# Hair style: (volume above the skull, how far down it reaches at the sides), in head half-heights.
_HAIR_SHAPES = {
    "short": (0.13, -0.05),
    "side_part": (0.17, -0.05),
    "bob": (0.16, 0.60),
    "long": (0.15, 0.70),
    "bun": (0.10, -0.10),
    "curly": (0.14, 0.05),
    "cropped": (0.05, -0.15),
}


def draw_head(draw: ImageDraw.ImageDraw, person: Person, pose: Pose) -> None:
    """Head and face in one pose, from back to front."""
    projector = Projector(person, pose)
    ears = [projector.ear_px(side) for side in (-1.0, 1.0)]
    ear_tone = shade(person.skin, 0.88)
    if person.hair_style == "bun":
        draw.polygon(projector.flat(_ellipse(0.0, -1.10, 0.34, 0.30)), shade(person.hair, 0.85))
    for ear, _ in ears:
        draw.polygon(ear, ear_tone)
    draw.polygon(projector.flat(face_outline(person, pose)), person.skin)
    _draw_face(draw, person, pose, projector)
    _draw_hair(draw, person, pose, projector)
    for ear, is_front in ears:
        if is_front and person.hair_style not in ("bob", "long"):
            draw.polygon(ear, ear_tone)
    if person.glasses is not None:
        _draw_glasses(draw, person, pose, projector, person.glasses)


def _draw_face(draw: ImageDraw.ImageDraw, person: Person, pose: Pose, projector: Projector) -> None:
    skin = person.skin
    blush = (skin[0], round(0.90 * skin[1]), round(0.89 * skin[2]))
    for side in (-1.0, 1.0):
        draw.polygon(projector.on_face(_ellipse(side * 0.40, 0.30, 0.15, 0.11)), blush)
    if person.beard:
        _draw_beard(draw, person, projector)
    lid = shade(skin, 0.90)
    for side in (-1.0, 1.0):
        eye = projector.parts_on_face(eye_parts(person, pose, side))
        draw.polygon(eye["white"], (246, 244, 240))
        if pose.closure < 0.95:
            draw.polygon(eye["iris"], person.iris)
            draw.polygon(eye["pupil"], (20, 16, 18))
            draw.polygon(eye["glint"], (255, 255, 255))
        draw.polygon(eye["upper_lid"], lid)
        draw.polygon(eye["lower_lid"], skin)
        draw.polygon(eye["lash"], (44, 32, 30))
        draw.polygon(eye["brow"], shade(person.hair, 0.85))
    nose = nose_parts(person)
    draw.polygon(projector.on_face(nose["side"], np.array([0.06, 0.16, 0.10, 0.02])), shade(skin, 0.87))
    draw.polygon(projector.on_face(nose["tip"], 0.12), shade(skin, 0.96))
    for name in ("left", "right"):
        draw.polygon(projector.on_face(nose[name], 0.10), shade(skin, 0.55))
    mouth = projector.parts_on_face(mouth_parts(person, pose), 0.03)
    draw.polygon(mouth["lips"], person.lips)
    draw.polygon(mouth["inside"], (88, 30, 34))
    if pose.mouth > 0.12:
        draw.polygon(mouth["teeth"], (240, 236, 228))


def _draw_beard(draw: ImageDraw.ImageDraw, person: Person, projector: Projector) -> None:
    angle_N = np.linspace(0.04 * np.pi, 0.96 * np.pi, 19)
    width = person.face_width
    outer_N2 = np.stack((0.97 * width * np.cos(angle_N), 0.10 + 0.86 * np.sin(angle_N)), axis=1)
    inner_N2 = np.stack((0.80 * width * np.cos(angle_N), 0.12 + 0.31 * np.sin(angle_N)), axis=1)
    tone = mix(person.skin, person.hair, 0.62)
    draw.polygon(projector.on_face(np.concatenate((outer_N2, inner_N2[::-1]))), tone)


def _draw_hair(draw: ImageDraw.ImageDraw, person: Person, pose: Pose, projector: Projector) -> None:
    volume, sideburn_y = _HAIR_SHAPES[person.hair_style]
    cap_N2 = hair_cap(person, pose, projector, volume=volume, sideburn_y=sideburn_y)
    draw.polygon(projector.flat(cap_N2), person.hair)
    if person.hair_style == "curly":
        for angle in np.linspace(1.02 * np.pi, 1.98 * np.pi, 13):
            x, y = (person.face_width + 0.10) * np.cos(angle), 1.04 * np.sin(angle)
            draw.polygon(projector.flat(_ellipse(x, y, 0.17, 0.16)), person.hair)
    side = 1.0 if person.light_x > 0 else -1.0
    angle_N = -0.5 * np.pi + side * np.linspace(0.18, 0.85, 9)
    outer_N2 = np.stack((0.88 * person.face_width * np.cos(angle_N), 0.93 * np.sin(angle_N)), axis=1)
    thickness_N2 = np.stack((np.zeros(9), 0.06 * np.sin(np.linspace(0.0, np.pi, 9))), axis=1)
    gleam_N2 = np.concatenate((outer_N2, (outer_N2 + thickness_N2)[::-1]))
    draw.polygon(projector.flat(gleam_N2), shade(person.hair, 1.18))


def _draw_glasses(draw: ImageDraw.ImageDraw, person: Person, pose: Pose, projector: Projector, tone: Rgb) -> None:
    stroke = max(2, round(0.035 * pose.unit_px))
    spacing = person.eye_spacing
    for side in (-1.0, 1.0):
        rim = projector.on_face(_ellipse(side * spacing, -0.03, 0.245, 0.205), 0.06)
        draw.line(rim + rim[:4], tone, stroke, joint="curve")
    bridge_N2 = np.array([[-spacing + 0.24, -0.06], [0.0, -0.09], [spacing - 0.24, -0.06]])
    draw.line(projector.on_face(bridge_N2, 0.08), tone, stroke)


def _ellipse(x: float, y: float, half_w: float, half_h: float) -> npt.NDArray[np.float64]:
    angle_N = np.linspace(0.0, 2.0 * np.pi, 25)[:-1]
    return np.stack((x + half_w * np.cos(angle_N), y + half_h * np.sin(angle_N)), axis=1)
