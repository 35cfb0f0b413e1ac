"""The rectangles of a gallery: pictures on a plain ground, found by a recursive XY cut (Nagy and Seth 1984).

Letters: H height in pixels, W width in pixels.

[choice] A gallery is a set of rectangles separated by lines of one background colour. The background is the most common
brightness among the picture's plain rows and columns; the picture is cut along its background rows, each band along
its background columns, and so on. That finds centred last rows and tiles of any size, and needs no training. Tiles that
touch without a gap are not told apart; `tracking` then falls back to a box around each face.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_shards.schema import Stored

__all__ = ["Box", "find_rectangles", "overlap"]

_TOLERANCE = 6  # brightness levels around the background: flat ground stays flat through H.264, a camera's picture does not
_PLAIN_SHARE = 0.98  # of a line's pixels; the rest is ringing at the edges
_MIN_GAP_PX = 2
_MIN_SIDE_PX = 48
_MAX_ASPECT = 3.0
_MAX_DEPTH = 24  # of cuts; a gallery takes four


class Box(Stored):
    """A rectangle in pixels of the recording, its left top corner at (x, y); all four even, as H.264's chroma asks."""

    x: int
    y: int
    width: int
    height: int

    def holds(self, x: float, y: float) -> bool:
        """Whether the point (x, y) lies inside."""
        return self.x <= x < self.x + self.width and self.y <= y < self.y + self.height


@dataclass(frozen=True)
class _Span:
    begin: int
    end: int


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two rectangles, in [0, 1]."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(0, width) * max(0, height)
    return shared / (a.width * a.height + b.width * b.height - shared)


def find_rectangles(luma_HW: npt.NDArray[np.uint8]) -> list[Box]:
    """The pictures of a gallery in reading order, from its uint8 brightness; empty where there is no plain ground."""
    background = _background(luma_HW)
    if background is None:
        return []
    content_HW = np.abs(luma_HW.astype(np.int16) - background) > _TOLERANCE
    height, width = luma_HW.shape
    leaves = _cut(content_HW, _Span(0, height), _Span(0, width))
    boxes = [_even_box(rows, columns) for rows, columns in leaves]
    return [
        box
        for box in boxes
        if min(box.width, box.height) >= _MIN_SIDE_PX and max(box.width, box.height) <= _MAX_ASPECT * min(box.width, box.height)
    ]


def _background(luma_HW: npt.NDArray[np.uint8]) -> int | None:
    """The most common brightness among plain rows and columns; None where there are none."""
    levels = np.concatenate([_plain_levels(luma_HW), _plain_levels(luma_HW.T)])
    return int(np.bincount(levels).argmax()) if len(levels) else None


def _plain_levels(lines_NL: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The brightness of each line that is plain from end to end."""
    # every 8th pixel is enough to pass over most lines, and 8 times as fast
    coarse_NS = lines_NL[:, ::8].astype(np.int16)
    middle_N = np.sort(coarse_NS, axis=1)[:, coarse_NS.shape[1] // 2]
    candidates = np.flatnonzero((np.abs(coarse_NS - middle_N[:, None]) <= _TOLERANCE).mean(axis=1) >= _PLAIN_SHARE)
    near_CL = np.abs(lines_NL[candidates].astype(np.int16) - middle_N[candidates, None]) <= _TOLERANCE
    plain: npt.NDArray[np.int64] = middle_N[candidates[near_CL.mean(axis=1) >= _PLAIN_SHARE]].astype(np.int64)
    return plain


def _cut(content_HW: npt.NDArray[np.bool_], rows: _Span, columns: _Span, depth: int = 0) -> list[tuple[_Span, _Span]]:
    """Cut a region along its background lines until it cannot be cut; rows first, so the order is reading order."""
    bands = _bands(content_HW[rows.begin : rows.end, columns.begin : columns.end].mean(axis=1), rows.begin)
    leaves = []
    for band in bands:
        stripes = _bands(content_HW[band.begin : band.end, columns.begin : columns.end].mean(axis=0), columns.begin)
        for stripe in stripes:
            whole = len(bands) == len(stripes) == 1 and (band, stripe) == (rows, columns)
            if whole or depth == _MAX_DEPTH:
                leaves.append((band, stripe))
            else:
                leaves += _cut(content_HW, band, stripe, depth + 1)
    return leaves


def _bands(content_share_N: npt.NDArray[np.float64], offset: int) -> list[_Span]:
    """The runs of lines with content in them; gaps narrower than the smallest gap do not part them."""
    filled = np.flatnonzero(content_share_N > 1 - _PLAIN_SHARE)
    if not len(filled):
        return []
    breaks = np.flatnonzero(np.diff(filled) > _MIN_GAP_PX)
    begins = [int(filled[0]), *(int(filled[i + 1]) for i in breaks)]
    ends = [*(int(filled[i]) + 1 for i in breaks), int(filled[-1]) + 1]
    return [_Span(begin + offset, end + offset) for begin, end in zip(begins, ends, strict=True)]


def _even_box(rows: _Span, columns: _Span) -> Box:
    """Inside the spans, on even pixels."""
    x, y = columns.begin + columns.begin % 2, rows.begin + rows.begin % 2
    return Box(x=x, y=y, width=(columns.end - x) // 2 * 2, height=(rows.end - y) // 2 * 2)
