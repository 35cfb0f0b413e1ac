"""The dilated temporal convolutional network of Bai, Kolter and Koltun (2018).

Letters: B clips, C channels, L time steps.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from training.models.dropout import KeyedDropout

__all__ = ["TemporalConvNet"]


class CausalConv(nn.Module):
    """Weight-normalised dilated convolution, padded on the left alone: step t sees steps <= t."""

    def __init__(self, in_channels: int, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.left = (kernel - 1) * dilation
        # torch's own first weights: the N(0, 0.01) of the authors' published code is set on a weight that weight
        # normalisation then recomputes. Measured here: starting from 0.01 the demo stays at chance for five epochs.
        self.conv = weight_norm(nn.Conv1d(in_channels, channels, kernel, dilation=dilation))

    def forward(self, x_BCL: Tensor) -> Tensor:
        convolved: Tensor = self.conv(F.pad(x_BCL, (self.left, 0)))
        return convolved


class TemporalBlock(nn.Module):
    """Two causal convolutions with ReLU and dropout, and a residual connection."""

    def __init__(self, in_channels: int, channels: int, kernel: int, dilation: int, dropout: float, salt: int) -> None:
        super().__init__()
        self.conv1 = CausalConv(in_channels, channels, kernel, dilation)
        self.conv2 = CausalConv(channels, channels, kernel, dilation)
        self.dropout1 = KeyedDropout(dropout, salt)
        self.dropout2 = KeyedDropout(dropout, salt + 1)
        self.downsample = nn.Conv1d(in_channels, channels, 1) if in_channels != channels else None

    def forward(self, x_BCL: Tensor, draw_keys_B: Tensor) -> Tensor:
        out = self.dropout1(F.relu(self.conv1(x_BCL)), draw_keys_B)
        out = self.dropout2(F.relu(self.conv2(out)), draw_keys_B)
        shortcut = x_BCL if self.downsample is None else self.downsample(x_BCL)
        return F.relu(out + shortcut)


class TemporalConvNet(nn.Module):
    """x_BCL to h_BCL over `levels` residual blocks, block i with dilation 2**i. draw_keys_B keys the dropout."""

    def __init__(self, in_channels: int, hidden: int, levels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TemporalBlock(in_channels if i == 0 else hidden, hidden, kernel, 2**i, dropout, salt=2 * i) for i in range(levels)
        )

    def forward(self, x_BCL: Tensor, draw_keys_B: Tensor) -> Tensor:
        for block in self.blocks:
            x_BCL = block(x_BCL, draw_keys_B)
        return x_BCL
