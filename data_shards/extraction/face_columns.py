"""What MediaPipe says of a face, under the names and in the units of OpenFace: gaze, head pose, action-unit-like intensities.

OpenFace's camera (Baltrusaitis et al. 2018): x right, y down, z away from the camera; its focal length, where none is
given, is 500 pixels for a picture of 640x480. Nothing here is fitted to OpenFace's output; docs/openface.md compares the two.
Letters: L = 478 landmarks, D = 31 columns.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from data_shards.datasets.openface import ACTION_UNITS, GAZE, HEAD_POSE
from data_shards.extraction.face_track import View
from data_shards.face_landmarks import LandmarkedFace

__all__ = ["ACTION_UNIT_SHAPES", "FACE_COLUMNS", "face_row"]

Vector = npt.NDArray[np.float64]

# [choice] An intensity is 5 times the sum of weight x blendshape, kept within 0 and 5. The pairs follow the muscles that the
# Facial Action Coding System and the blendshapes name; a side each where there are two. AU23 (lips tightened) has no shape
# of its own and takes the pressed lips. MediaPipe's model never moves cheekSquint and noseSneer: AU06 and AU09 stay near 0.
ACTION_UNIT_SHAPES: dict[str, dict[str, float]] = {
    "AU01_r": {"browInnerUp": 1.0},
    "AU02_r": {"browOuterUpLeft": 0.5, "browOuterUpRight": 0.5},
    "AU04_r": {"browDownLeft": 0.5, "browDownRight": 0.5},
    "AU05_r": {"eyeWideLeft": 0.5, "eyeWideRight": 0.5},
    "AU06_r": {"cheekSquintLeft": 0.5, "cheekSquintRight": 0.5},
    "AU07_r": {"eyeSquintLeft": 0.5, "eyeSquintRight": 0.5},
    "AU09_r": {"noseSneerLeft": 0.5, "noseSneerRight": 0.5},
    "AU10_r": {"mouthUpperUpLeft": 0.5, "mouthUpperUpRight": 0.5},
    "AU12_r": {"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5},
    "AU14_r": {"mouthDimpleLeft": 0.5, "mouthDimpleRight": 0.5},
    "AU15_r": {"mouthFrownLeft": 0.5, "mouthFrownRight": 0.5},
    "AU17_r": {"mouthShrugLower": 1.0},
    "AU20_r": {"mouthStretchLeft": 0.5, "mouthStretchRight": 0.5},
    "AU23_r": {"mouthPressLeft": 0.5, "mouthPressRight": 0.5},
    "AU25_r": {"jawOpen": 1.0, "mouthClose": -1.0},  # mouthClose: the lips closed although the jaw is open
    "AU26_r": {"jawOpen": 1.0},
    "AU45_r": {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5},
}
FACE_COLUMNS = (*GAZE, *HEAD_POSE, *ACTION_UNIT_SHAPES)
assert tuple(ACTION_UNIT_SHAPES) == ACTION_UNITS[: len(ACTION_UNIT_SHAPES)], "OpenFace's names, in its order"

_HALF_FIELD_RAD = math.radians(63) / 2  # vertical, of the camera that MediaPipe takes every picture to be from
_TO_OPENFACE = np.diag([1.0, -1.0, -1.0])  # MediaPipe: x right, y up, z to the camera
# [choice] OpenFace's origin of a head is the mean of its model's 68 points; this is the mean of those of MediaPipe's
# canonical face that lie in the same places (jaw, brows, nose, eyes, mouth), in its axes
_HEAD_POINT_CM = np.array([0.0, -1.22, 3.62])
# [choice] The eye is a ball of 12 mm with the iris on it. Its centre lies 12 mm behind the middle of the lids, which in the
# canonical face is 8.4 mm behind the middle between the corners, at the same height
_EYE_RADIUS_MM = 12.0
_EYE_DEPTH_MM = 8.4
_EYES = ((33, 133, 468), (362, 263, 473))  # the left eye in the picture, as OpenFace's eye 0, and the right: corners, iris


def face_row(face: LandmarkedFace, view: View, *, width: int, height: int) -> npt.NDArray[np.float32]:
    """(D,) float32: FACE_COLUMNS of a face in a picture of width x height pixels, whose landmarks lie in its `view`."""
    focal_px = 500 * (width / 640 + height / 480) / 2
    position_mm = _position(face.pose_44, view, focal_px, width=width, height=height)
    rotation_33 = _rotation(face.pose_44)
    gaze = _gaze(face.points_L2, rotation_33, position_mm, focal_px)
    return np.concatenate([gaze, position_mm, _angles(rotation_33), _intensities(face.blendshapes)]).astype(np.float32)


def _position(pose_44: Vector, view: View, focal_px: float, *, width: int, height: int) -> Vector:
    """pose_Tx to pose_Tz in mm: the same point of the same picture, at the distance at which OpenFace's camera would see it."""
    own_focal_px = view.height / 2 / math.tan(_HALF_FIELD_RAD)
    x, y, z = _TO_OPENFACE @ (pose_44[:3, :3] @ _HEAD_POINT_CM + pose_44[:3, 3]) * 10
    away_mm = z * focal_px / own_focal_px
    across_px = view.left + view.width / 2 + own_focal_px * x / z - width / 2
    down_px = view.top + view.height / 2 + own_focal_px * y / z - height / 2
    return np.array([across_px * away_mm / focal_px, down_px * away_mm / focal_px, away_mm])


