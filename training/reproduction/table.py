"""A table made again, as records: rows with published numbers beside ours, over seeds and over clips.

Letters: N clips, R seeds.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from data_shards.schema import Stored
from training.reproduction.split_arrays import Values

__all__ = [
    "MAX_SEEDS",
    "Column",
    "Figure",
    "Row",
    "SeedResult",
    "Table",
    "cells_of",
    "figure_of",
    "headings_of",
    "row_of",
    "seeds_figure",
    "to_markdown",
]

_RESAMPLES = 2000
# two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom
_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101,
    2.093,
)  # fmt: skip
MAX_SEEDS = len(_T_975) + 1


class SeedResult(Stored):
    """One seed of a row: what was chosen inside the training split, its cross-validated error, and what it then predicts."""

    seed: int
    chosen: str
    cv_mse: float
    out_of_fold: tuple[float, ...]
    predicted: tuple[float, ...]


class Figure(Stored):
    """A figure over seeds. low, high: 95 % t interval of the mean over seeds, None for a single seed: how much the outcome
    depends on chance in training and folds. clips_low, clips_high: 95 % percentile bootstrap over clips of the mean over
    seeds: how much it depends on which clips there are; None where a table has no such interval."""

    mean: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]
    clips_low: float | None = None
    clips_high: float | None = None


class Row(Stored):
    """A row. metrics: our figures by name; published: the ones they are compared with, {} where there are none; chosen:
    the setting of each seed."""

    name: str
    what: str
    published: dict[str, float]
    published_method: str
    published_source: str = ""  # the paper, or that it was measured here on the same data
    metrics: dict[str, Figure]
    chosen: tuple[str, ...]
    commit: str
    data_digest: str


class Column(Stored):
    """What a column shows of a row's metric: our mean over seeds, an interval, both, or the published figure."""

    heading: str
    metric: str
    shows: Literal["mean", "seeds", "clips", "mean_and_seeds", "published"]
    digits: int


class Table(Stored):
    """A table. title: what its figures are; headline: the row of the model under test. aim: the error it should stay below,
    where one was set; best_by_cv: the row that cross-validation would pick, where there is one."""

    table: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    headline: str
    aim: float | None = None
    best_by_cv: str | None = None
    sentences: tuple[str, ...]


def row_of(
    results: Sequence[SeedResult],
    *,
    name: str,
    what: str,
    published: dict[str, float],
    published_method: str,
    published_source: str,
    train_values: Values,
    validation_values: Values,
    commit: str,
    data_digest: str,
) -> Row:
    """A row from its seeds' predictions."""
    return Row(
        name=name,
        what=what,
        published=published,
        published_method=published_method,
        published_source=published_source,
        metrics={
            "mse": figure_of(np.array([result.predicted for result in results]), validation_values),
            "cv_mse": figure_of(np.array([result.out_of_fold for result in results]), train_values),
        },
        chosen=tuple(result.chosen for result in results),
        commit=commit,
        data_digest=data_digest,
    )


def figure_of(predicted_RN: Values, values_N: Values) -> Figure:
    """Mean squared error of R seeds' predictions, with both intervals."""
    errors_RN = (predicted_RN - values_N) ** 2
    clips_N, num_clips = errors_RN.mean(axis=0), len(values_N)
    times_drawn = np.random.default_rng(0).multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=_RESAMPLES)
    low, high = np.percentile(times_drawn @ clips_N / num_clips, [2.5, 97.5])
    over_seeds = seeds_figure(errors_RN.mean(axis=1))
    return over_seeds.model_copy(update={"clips_low": float(low), "clips_high": float(high)})


def seeds_figure(seeds_R: Values) -> Figure:
    """A figure of each of R seeds: their mean with its t interval."""
    num_seeds, mean = len(seeds_R), float(seeds_R.mean())
    half = _T_975[num_seeds - 2] * float(seeds_R.std(ddof=1)) / num_seeds**0.5 if num_seeds > 1 else None
    return Figure(
        mean=mean,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        seeds=tuple(seeds_R.tolist()),
    )


def to_markdown(table: Table) -> str:
    """The table for docs/experiments.md."""
    headings = headings_of(table)
    lines = [headings, ("---",) * len(headings), *(cells_of(row, table.columns) for row in table.rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *table.sentences])


def headings_of(table: Table) -> tuple[str, ...]:
    """What stands above the cells of each row."""
    return ("row", *(column.heading for column in table.columns))


def cells_of(row: Row, columns: Sequence[Column]) -> tuple[str, ...]:
    """A row's name and its figures in words."""
    return (row.what, *(_cell(row, column) for column in columns))


def _cell(row: Row, column: Column) -> str:
    """Empty where a row has no such figure."""
    digits, figure = column.digits, row.metrics.get(column.metric)
    if column.shows == "published":
        published = row.published.get(column.metric)
        return "" if published is None else f"{published:.{digits}f} {row.published_method}".rstrip()
    if figure is None:
        return ""
    mean = f"{figure.mean:.{digits}f}"
    over_seeds, over_clips = _span(figure.low, figure.high, digits), _span(figure.clips_low, figure.clips_high, digits)
    both = f"{mean} ({over_seeds})" if over_seeds else mean
    return {"mean": mean, "seeds": over_seeds, "clips": over_clips, "mean_and_seeds": both}[column.shows]


def _span(low: float | None, high: float | None, digits: int) -> str:
    return "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
