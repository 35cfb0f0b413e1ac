"""Dropout whose mask follows from the sample's draw key, not from a process's random state.

A sample gets the same mask whether it is the third of a batch of eight on one process or the first of four on the
second of two workers, before a restart or after it. That is what makes local, DDP and resumed losses equal.
"""

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

__all__ = ["KeyedDropout", "keyed_uniform"]

# splitmix64's multipliers as signed 64-bit numbers (see data_shards.hashing)
_MUL_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MUL_2 = 0x94D049BB133111EB - (1 << 64)
_OTHER_USES = 1 << 20  # salts from here on are not of a layer
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)


def _signed(word: int) -> int:
    """A number modulo 2**64 as torch's int64 holds it."""
    return (word + (1 << 63)) % (1 << 64) - (1 << 63)


class KeyedDropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014) of features_BCL with probability p, keyed by draw_keys_B int64.

    salt: a number of this layer's own, so that layers do not share masks. Identity in evaluation.
    """

    def __init__(self, p: float, salt: int) -> None:
        super().__init__()
        self.p = p
        self._offset = _signed(salt * _GAMMA)

    def forward(self, features_BCL: Tensor, draw_keys_B: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return features_BCL
        kept: Tensor = self._uniform(features_BCL, draw_keys_B) >= self.p
        return features_BCL * kept.to(features_BCL.dtype) / (1 - self.p)

    # inductor (torch 2.13) folds the counters and their multiplier into numbers beyond 64 bits, and fails; torch's own
    # decorator, for torch.compiler.disable imports all of dynamo here and now: 1.5 s of CPU in processes that only score
    @_disable_dynamo
    def _uniform(self, features_BCL: Tensor, draw_keys_B: Tensor) -> Tensor:
        """float32 in [0, 1) of the features' shape."""
        counters = torch.arange(features_BCL[0].numel(), device=features_BCL.device).view(features_BCL.shape[1:])
        keys = _mix(draw_keys_B + self._offset).view(-1, *[1] * counters.dim())
        words = _mix(keys + counters * _GAMMA)
        return ((words >> 11) & ((1 << 24) - 1)).to(torch.float32) / 2**24


def keyed_uniform(draw_keys_B: Tensor, *, salt: int) -> Tensor:
    """float32 (B,), uniform in [0, 1), of each draw key's own. salt: a number of this use's own; layers use 0 to 2**20."""
    words_B = _mix(_mix(draw_keys_B + _signed((_OTHER_USES + salt) * _GAMMA)))
    return ((words_B >> 11) & ((1 << 24) - 1)).to(torch.float32) / 2**24


def _mix(words: Tensor) -> Tensor:
    """splitmix64's finaliser on int64 words; the shifts are made logical by masking the sign away."""
    words = (words ^ ((words >> 30) & ((1 << 34) - 1))) * _MUL_1
    words = (words ^ ((words >> 27) & ((1 << 37) - 1))) * _MUL_2
    return words ^ ((words >> 31) & ((1 << 33) - 1))