def _rotation(pose_44: Vector) -> Vector:
    """The head's rotation in OpenFace's axes. [choice] MediaPipe's own, also where its camera is not OpenFace's: it tells the
    head's rotation to the line of sight from that to the camera's axis only in part."""
    left_33, _, right_33 = np.linalg.svd(pose_44[:3, :3])  # a scale may be in it
    rotation_33: Vector = _TO_OPENFACE @ left_33 @ right_33 @ _TO_OPENFACE
    return rotation_33


def _angles(rotation_33: Vector) -> Vector:
    """pose_Rx (down is positive), pose_Ry, pose_Rz in rad, of R = Rx Ry Rz."""
    pitch = math.atan2(-rotation_33[1, 2], rotation_33[2, 2])
    yaw = math.asin(min(1.0, max(-1.0, rotation_33[0, 2])))
    return np.array([pitch, yaw, math.atan2(-rotation_33[0, 1], rotation_33[0, 0])])


def _gaze(points_L2: Vector, rotation_33: Vector, position_mm: Vector, focal_px: float) -> Vector:
    """Both eyes' unit vectors, and the angles in rad of their mean: where the iris lies on the ball of the eye.

    (iris - centre) / radius is the direction, seen along the line of sight, which is turned into the camera's axes.
    """
    mm_per_px = position_mm[2] / focal_px
    behind_mm = rotation_33 @ np.array([0.0, 0.0, _EYE_DEPTH_MM])
    to_camera_33 = _turn_from_axis(position_mm)
    vectors = []
    for corner, other, iris in _EYES:
        offset_mm = (points_L2[iris] - (points_L2[corner] + points_L2[other]) / 2) * mm_per_px - behind_mm[:2]
        across_2 = offset_mm / _EYE_RADIUS_MM
        across_2 = across_2 * min(1.0, 0.99 / max(1e-9, float(np.hypot(*across_2))))  # an iris beside the ball: its edge
        vectors.append(to_camera_33 @ np.array([*across_2, -math.sqrt(1 - across_2 @ across_2)]))
    x, y, z = (vectors[0] + vectors[1]) / 2
    return np.array([*vectors[0], *vectors[1], math.atan2(x, -z), math.atan2(y, -z)])


def _turn_from_axis(direction_3: Vector) -> Vector:
    """The smallest rotation that takes the camera's axis (0, 0, 1) to a direction before it (Rodrigues' formula)."""
    x, y, z = direction_3 / np.linalg.norm(direction_3)
    skew_33 = np.array([[0.0, 0.0, x], [0.0, 0.0, y], [-x, -y, 0.0]])
    turn_33: Vector = np.eye(3) + skew_33 + skew_33 @ skew_33 / (1 + z)
    return turn_33


def _intensities(blendshapes: Mapping[str, float]) -> Vector:
    """17 values from 0 to 5, in the order of OpenFace's intensities."""
    sums = (sum(weight * blendshapes[name] for name, weight in shapes.items()) for shapes in ACTION_UNIT_SHAPES.values())
    return np.array([5 * min(1.0, max(0.0, value)) for value in sums])
