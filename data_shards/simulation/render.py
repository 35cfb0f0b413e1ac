"""Draws the frames of a clip: room, body, head and face, then light and camera noise."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

from data_shards.simulation.body import draw_body, draw_phone
from data_shards.simulation.head import Pose
from data_shards.simulation.person import Person
from data_shards.simulation.portrait import draw_head
from data_shards.simulation.scene import draw_room, head_light, room_light
from data_shards.simulation.track import BehaviourTrack

# Polygons are drawn at twice the size and averaged down, which smooths their edges.
_OVERSAMPLING = 2
_NUM_NOISE_FRAMES = 12
_FLICKER_HZ = 0.35
_HEAD_LIGHT_STEP = 0.04
_REST_HEIGHT = 0.46


class Portrait:
    """One person in front of one camera; draws any pose as an RGB frame of height_px by width_px."""

    def __init__(self, person: Person, *, width_px: int, height_px: int, rng: np.random.Generator) -> None:
        self._person = person
        self._unit_px = _OVERSAMPLING * height_px * person.head_scale
        self._shift_x, self._shift_y = rng.uniform(-0.06, 0.06), rng.uniform(-0.04, 0.04)
        self._gain = person.light_level * rng.uniform(0.95, 1.05)
        self._flicker_phase = rng.uniform(0.0, 2.0 * np.pi)
        self._room = draw_room(person, _OVERSAMPLING * width_px, _OVERSAMPLING * height_px)
        self._room_light = room_light(person, width_px, height_px)
        self._head_lights: dict[int, Image.Image] = {}
        grain_NHW1 = rng.standard_normal((_NUM_NOISE_FRAMES, height_px, width_px, 1), dtype=np.float32)
        self._noise_NHW1 = np.rint(person.noise * grain_NHW1).astype(np.int16)

    def frames(self, track: BehaviourTrack) -> Iterator[npt.NDArray[np.uint8]]:
        """The clip's frames in order, each uint8 (height_px, width_px, 3)."""
        for index in range(track.num_frames):
            yield self.frame(track, index)

    def frame(self, track: BehaviourTrack, index: int) -> npt.NDArray[np.uint8]:
        """Frame `index` of a track, uint8 (height_px, width_px, 3)."""
        pose = self._pose(track, index)
        canvas = self._room.copy()
        draw = ImageDraw.Draw(canvas)
        # The body follows the head's sway by half, and never turns.
        body_px = self._at_px(0.5 * float(track.sway_x_T[index]), 0.0)
        draw_body(draw, self._person, body_px, self._unit_px * (1.0 + 0.12 * float(track.lean_T[index])))
        draw_head(draw, self._person, pose)
        if track.phone_T[index] > 0.02:
            top_px = canvas.height * (1.0 - 0.20 * float(track.phone_T[index]))
            draw_phone(draw, self._person, (0.5 * canvas.width + 0.25 * self._unit_px, top_px), self._unit_px)
        image = canvas.reduce(_OVERSAMPLING)
        image = ImageChops.multiply(image, self._room_light)
        self._light_head(image, pose)
        return self._expose(image, index / track.fps, index)

    def _at_px(self, x: float, y: float) -> tuple[float, float]:
        """Canvas pixels of a point given in head half-heights from where the head rests."""
        person, unit = self._person, self._unit_px
        left = 0.5 * self._room.width + (person.offset_x + self._shift_x + x) * unit
        top = _REST_HEIGHT * self._room.height + (person.offset_y + self._shift_y + y) * unit
        return left, top

    def _pose(self, track: BehaviourTrack, index: int) -> Pose:
        pitch = float(track.pitch_rad_T[index])
        lean = float(track.lean_T[index])
        x = float(track.sway_x_T[index]) + 0.10 * float(np.sin(track.yaw_rad_T[index]))
        y = float(track.sway_y_T[index]) + 0.22 * float(np.sin(pitch)) + 0.05 * lean
        return Pose(
            centre_px=self._at_px(x, y),
            unit_px=self._unit_px * (1.0 + 0.16 * lean),
            pitch_rad=pitch,
            yaw_rad=float(track.yaw_rad_T[index]),
            roll_rad=float(track.roll_rad_T[index]),
            gaze_x=float(track.gaze_x_T[index]),
            gaze_y=float(track.gaze_y_T[index]),
            closure=float(track.eye_closure_T[index]),
            mouth=float(track.mouth_T[index]),
            brow=float(track.brow_T[index]),
        )

    def _light_head(self, image: Image.Image, pose: Pose) -> None:
        """Shades the part of the frame around the head, in place."""
        step = round(float(np.log(pose.unit_px / self._unit_px)) / _HEAD_LIGHT_STEP)
        if step not in self._head_lights:
            half_height_px = self._unit_px / _OVERSAMPLING * float(np.exp(_HEAD_LIGHT_STEP * step))
            self._head_lights[step] = head_light(self._person, half_height_px)
        light = self._head_lights[step]
        left = round(pose.centre_px[0] / _OVERSAMPLING - light.width / 2)
        top = round(pose.centre_px[1] / _OVERSAMPLING - light.height / 2)
        right, bottom = min(image.width, left + light.width), min(image.height, top + light.height)
        box = (max(0, left), max(0, top), right, bottom)
        cut = light.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))
        image.paste(ImageChops.multiply(image.crop(box), cut), box)

    def _expose(self, image: Image.Image, time_s: float, index: int) -> npt.NDArray[np.uint8]:
        """The camera: exposure with slow flicker, then sensor noise."""
        wave = float(np.sin(2.0 * np.pi * _FLICKER_HZ * time_s + self._flicker_phase))
        gain = self._gain * (1.0 + self._person.flicker * wave)
        curve = np.minimum(255.0, np.rint(gain * np.arange(256))).astype(int).tolist()
        exposed_HW3 = np.array(image.point(curve * 3), dtype=np.int16)
        exposed_HW3 += self._noise_NHW1[(index * 5) % _NUM_NOISE_FRAMES]
        return np.clip(exposed_HW3, 0, 255, out=exposed_HW3).astype(np.uint8)
