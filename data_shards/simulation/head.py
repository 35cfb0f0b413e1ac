"""The shape of a head: facial features as points on an ellipsoid, turned by the pose and projected.

Coordinates are in head half-heights with x to the right, y down and z towards the camera; the chin is near
y = 1, the crown near y = -1. Letters: N points, 2 and 3 their coordinates.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_shards.simulation.person import Person

Points = npt.NDArray[np.float64]

_DEPTH = 0.78
_HEIGHT = 1.06
# A face is flatter in front than an ellipsoid; with 1 here, lowered faces look cross.
_ROUNDNESS_X = 0.7
_ANGLE_N = np.linspace(0.0, 2.0 * np.pi, 33)[:-1]
_LID_N = np.linspace(-1.0, 1.0, 11)


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the head is and what the face does in one frame.

    centre_px: head centre (x, y). unit_px: pixels a head half-height. Angles in rad, pitch positive down,
    yaw positive to the right. gaze_x, gaze_y in [-1, 1]. closure, mouth, brow in [0, 1].
    """

    centre_px: tuple[float, float]
    unit_px: float
    pitch_rad: float
    yaw_rad: float
    roll_rad: float
    gaze_x: float
    gaze_y: float
    closure: float
    mouth: float
    brow: float


class Projector:
    """Turns head points into pixels for one pose."""

    def __init__(self, person: Person, pose: Pose) -> None:
        self._width = person.face_width
        self._pose = pose
        sin_p, cos_p = np.sin(pose.pitch_rad), np.cos(pose.pitch_rad)
        sin_y, cos_y = np.sin(pose.yaw_rad), np.cos(pose.yaw_rad)
        turn = np.array([[cos_y, 0.0, sin_y], [0.0, 1.0, 0.0], [-sin_y, 0.0, cos_y]])
        tilt = np.array([[1.0, 0.0, 0.0], [0.0, cos_p, sin_p], [0.0, -sin_p, cos_p]])
        self._rotation_33 = (tilt @ turn).T
        sin_r, cos_r = np.sin(pose.roll_rad), np.cos(pose.roll_rad)
        self._roll_22 = pose.unit_px * np.array([[cos_r, sin_r], [-sin_r, cos_r]])
        self._centre_2 = np.array(pose.centre_px)

    def on_face(self, points_N2: Points, raised: float | Points = 0.0) -> list[float]:
        """Pixels of points given on the front of the face; raised lifts them off it. Flat x, y, x, y, ..."""
        return self.flat(self._turned(points_N2, raised))

    def parts_on_face(self, parts: dict[str, Points], raised: float = 0.0) -> dict[str, list[float]]:
        """Pixels of several parts, turned together, which is much faster than one by one."""
        flat = self.on_face(np.concatenate(list(parts.values())), raised)
        ends = 2 * np.cumsum([len(points) for points in parts.values()])
        return {name: flat[end - 2 * len(points) : end] for (name, points), end in zip(parts.items(), ends, strict=True)}

    def flat(self, points_N2: Points) -> list[float]:
        """Pixels of points already in the picture plane. Flat x, y, x, y, ..."""
        flat: list[float] = (points_N2 @ self._roll_22 + self._centre_2).ravel().tolist()
        return flat

    def turned_edge(self, points_N2: Points) -> Points:
        """Points of the face in the picture plane, those turned away held at the head's edge."""
        return self._turned(points_N2, 0.02)

    def _turned(self, points_N2: Points, raised: float | Points) -> Points:
        x_N, y_N = points_N2[:, 0], points_N2[:, 1]
        inside_N = 1.0 - _ROUNDNESS_X * (x_N / self._width) ** 2 - (y_N / _HEIGHT) ** 2
        z_N = _DEPTH * np.sqrt(np.maximum(inside_N, 0.02)) + raised
        turned_N3 = np.stack((x_N, y_N, z_N), axis=1) @ self._rotation_33
        radius_N = np.sqrt((turned_N3[:, 0] / (1.02 * self._width)) ** 2 + (turned_N3[:, 1] / 1.08) ** 2)
        outside_N = np.where(turned_N3[:, 2] < 0.0, radius_N, np.maximum(radius_N, 1.0))
        turned_N2: Points = turned_N3[:, :2] / np.maximum(outside_N, 0.05)[:, None]
        return turned_N2

    def ear_px(self, side: float) -> tuple[list[float], bool]:
        """Pixels of an ear (side -1 left, 1 right) and whether it is turned towards the camera."""
        anchor_3 = np.array([side * 0.98 * self._width, 0.02, -0.04]) @ self._rotation_33
        ear_N2 = np.stack((0.10 * np.cos(_ANGLE_N), 0.19 * np.sin(_ANGLE_N)), axis=1) + anchor_3[:2]
        return self.flat(ear_N2), bool(anchor_3[2] > 0.15)


