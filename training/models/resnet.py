"""ResNet (He et al. 2015) with basic blocks, with torchvision's state-dict names, so its published weights load.

Letters: N frames, C channels, H height, W width, F = the last stage's width, features a frame.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from data_shards.errors import ModelError

__all__ = ["ResNet", "load_weights"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + shortcut
        activated: Tensor = self.relu(out)
        return activated


class ResNet(nn.Module):
    """frames_NCHW float to features_NF, without the last layer; ResNet-18 has widths (64, 128, 256, 512), two blocks a stage."""

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.num_features = widths[-1]
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = widths[0]
        for stage, width in enumerate(widths, start=1):
            first = BasicBlock(in_channels, width, stride=1 if stage == 1 else 2)
            rest = [BasicBlock(width, width, stride=1) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
            in_channels = width
        self.stages = len(widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def last_stage(self) -> nn.Module:
        """What the mean over places is taken of."""
        return self.get_submodule(f"layer{self.stages}")

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        out = self.maxpool(self.relu(self.bn1(self.conv1(frames_NCHW))))
        for stage in range(1, self.stages + 1):
            out = self.get_submodule(f"layer{stage}")(out)
        features: Tensor = out.mean(dim=(2, 3))
        return features


def load_weights(resnet: ResNet, source: str) -> None:
    """Load ResNet-18 weights with torchvision's names: a .safetensors or .pth file, or `hf://OWNER/NAME` from Hugging Face.

    Nothing is unpickled (`weights_only`). ModelError where they cannot be had or do not fit.
    """
    path = _from_hub(source.removeprefix("hf://")) if source.startswith("hf://") else Path(source)
    if not path.is_file():
        raise ModelError(f"model.weights: no file {path}; name a ResNet-18 state-dict file, or set model.weights=none")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the formats raise errors of many kinds for a damaged file
        raise ModelError(f"model.weights: {path} cannot be read as a state dict ({type(error).__name__})") from None
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    try:
        resnet.load_state_dict(kept)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:120]
        raise ModelError(
            f"model.weights: {path} does not fit this ResNet ({reason}); give ResNet-18 weights to a ResNet-18"
        ) from None


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "model.safetensors"))
    except Exception as error:  # hub errors, HTTP errors and socket errors alike mean the same to the user
        raise ModelError(
            f"model.weights: hf://{name} cannot be fetched ({type(error).__name__}); go online once, "
            "name a local file with --set model.weights=PATH, or train from scratch with model.weights=none"
        ) from None
