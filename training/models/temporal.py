"""What reads the chunks of a clip in order: the dilated TCN, and the BiLSTM and the Transformer it is compared with.

Each takes x_BFT, which steps a clip has (real_BT, a prefix of its T), and the draw keys of its dropout, to h_BCT.
Letters: B clips, F features a step, T steps, C hidden units, A attention heads.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.models.dropout import KeyedDropout
from training.models.tcn import TemporalConvNet

__all__ = ["BiLstm", "DilatedTcn", "Transformer"]


class DilatedTcn(nn.Module):
    """The TCN of Bai, Kolter and Koltun (2018). Causal, so the padding behind a clip reaches none of its steps."""

    def __init__(self, features: int, hidden: int, levels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.net = TemporalConvNet(features, hidden, levels, kernel, dropout)

    def forward(self, x_BFT: Tensor, real_BT: Tensor, draw_keys_B: Tensor) -> Tensor:
        hidden_BCT: Tensor = self.net(x_BFT, draw_keys_B)
        return hidden_BCT


class BiLstm(nn.Module):
    """`levels` bidirectional LSTM layers (Graves and Schmidhuber 2005) of C / 2 units a direction, dropout before each.

    [choice] the first drops of the input too, as the TCN and the Transformer do not. Layer by layer: torch's own dropout
    between layers draws from a process's random state.
    """

    def __init__(self, features: int, hidden: int, levels: int, dropout: float) -> None:
        super().__init__()
        widths = [features, *[hidden] * (levels - 1)]
        self.layers = nn.ModuleList(nn.LSTM(width, hidden // 2, batch_first=True, bidirectional=True) for width in widths)
        self.dropouts = nn.ModuleList(KeyedDropout(dropout, salt=i) for i in range(levels))

    def forward(self, x_BFT: Tensor, real_BT: Tensor, draw_keys_B: Tensor) -> Tensor:
        lengths_B = real_BT.sum(dim=1).cpu()  # packed, so that the way back starts at a clip's own last step
        out_BTC = x_BFT.transpose(1, 2)
        for layer, dropout in zip(self.layers, self.dropouts, strict=True):
            packed = pack_padded_sequence(dropout(out_BTC, draw_keys_B), lengths_B, batch_first=True, enforce_sorted=False)
            out_BTC = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=real_BT.shape[1])[0]
        return out_BTC.transpose(1, 2)


class Transformer(nn.Module):
    """`levels` encoder layers (Vaswani et al. 2017) over a linear projection plus sinusoidal positions.

    [choice] Normalisation before each part instead of after it (Xiong et al. 2020): it trains without a warm-up.
    """

    def __init__(self, features: int, hidden: int, levels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(features, hidden)
        self.layers = nn.ModuleList(EncoderLayer(hidden, heads, dropout, salt=2 * i) for i in range(levels))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x_BFT: Tensor, real_BT: Tensor, draw_keys_B: Tensor) -> Tensor:
        out_BTC = self.project(x_BFT.transpose(1, 2))
        out_BTC = out_BTC + _positions(out_BTC)
        for layer in self.layers:
            out_BTC = layer(out_BTC, real_BT, draw_keys_B)
        normal_BTC: Tensor = self.norm(out_BTC)
        return normal_BTC.transpose(1, 2)


class EncoderLayer(nn.Module):
    """Self-attention and a two-layer network of 4 C units, each behind a layer norm and beside a residual connection."""

    def __init__(self, hidden: int, heads: int, dropout: float, salt: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.to_queries_keys_values = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.widen, self.narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.dropout1, self.dropout2 = KeyedDropout(dropout, salt), KeyedDropout(dropout, salt + 1)

    def forward(self, x_BTC: Tensor, real_BT: Tensor, draw_keys_B: Tensor) -> Tensor:
        x_BTC = x_BTC + self.dropout1(self._attended(self.norm1(x_BTC), real_BT), draw_keys_B)
        mixed_BTC = self.narrow(F.gelu(self.widen(self.norm2(x_BTC))))
        out_BTC: Tensor = x_BTC + self.dropout2(mixed_BTC, draw_keys_B)
        return out_BTC

    def _attended(self, x_BTC: Tensor, real_BT: Tensor) -> Tensor:
        queries, keys, values = self.to_queries_keys_values(x_BTC).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # [choice] no dropout on the attention itself: torch's draws from a process's random state
        seen_BATD = F.scaled_dot_product_attention(queries, keys, values, attn_mask=real_BT[:, None, None, :])
        attended_BTC: Tensor = self.out(seen_BATD.transpose(1, 2).flatten(2))
        return attended_BTC


def _positions(like_BTC: Tensor) -> Tensor:
    """Sines and cosines of the step (Vaswani et al. 2017, section 3.5), (T, C)."""
    steps, width = like_BTC.shape[1:]
    step_T1 = torch.arange(steps, dtype=like_BTC.dtype, device=like_BTC.device).unsqueeze(1)
    pair_C = torch.arange(width, device=like_BTC.device) // 2 * 2
    angle_TC = step_T1 * torch.exp(pair_C * (-math.log(10_000.0) / width))
    even_C = torch.arange(width, device=like_BTC.device) % 2 == 0
    return torch.where(even_C, angle_TC.sin(), angle_TC.cos())