def face_outline(person: Person, pose: Pose) -> Points:
    """The skin's outline in the picture plane (32, 2); the jaw drops as the mouth opens."""
    x_N, y_N = person.face_width * np.cos(_ANGLE_N), np.sin(_ANGLE_N)
    low_N = np.maximum(y_N, 0.0)
    x_N = x_N * (1.0 - 0.30 * person.jaw * low_N**2.5) * (1.0 + 0.10 * low_N * (1.0 - low_N))
    x_N = x_N + 0.16 * np.sin(pose.yaw_rad) * low_N
    y_N = y_N + low_N * (0.05 * np.sin(pose.pitch_rad) + 0.10 * pose.mouth)
    return np.stack((x_N, y_N), axis=1)


def hair_cap(person: Person, pose: Pose, projector: Projector, *, volume: float, sideburn_y: float) -> Points:
    """The hair over the head in the picture plane: an outer arc, and the hairline turned with the face."""
    arc_N = np.linspace(np.pi, 2.0 * np.pi, 21)
    width = person.face_width + 0.55 * volume
    outer_N2 = np.stack((width * np.cos(arc_N), (1.0 + volume) * np.sin(arc_N)), axis=1)
    outer_N2[[0, -1], 1] = sideburn_y
    part = 0.22 if person.hair_style == "side_part" else 0.0
    x_N = np.linspace(0.97, -0.97, 15)
    line_y_N = -0.56 - 0.10 * np.cos(2.2 * (x_N - 2 * part)) + (sideburn_y + 0.56) * np.abs(x_N) ** 6
    hairline_N2 = projector.turned_edge(np.stack((x_N * person.face_width, line_y_N), axis=1))
    return np.concatenate((outer_N2, hairline_N2))


def eye_parts(person: Person, pose: Pose, side: float) -> dict[str, Points]:
    """One eye (side -1 left, 1 right) on the face: the opening, iris, the lids that cover it, and brow.

    Returns "white", "upper_lid", "lower_lid", "lash", "iris", "pupil", "glint" and "brow", each (N, 2).
    """
    centre_2 = np.array([side * person.eye_spacing, -0.06])
    half_w, half_h = person.eye_width, person.eye_height
    x_N = half_w * _LID_N
    arch_N = np.sqrt(1.0 - 0.96 * _LID_N**2)
    # The upper lid does nearly all of the closing, as in people, and sinks a little when looking down.
    closure = min(1.0, pose.closure + 0.22 * max(0.0, pose.gaze_y) * (1.0 - pose.closure))
    upper_N = half_h * arch_N * (-1.0 + 1.55 * closure)
    lower_N = half_h * arch_N * (0.85 - 0.25 * closure)
    upper_N = np.minimum(upper_N, lower_N)
    upper_N2 = np.stack((x_N, upper_N), axis=1) + centre_2
    lower_N2 = np.stack((x_N, lower_N), axis=1) + centre_2
    fold_N2 = np.stack((1.12 * x_N, -1.55 * half_h * arch_N - 0.03), axis=1) + centre_2
    bag_N2 = np.stack((1.12 * x_N, 1.45 * half_h * arch_N + 0.05), axis=1) + centre_2
    lash_rise = np.array([0.0, 0.030 + 0.012 * closure])
    iris_2 = centre_2 + np.array([0.085 * pose.gaze_x, 0.035 * pose.gaze_y - 0.005])
    ring_N2 = np.stack((np.cos(_ANGLE_N[::2]), np.sin(_ANGLE_N[::2])), axis=1)
    glint_2 = iris_2 + np.array([0.035, -0.04])
    brow_lift = np.array([0.0, -0.05 * pose.brow])
    brow_top_N = -0.245 - 0.055 * (1.0 - _LID_N**2) - person.brow_thickness
    brow_low_N = -0.245 - 0.045 * (1.0 - _LID_N**2) + person.brow_thickness * (1.0 - 0.5 * _LID_N * side)
    brow_top_N2 = np.stack((1.2 * x_N, brow_top_N), axis=1) + centre_2 + brow_lift
    brow_low_N2 = np.stack((1.2 * x_N, brow_low_N), axis=1) + centre_2 + brow_lift
    return {
        "white": np.concatenate((upper_N2, lower_N2[::-1])),
        "upper_lid": np.concatenate((fold_N2, upper_N2[::-1])),
        "lower_lid": np.concatenate((lower_N2, bag_N2[::-1])),
        "lash": np.concatenate((upper_N2 - lash_rise, upper_N2[::-1] + 0.4 * lash_rise)),
        "iris": iris_2 + 0.95 * half_h * ring_N2,
        "pupil": iris_2 + 0.48 * half_h * ring_N2,
        "glint": glint_2 + 0.024 * ring_N2,
        "brow": np.concatenate((brow_top_N2, brow_low_N2[::-1])),
    }


