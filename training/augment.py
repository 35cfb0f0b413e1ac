"""Augmentation on the device, drawn once a clip: every frame of a clip changes alike, so its motion stays its own.

What is drawn follows from the sample's draw key, so a clip looks the same whichever worker reads it, before a restart
or after. Letters: B clips, T frames, C = 3 RGB channels, H height, W width.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from data_shards.schema import Stored
from training.models.dropout import keyed_uniform

__all__ = ["AugmentConfig", "augment"]


class AugmentConfig(Stored):
    """What may change, all off by default. brightness, contrast, saturation: largest relative change of a clip; rotate_deg:
    largest turn; zoom: largest relative enlargement or shrinking; shift: largest move, as a share of the side."""

    flip: bool = False
    brightness: float = Field(default=0.0, ge=0.0, le=0.9)
    contrast: float = Field(default=0.0, ge=0.0, le=0.9)
    saturation: float = Field(default=0.0, ge=0.0, le=0.9)
    rotate_deg: float = Field(default=0.0, ge=0.0, le=45.0)
    zoom: float = Field(default=0.0, ge=0.0, le=0.5)
    shift: float = Field(default=0.0, ge=0.0, le=0.5)


def augment(frames_BTCHW: Tensor, draw_keys_B: Tensor, config: AugmentConfig) -> Tensor:
    """Frames changed as their clips' draw keys say. uint8 in [0, 255] in and out, any T, also 0."""
    if config.flip:
        mirrored_B = (draw_keys_B & 1).bool()
        frames_BTCHW = torch.where(mirrored_B.view(-1, 1, 1, 1, 1), frames_BTCHW.flip(-1), frames_BTCHW)
    if frames_BTCHW.numel() and (config.rotate_deg or config.zoom or config.shift):
        frames_BTCHW = _moved(frames_BTCHW, draw_keys_B, config)
    if frames_BTCHW.numel() and (config.contrast or config.saturation):
        frames_BTCHW = _coloured(frames_BTCHW, draw_keys_B, config)
    if config.brightness:
        uniform_B = ((draw_keys_B >> 8) & 0xFFFFFF).to(torch.float32) / 2**24
        factor_B = 1 + config.brightness * (2 * uniform_B - 1)
        scaled = frames_BTCHW.to(torch.float32) * factor_B.view(-1, 1, 1, 1, 1)
        frames_BTCHW = scaled.clamp_(0, 255).to(torch.uint8)
    return frames_BTCHW


def _moved(frames_BTCHW: Tensor, draw_keys_B: Tensor, config: AugmentConfig) -> Tensor:
    """Turned, enlarged and shifted about the centre; what comes in from outside repeats the border."""
    from kornia.geometry.transform import get_affine_matrix2d, warp_affine  # imports for seconds: only where it is asked for

    height, width = frames_BTCHW.shape[-2:]
    side_2 = torch.tensor([width, height], dtype=torch.float32, device=frames_BTCHW.device)
    keyed = _Keyed(draw_keys_B)
    shift_B2 = torch.stack([keyed.signed(config.shift, salt=1), keyed.signed(config.shift, salt=2)], dim=1) * side_2
    zoom_B2 = (1 + keyed.signed(config.zoom, salt=3)).unsqueeze(1).expand(-1, 2)
    centre_B2 = ((side_2 - 1) / 2).expand(len(draw_keys_B), 2)
    matrix_B33: Any = get_affine_matrix2d(shift_B2, centre_B2, zoom_B2, keyed.signed(config.rotate_deg, salt=4))
    stacked = frames_BTCHW.flatten(1, 2).to(torch.float32)  # a clip's frames as channels of one image: one grid a clip
    moved: Tensor = warp_affine(stacked, matrix_B33[:, :2], (height, width), padding_mode="border", align_corners=True)
    return moved.round_().clamp_(0, 255).to(torch.uint8).view(frames_BTCHW.shape)


def _coloured(frames_BTCHW: Tensor, draw_keys_B: Tensor, config: AugmentConfig) -> Tensor:
    from kornia.enhance import adjust_contrast_with_mean_subtraction, adjust_saturation_with_gray_subtraction

    num_frames = frames_BTCHW.shape[1]
    keyed = _Keyed(draw_keys_B)
    contrast_N = (1 + keyed.signed(config.contrast, salt=5)).repeat_interleave(num_frames)
    saturation_N = (1 + keyed.signed(config.saturation, salt=6)).repeat_interleave(num_frames)
    images_NCHW = frames_BTCHW.flatten(0, 1).to(torch.float32) / 255
    images_NCHW = adjust_contrast_with_mean_subtraction(images_NCHW, contrast_N)
    images_NCHW = adjust_saturation_with_gray_subtraction(images_NCHW, saturation_N)
    return (images_NCHW * 255).round_().clamp_(0, 255).to(torch.uint8).view(frames_BTCHW.shape)


class _Keyed:
    """Numbers of each clip's own, from its draw key."""

    def __init__(self, draw_keys_B: Tensor) -> None:
        self._keys_B = draw_keys_B

    def signed(self, largest: float, *, salt: int) -> Tensor:
        """float32 (B,), uniform in [-largest, largest)."""
        return largest * (2 * keyed_uniform(self._keys_B, salt=salt) - 1)
