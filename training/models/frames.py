"""From stored uint8 frames to what a ResNet reads, on whatever device the frames are.

Letters: B clips, T frames, C = 3 RGB channels, H height, W width.
"""

import torch
from torch import Tensor

__all__ = ["normalise"]

# ImageNet's channel means and deviations, those of the published ResNet-18 weights
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalise(frames_BTCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 in [0, 255] to zero-mean, unit-variance channels, by ImageNet's statistics; the memory layout is kept."""
    mean = torch.tensor(_MEAN, dtype=dtype, device=frames_BTCHW.device).view(3, 1, 1) * 255
    std = torch.tensor(_STD, dtype=dtype, device=frames_BTCHW.device).view(3, 1, 1) * 255
    return (frames_BTCHW.to(dtype) - mean) / std
