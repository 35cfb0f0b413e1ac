"""The value of --workers: a number, or the fewest and the most."""

from typing import Any

import click

__all__ = ["WORKERS", "WorkerRange"]

_MOST = 4096


class WorkerRange(click.ParamType[tuple[int, int]]):
    """`2` is (2, 2), `2:8` is (2, 8)."""

    name = "N|MIN:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        low, colon, high = str(value).partition(":")
        try:
            fewest, most = int(low), int(high if colon else low)
        except ValueError:
            fewest, most = 0, 0
        if not 1 <= fewest <= most <= _MOST:
            self.fail(f"'{value}' is neither a number of workers from 1 to {_MOST} nor MIN:MAX, e.g. 2:8", param, ctx)
        return fewest, most


WORKERS = WorkerRange()
