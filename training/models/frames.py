"""From stored uint8 frames to what a ResNet reads, on whatever device the frames are.

Letters: B clips, T frames, C = 3 RGB channels, H height, W width.
"""

import torch
from torch import Tensor

__all__ = ["augment", "normalise"]

# ImageNet's channel means and deviations, those of the published ResNet-18 weights
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalise(frames_BTCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 in [0, 255] to zero-mean, unit-variance channels, by ImageNet's statistics; the memory layout is kept."""
    mean = torch.tensor(_MEAN, dtype=dtype, device=frames_BTCHW.device).view(3, 1, 1) * 255
    std = torch.tensor(_STD, dtype=dtype, device=frames_BTCHW.device).view(3, 1, 1) * 255
    return (frames_BTCHW.to(dtype) - mean) / std


def augment(frames_BTCHW: Tensor, draw_keys_B: Tensor, *, flip: bool, brightness: float) -> Tensor:
    """Mirror and brightness, drawn once a clip from its draw key, so every frame of it changes alike. uint8 in and out.

    brightness b scales a clip's pixels by a factor in [1 - b, 1 + b]. The same draw gives the same frames on any
    rank, device or restart.
    """
    if flip:
        mirrored_B = (draw_keys_B & 1).bool()
        frames_BTCHW = torch.where(mirrored_B.view(-1, 1, 1, 1, 1), frames_BTCHW.flip(-1), frames_BTCHW)
    if brightness > 0:
        uniform_B = ((draw_keys_B >> 8) & 0xFFFFFF).to(torch.float32) / 2**24
        factor_B = 1 + brightness * (2 * uniform_B - 1)
        scaled = frames_BTCHW.to(torch.float32) * factor_B.view(-1, 1, 1, 1, 1)
        frames_BTCHW = scaled.clamp_(0, 255).to(torch.uint8)
    return frames_BTCHW
