"""A frame as a pretrained encoder wants it, by its preprocessor_config.json. Letters: H height, W width, C = 3 RGB channels.

Done with Pillow here, because the image processors of transformers ask for torchvision, which Rapt never imports; a test
compares the two.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from data_shards.errors import ConfigError

__all__ = ["PictureTransform"]

_FILE = "preprocessor_config.json"


@dataclass(frozen=True, kw_only=True)
class PictureTransform:
    """Scale, cut out the centre, and shift and stretch each channel.

    short_side_px scales the shorter side and keeps the aspect, (height, width) in size_px scales both; crop_px is (height,
    width). A value v of 0 to 255 becomes (v * factor - offset - mean) / std. resample: a number of Pillow's filters.
    """

    short_side_px: int | None
    size_px: tuple[int, int] | None
    crop_px: tuple[int, int] | None
    resample: int
    factor: float
    offset: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_folder(cls, folder: Path, name: str) -> Self:
        """What an encoder's folder says. ConfigError where it says nothing: a guess would change the features unseen."""
        try:
            said = json.loads((folder / _FILE).read_text())
            size, crop = _sides(said["size"]), _sides(said.get("crop_size", {}))
            normalised = said.get("do_normalize", True)
            return cls(
                short_side_px=size.get("shortest_edge") if said.get("do_resize", True) else None,
                size_px=_height_width(size) if said.get("do_resize", True) else None,
                crop_px=_height_width(crop) if said.get("do_center_crop") else None,
                resample=int(said.get("resample", Image.Resampling.BILINEAR)),
                factor=float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0,
                offset=1.0 if said.get("offset") else 0.0,  # ViViT's, from [0, 2] to [-1, 1]
                mean=tuple(said["image_mean"]) if normalised else (0.0, 0.0, 0.0),
                std=tuple(said["image_std"]) if normalised else (1.0, 1.0, 1.0),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"encoder {name}: its {_FILE} does not say how pictures are prepared ({type(error).__name__}: {error}); "
                "take a repository that has one"
            ) from None

    def __call__(self, frame_HWC: npt.NDArray[np.uint8]) -> Tensor:
        """picture_CHW float32 of an upright uint8 RGB frame."""
        picture = Image.fromarray(frame_HWC)
        target = self._target(picture.width, picture.height)
        if target != picture.size:
            picture = picture.resize(target, Image.Resampling(self.resample))
        if self.crop_px is not None:
            height, width = self.crop_px
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))  # black where the picture is smaller
        # numpy: torch's threads cost more than such small sums (measured beside other work: 32 ms of processor a frame, 2 so)
        std_C = np.asarray(self.std, np.float32)
        scaled_HWC = np.asarray(picture) * (np.float32(self.factor) / std_C)
        scaled_HWC -= (np.asarray(self.mean, np.float32) + np.float32(self.offset)) / std_C
        return torch.from_numpy(np.ascontiguousarray(scaled_HWC.transpose(2, 0, 1)))

    def _target(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(width, height) after scaling; the longer side is cut to whole pixels, not rounded, as transformers does it."""
        if self.short_side_px is not None:
            short = min(width_px, height_px)
            return self.short_side_px * width_px // short, self.short_side_px * height_px // short
        if self.size_px is not None:
            return self.size_px[1], self.size_px[0]
        return width_px, height_px


def _sides(size: Any) -> dict[str, int]:
    """Older files have a number: the shorter side of "size", both of "crop_size"; it serves as either here."""
    return {"shortest_edge": size, "height": size, "width": size} if isinstance(size, int) else dict(size)


def _height_width(size: dict[str, int]) -> tuple[int, int] | None:
    return (size["height"], size["width"]) if "height" in size else None
