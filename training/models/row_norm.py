"""Batch normalisation of the rows that were measured, with all others left at its mean.

Letters: ... any axes, C channels, N measured rows.
"""

import torch
from torch import Tensor, nn

__all__ = ["RowNorm"]


class RowNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) of x_...C over the rows that measured_... names.

    A row that was not measured (a chunk without a face, a clip without speech, padding) is 0 afterwards, the mean of those
    that were, and enters no statistic: else how many clips lack something would move what all others are normalised by.
    Rows go through as (N, C), see CONTRIBUTING. One row alone has no variance: the running statistics serve it, and stay.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, measured: Tensor) -> Tensor:
        rows_NC = x[measured]
        # the one over several workers counts all their rows itself, on any device (training/batch_norm.py)
        alone = self.training and type(self.norm) is nn.BatchNorm1d and len(rows_NC) < 2
        normal_NC = self._by_running(rows_NC) if alone else self.norm(rows_NC)
        out: Tensor = normal_NC.new_zeros(x.shape)
        return out.index_put((measured,), normal_NC)

    def _by_running(self, rows_NC: Tensor) -> Tensor:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale_C = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return (rows_NC - norm.running_mean) * scale_C + norm.bias
