"""The value of --workers: a number, or the fewest and the most."""

from typing import Any, NamedTuple

import click

__all__ = ["WORKERS", "WorkerRange", "Workers"]

_MOST = 4096


class Workers(NamedTuple):
    """As a string it is the option's value again, which `rapt submit` hands on."""

    fewest: int
    most: int

    def __str__(self) -> str:
        return f"{self.fewest}:{self.most}"


class WorkerRange(click.ParamType[Workers]):
    """`2` is (2, 2), `2:8` is (2, 8)."""

    name = "N|MIN:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Workers:
        if isinstance(value, Workers):
            return value
        low, colon, high = str(value).partition(":")
        try:
            fewest, most = int(low), int(high if colon else low)
        except ValueError:
            fewest, most = 0, 0
        if not 1 <= fewest <= most <= _MOST:
            self.fail(f"'{value}' is neither a number of workers from 1 to {_MOST} nor MIN:MAX, e.g. 2:8", param, ctx)
        return Workers(fewest, most)


WORKERS = WorkerRange()