def nose_parts(person: Person) -> dict[str, Points]:
    """The nose on the face: "side" (the shaded flank), "tip" and two nostrils, each (N, 2)."""
    tip_y = 0.02 + person.nose_length
    ring_N2 = np.stack((np.cos(_ANGLE_N[::2]), np.sin(_ANGLE_N[::2])), axis=1)
    flank = -1.0 if person.light_x > 0 else 1.0
    return {
        "side": np.array([[0.03 * flank, -0.08], [0.055 * flank, tip_y], [0.13 * flank, tip_y + 0.01], [0.07 * flank, 0.0]]),
        "tip": np.array([0.0, tip_y]) + ring_N2 * np.array([0.115, 0.07]),
        "left": np.array([-0.055, tip_y + 0.045]) + ring_N2 * np.array([0.028, 0.016]),
        "right": np.array([0.055, tip_y + 0.045]) + ring_N2 * np.array([0.028, 0.016]),
    }


def mouth_parts(person: Person, pose: Pose) -> dict[str, Points]:
    """The mouth on the face: "lips" around "inside", with "teeth" below the upper lip, each (N, 2)."""
    opening = pose.mouth
    half_w = person.mouth_width * (1.0 - 0.22 * opening)
    middle_y = 0.565 + 0.07 * opening
    x_N = half_w * _LID_N
    arch_N = np.sqrt(1.0 - 0.98 * _LID_N**2)
    gap = 0.012 + 0.20 * opening
    bow_N = 0.02 * (1.0 - np.abs(_LID_N)) * np.cos(9.0 * _LID_N)
    top_N, bottom_N = middle_y - gap * arch_N, middle_y + gap * arch_N + 0.012 * arch_N
    smile_N = -0.035 * _LID_N**2 * (1.0 - opening)
    inner_top_N2 = np.stack((x_N, top_N + smile_N), axis=1)
    inner_bottom_N2 = np.stack((x_N, bottom_N + smile_N), axis=1)
    lip_top_N2 = np.stack((1.08 * x_N, top_N + smile_N - 0.055 * arch_N + bow_N), axis=1)
    lip_bottom_N2 = np.stack((1.08 * x_N, bottom_N + smile_N + 0.070 * arch_N), axis=1)
    teeth_N2 = np.stack((0.8 * x_N, np.minimum(top_N + 0.06 * arch_N, bottom_N)), axis=1)
    return {
        "lips": np.concatenate((lip_top_N2, lip_bottom_N2[::-1])),
        "inside": np.concatenate((inner_top_N2, inner_bottom_N2[::-1])),
        "teeth": np.concatenate((inner_top_N2 * np.array([0.8, 1.0]), teeth_N2[::-1])),
    }
