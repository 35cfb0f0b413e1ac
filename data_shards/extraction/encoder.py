"""A clip as one vector of a pretrained encoder of videos or of pictures: VideoMAE, ViViT, DINOv2, CLIP and their like.

Letters: N frames of a portion, T frames that are kept of the clip, H height, W width, C = 3 RGB channels, P tokens, F features.

The encoder is frozen and sees the whole clip once: the frames on screen at the centres of T equal parts of it, as
`decode_clip` takes them. A video encoder has its own T, and sees them together; of a picture encoder the frames' features
are averaged [choice: the plainest that is independent of their number].
"""

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, JsonValue
from torch import Tensor

from data_shards.decode import part_centres_s
from data_shards.decode_stream import StreamInfo
from data_shards.errors import ConfigError
from data_shards.extraction.contract import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.hugging_face import load_encoder
from data_shards.extraction.pictures import PictureTransform

__all__ = ["VideoEncoder", "VideoEncoderSettings"]

Pooling = Literal["mean_of_tokens", "first_token", "pooled"]
Floats = npt.NDArray[np.float32]

# What stands for the whole input, by family, as its authors use it: VideoMAE has no class token and is averaged over its
# patches (Tong et al. 2022); ViViT and DINOv2 have one, behind the last layer norm; CLIP's passes one more layer norm,
# which transformers calls pooled (Radford et al. 2021).
_POOLING: dict[str, Pooling] = {
    "videomae": "mean_of_tokens",
    "vivit": "first_token",
    "dinov2": "first_token",
    "clip_vision_model": "pooled",
}
_PICTURES_A_CLIP = 16
_TIE_S = 0.001


class VideoEncoderSettings(ExtractorSettings):
    """model: OWNER/NAME on Hugging Face's hub, or a folder below the one that RAPT_ENCODERS names; never a path. revision: a
    branch, tag or commit of the hub's. num_frames: T; a video encoder's own where it is left out, 16 for pictures.
    pooling: left out, what the family's authors use. fps: among how many frames a second the T are looked for."""

    model: str = "MCG-NJU/videomae-base"
    revision: str | None = None
    num_frames: int | None = Field(default=None, ge=1, le=512)
    pooling: Pooling | None = None
    fps: float = Field(default=8.0, gt=0, le=60)
    precision: Literal["float32", "bfloat16"] = "float32"


class VideoEncoder(Extractor):
    """Any encoder that transformers loads as a model of pixel values, on the GPU where there is one."""

    settings_type: ClassVar[type[ExtractorSettings]] = VideoEncoderSettings

    def __init__(self, settings: VideoEncoderSettings) -> None:
        super().__init__(settings)
        self.fps = settings.fps
        loaded = load_encoder(settings.model, revision=settings.revision, vision_tower=True)
        self.config: Any = loaded.model.config
        self.sha256 = loaded.sha256
        self.pooling = settings.pooling or _pooling_of(self.config.model_type, settings.model)
        self.is_video = hasattr(self.config, "num_frames")
        self.num_frames = _num_frames(settings, self.config.num_frames if self.is_video else None)
        self.prepare = PictureTransform.from_folder(loaded.folder, settings.model)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = getattr(torch, settings.precision)
        self.network: Any = loaded.model.to(self.device, self.dtype)

    @property
    def about(self) -> dict[str, JsonValue]:
        return {
            "network": self.config.model_type,
            "weights_sha256": self.sha256,
            "features": self.config.hidden_size,
            "num_frames": self.num_frames,
            "pooling": self.pooling,
            "torch": torch.__version__,
        }

    def read(self, clip: ClipMaterial, stream: StreamInfo | None) -> Reading:
        assert stream is not None  # what looks at frames is not asked where there are none
        return _EncoderReading(self, stream.duration_s)

    @torch.inference_mode()
    def features(self, pictures_TCHW: Tensor) -> Floats:
        """features_F of a clip's prepared pictures."""
        pixels = pictures_TCHW.to(self.device, self.dtype)
        try:
            output = self.network(pixel_values=pixels[None] if self.is_video else pixels)
        except (ValueError, RuntimeError) as error:
            shape = tuple(pictures_TCHW.shape)
            raise ConfigError(f"encoder {self.settings.model}: takes no pictures of {shape} ({str(error)[:160]})") from None
        return np.asarray(self._pooled(output).float().mean(dim=0).cpu().numpy(), dtype=np.float32)

    def _pooled(self, output: Any) -> Tensor:
        """One row for the video, or for each picture."""
        pooled: Tensor = output.pooler_output if self.pooling == "pooled" else output.last_hidden_state
        if self.pooling == "pooled":
            return pooled
        return pooled.mean(dim=1) if self.pooling == "mean_of_tokens" else pooled[:, 0]


class _EncoderReading(Reading):
    """Keeps the prepared pictures of the parts that have passed, and the last frame that came.

    A frame comes with the centre of the time that it stands for, so it is on screen until halfway to the next one.
    """

    def __init__(self, extractor: VideoEncoder, duration_s: float) -> None:
        self._extractor = extractor
        self._centres_T = part_centres_s(extractor.num_frames, duration_s)
        self._pictures: list[Tensor] = []
        self._on_screen_HWC: npt.NDArray[np.uint8] | None = None
        self._time_s = 0.0

    def see(self, frames_NHWC: npt.NDArray[np.uint8], times_N: npt.NDArray[np.float64]) -> None:
        for frame_HWC, time_s in zip(frames_NHWC, times_N.tolist(), strict=True):
            if self._on_screen_HWC is not None:
                self._keep(int(np.searchsorted(self._centres_T + _TIE_S, (self._time_s + time_s) / 2, side="left")))
            self._on_screen_HWC, self._time_s = frame_HWC, time_s

    def finish(self) -> Floats | None:
        if self._on_screen_HWC is None:
            self.lacking = "no frame"
            return None
        self._keep(self._extractor.num_frames)
        return self._extractor.features(torch.stack(self._pictures))

    def _keep(self, parts: int) -> None:
        """The frame on screen is the picture of the parts up to this one that have none yet."""
        assert self._on_screen_HWC is not None
        if parts > len(self._pictures):
            picture_CHW = self._extractor.prepare(self._on_screen_HWC)
            self._pictures += [picture_CHW] * (parts - len(self._pictures))


def _pooling_of(model_type: str, name: str) -> Pooling:
    if model_type not in _POOLING:
        raise ConfigError(
            f"encoder {name}: how a {model_type} is pooled is not known here; "
            "set pooling to mean_of_tokens, first_token or pooled"
        )
    return _POOLING[model_type]


def _num_frames(settings: VideoEncoderSettings, own: int | None) -> int:
    if own is not None and settings.num_frames not in (None, own):
        raise ConfigError(f"encoder {settings.model}: looks at {own} frames, not at {settings.num_frames}; leave num_frames out")
    return own or settings.num_frames or _PICTURES_A_CLIP
