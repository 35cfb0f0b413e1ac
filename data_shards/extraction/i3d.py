"""I3D features of a clip: one vector of 1024, the input X_I3D of MocoRank (Wu et al. 2023).

Letters: N frames of a portion, W windows, T frames of a window, H height, W (after H) width, C channels, F = 1024 features.

What the paper leaves open. CMOSE publishes one vector a clip, without saying how windows became one: here windows of 64
frames (the length that I3D was trained with) follow each other without overlap, and their features are averaged with
their lengths as weights, so that each frame counts alike [choice]. What is left behind the last whole window is a window
of its own from 16 frames on, and is left out below [choice]: I3D halves time three times, and the pool before the
classifier wants two steps. A clip shorter than 16 frames is repeated until it has 16.
"""

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, JsonValue, model_validator
from torch import Tensor
from torch.nn import functional as F

from data_shards.decode_stream import StreamInfo
from data_shards.errors import ConfigError
from data_shards.extraction.contract import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.flow import FlowMethod, OpticalFlow
from data_shards.extraction.inception import NUM_FEATURES, InceptionI3d, load_i3d_weights
from data_shards.storage.store import file_sha256

__all__ = ["MIN_FRAMES", "WEIGHTS_VARIABLE", "I3d", "I3dSettings"]

WEIGHTS_VARIABLE = "RAPT_I3D_WEIGHTS"
MIN_FRAMES = 16
_FLOW_LIMIT_PX = 20.0  # Carreira and Zisserman's code cuts flow to [-20, 20] and scales that to [-1, 1]

Floats = npt.NDArray[np.float32]


class I3dSettings(ExtractorSettings):
    """stream: of which I3D looks at one, colour or optical flow. fps: frames a second that are looked at; 25 as in Kinetics'
    clips. clip_frames: of a window. short_side_px, crop_px: frames are scaled to the first, their centre is cut out.
    batch_windows: how many windows go through at once. precision: of the network; the sums are float32. flow: how the
    stream flow is computed. random_init: weights at random from `seed`, for trials of everything but the features."""

    stream: Literal["rgb", "flow"] = "rgb"
    fps: float = Field(default=25.0, gt=0, le=60)
    clip_frames: int = Field(default=64, ge=MIN_FRAMES, le=256)
    short_side_px: int = Field(default=256, ge=32, le=512)
    crop_px: int = Field(default=224, ge=32, le=512)
    batch_windows: int = Field(default=1, ge=1, le=64)
    precision: Literal["float32", "bfloat16"] = "float32"
    flow: FlowMethod = "tvl1"
    random_init: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _crop_fits(self) -> "I3dSettings":
        if self.crop_px > self.short_side_px:
            raise ValueError(f"a centre of {self.crop_px} pixels cannot be cut out of {self.short_side_px}; lower crop_px")
        return self


class I3d(Extractor):
    """I3D with the weights of the file that RAPT_I3D_WEIGHTS names, on the GPU where there is one."""

    settings_type: ClassVar[type[ExtractorSettings]] = I3dSettings

    def __init__(self, settings: I3dSettings) -> None:
        super().__init__(settings)
        self.fps = settings.fps
        network, self._weights = _network(settings)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = getattr(torch, settings.precision)
        # folded, a window takes less by a pass for each batch norm; channels last is what the convolutions work in
        frozen = network.folded().to(self.device, self.dtype)
        self.network: InceptionI3d = frozen.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @property
    def about(self) -> dict[str, JsonValue]:
        return {"network": "Inception I3D", "features": NUM_FEATURES, "torch": torch.__version__, **self._weights}

    def read(self, clip: ClipMaterial, stream: StreamInfo | None) -> Reading:
        return _I3dReading(self)

    @torch.inference_mode()
    def features(self, windows_WTCHW: Tensor) -> Floats:
        """features_WF of windows of pictures: uint8 RGB, or float32 flow in pixels."""
        on_device = windows_WTCHW.to(self.device)
        if on_device.dtype == torch.uint8:
            scaled = on_device.float().div_(127.5).sub_(1)
        else:
            scaled = on_device.clamp(-_FLOW_LIMIT_PX, _FLOW_LIMIT_PX).div_(_FLOW_LIMIT_PX)
        windows_WCTHW = scaled.transpose(1, 2).to(self.dtype, memory_format=torch.channels_last_3d)
        return np.asarray(self.network(windows_WCTHW).float().cpu().numpy(), dtype=np.float32)


