"""From frame-wise features to the statistics of equal parts of a clip (Wu et al. 2023, section IV).

Letters: B clips, R rows (frames), D features a row, T chunks, W rows of the longest chunk, F = 3 D statistics a chunk.
"""

import torch
from torch import Tensor

__all__ = ["chunk_statistics", "real_steps"]


def chunk_statistics(rows_BRD: Tensor, lengths_B: Tensor, *, chunks: int, min_rows: int) -> tuple[Tensor, Tensor]:
    """(ps_BTF, seen_BT): per chunk the minimum, maximum and variance of each of D features, and whether it has any row.

    rows_BRD: the first lengths_B rows of each clip count, what follows is padding. A clip of fewer than `min_rows` rows is
    repeated as a whole until it has as many (the paper: until more than 250 frames), then cut into `chunks` equal parts.
    [choice] Part i is the rows from floor(i R / T) to floor((i + 1) R / T), so sizes differ by one at most, and a clip is
    repeated at least until every part has a row. [choice] The variance is the population's, 0 for a single row. Rows that
    hold a NaN are frames without a face and enter no statistic; a chunk of nothing else is not seen, its statistics are 0.
    """
    tracked_BR = real_steps(rows_BRD, lengths_B)
    length_B11 = lengths_B.clamp(min=1).view(-1, 1, 1)
    total_B11 = (max(min_rows, chunks) + length_B11 - 1) // length_B11 * length_B11
    edges_B1T = torch.arange(chunks + 1, device=rows_BRD.device) * total_B11 // chunks
    start_BT1, end_BT1 = edges_B1T[..., :-1].transpose(1, 2), edges_B1T[..., 1:].transpose(1, 2)
    width = int((end_BT1 - start_BT1).max())
    place_BTW = start_BT1 + torch.arange(width, device=rows_BRD.device)
    clip_B11 = torch.arange(len(rows_BRD), device=rows_BRD.device).view(-1, 1, 1)
    row_BTW = place_BTW % length_B11
    counts_BTW1 = (tracked_BR[clip_B11, row_BTW] & (place_BTW < end_BT1)).unsqueeze(3)
    values_BTWD = rows_BRD[clip_B11, row_BTW].masked_fill(~counts_BTW1, 0)
    number_BT1 = counts_BTW1.sum(dim=2)
    seen_BT1 = number_BT1 > 0
    mean_BTD = values_BTWD.sum(dim=2) / number_BT1.clamp(min=1)
    # about the mean: E[x^2] - E[x]^2 would cancel for positions of hundreds of millimetres
    offsets_BTWD = (values_BTWD - mean_BTD.unsqueeze(2)).masked_fill(~counts_BTW1, 0)
    variance_BTD = offsets_BTWD.square().sum(dim=2) / number_BT1.clamp(min=1)
    least_BTD = values_BTWD.masked_fill(~counts_BTW1, torch.inf).amin(dim=2)
    most_BTD = values_BTWD.masked_fill(~counts_BTW1, -torch.inf).amax(dim=2)
    ps_BTF = torch.cat([least_BTD, most_BTD, variance_BTD], dim=2)
    return ps_BTF.masked_fill(~seen_BT1, 0), seen_BT1.squeeze(2)


def real_steps(rows_BRD: Tensor, lengths_B: Tensor) -> Tensor:
    """bool (B, R): rows that are no padding and hold no NaN."""
    inside_BR = torch.arange(rows_BRD.shape[1], device=rows_BRD.device) < lengths_B.unsqueeze(1)
    return inside_BR & ~rows_BRD.isnan().any(dim=2)