class _I3dReading(Reading):
    """Keeps the pictures of the windows that have not gone through yet, and the sum of the others' features."""

    def __init__(self, extractor: I3d) -> None:
        self._extractor = extractor
        self._flow = OpticalFlow(extractor.settings.flow) if extractor.settings.stream == "flow" else None
        self._pictures_CHW: list[Tensor] = []
        self._sum_F = np.zeros(NUM_FEATURES, np.float64)
        self._weight = 0

    def see(self, frames_NHWC: npt.NDArray[np.uint8], times_N: npt.NDArray[np.float64]) -> None:
        settings = self._extractor.settings
        self._pictures_CHW += _centres(self._moving(_scaled(frames_NHWC, settings.short_side_px)), settings.crop_px)
        if len(self._pictures_CHW) >= settings.clip_frames * settings.batch_windows:
            self._whole_windows()

    def finish(self) -> Floats | None:
        self._whole_windows()
        rest = self._pictures_CHW
        if not self._weight and not rest:
            self.lacking = "no frame" if self._flow is None else "a single frame, which has no flow"
            return None
        if not self._weight and len(rest) < MIN_FRAMES:
            rest = [rest[number % len(rest)] for number in range(MIN_FRAMES)]
        if len(rest) >= MIN_FRAMES:
            self._add(torch.stack(rest)[None])
        return (self._sum_F / self._weight).astype(np.float32)

    def _moving(self, frames_NCHW: Tensor) -> list[Tensor]:
        """The pictures that the stream looks at: the frames, or the flow between each and the one before."""
        if self._flow is None:
            return list(frames_NCHW)
        flows = (self._flow.next(frame_HWC) for frame_HWC in frames_NCHW.permute(0, 2, 3, 1).contiguous().numpy())
        return [torch.from_numpy(flow_HW2).permute(2, 0, 1) for flow_HW2 in flows if flow_HW2 is not None]

    def _whole_windows(self) -> None:
        length, at_once = self._extractor.settings.clip_frames, self._extractor.settings.batch_windows
        while number := min(at_once, len(self._pictures_CHW) // length):
            taken, self._pictures_CHW = self._pictures_CHW[: number * length], self._pictures_CHW[number * length :]
            self._add(torch.stack([torch.stack(taken[at : at + length]) for at in range(0, len(taken), length)]))

    def _add(self, windows_WTCHW: Tensor) -> None:
        length = windows_WTCHW.shape[1]
        self._sum_F += length * self._extractor.features(windows_WTCHW).astype(np.float64).sum(axis=0)
        self._weight += length * len(windows_WTCHW)


def _scaled(frames_NHWC: npt.NDArray[np.uint8], short_side_px: int) -> Tensor:
    """frames_NCHW uint8, the shorter side scaled to short_side_px.

    Bilinear, and antialiased [choice]: a fine pattern that flickers from frame to frame is motion to I3D, and Kinetics was
    scaled down by ffmpeg, which smooths as well. On the CPU in 8 bits wherever the network is, so that devices agree.
    """
    frames_NCHW = torch.from_numpy(np.ascontiguousarray(frames_NHWC)).permute(0, 3, 1, 2)
    height_px, width_px = frames_NCHW.shape[2:]
    scale = short_side_px / min(height_px, width_px)
    size = (max(short_side_px, round(height_px * scale)), max(short_side_px, round(width_px * scale)))
    if size == (height_px, width_px):
        return frames_NCHW
    return F.interpolate(frames_NCHW, size=size, mode="bilinear", align_corners=False, antialias=True)


def _centres(pictures_CHW: list[Tensor], crop_px: int) -> list[Tensor]:
    """The centre square of each, a copy: a view would hold on to the whole picture."""
    if not pictures_CHW:
        return []
    height_px, width_px = pictures_CHW[0].shape[1:]
    top, left = (height_px - crop_px) // 2, (width_px - crop_px) // 2
    return [picture[:, top : top + crop_px, left : left + crop_px].contiguous() for picture in pictures_CHW]


def _network(settings: I3dSettings) -> tuple[InceptionI3d, dict[str, Any]]:
    """(the network on the CPU, what the manifest says of its weights)."""
    channels = 3 if settings.stream == "rgb" else 2
    with torch.random.fork_rng(devices=[]):  # nobody else's draws change
        torch.default_generator.manual_seed(settings.seed)
        network = InceptionI3d(channels)
    if settings.random_init:
        return network, {"weights": f"random, seed {settings.seed}: features without meaning"}
    named = os.environ.get(WEIGHTS_VARIABLE)
    if not named:
        raise ConfigError(
            f"i3d: no weights, and features without them mean nothing; name Kinetics-400's (rgb_imagenet.pt) in "
            f"{WEIGHTS_VARIABLE}, or say random_init=true to try everything but the features"
        )
    load_i3d_weights(network, Path(named))
    return network, {"weights_sha256": file_sha256(Path(named))}
