"""A table made again, as records: rows with published numbers beside ours, over seeds and over clips.

Letters: N clips, R seeds.
"""

from collections.abc import Sequence

import numpy as np

from data_shards.schema import Stored
from training.reproduction.split_arrays import Values

__all__ = ["HEADINGS", "MAX_SEEDS", "Figure", "Row", "SeedResult", "Table", "cells_of", "figure_of", "row_of", "to_markdown"]

HEADINGS = ("row", "MSE", "over seeds", "over clips", "inside training", "compared with")
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
    seeds: how much it depends on which clips there are."""

    mean: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]
    clips_low: float
    clips_high: float


class Row(Stored):
    """A row. published: the figure it is compared with, {} where there is none; chosen: the setting of each seed.

    metrics: "mse" on the validation split, "cv_mse" by cross-validation inside the training split.
    """

    name: str
    what: str
    published: dict[str, float]
    published_method: str
    published_source: str = ""  # the paper, or that it was measured here on the same data
    metrics: dict[str, Figure]
    chosen: tuple[str, ...]
    commit: str
    data_digest: str


class Table(Stored):
    """A table. aim: the error that `headline`, the row of the model under test, should stay below; best_by_cv: the row that
    the training split alone would pick."""

    table: str
    rows: tuple[Row, ...]
    aim: float
    headline: str
    best_by_cv: str
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
    seeds_R, clips_N = errors_RN.mean(axis=1), errors_RN.mean(axis=0)
    num_seeds, num_clips = errors_RN.shape
    half = _T_975[num_seeds - 2] * float(seeds_R.std(ddof=1)) / num_seeds**0.5 if num_seeds > 1 else None
    times_drawn = np.random.default_rng(0).multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=_RESAMPLES)
    low, high = np.percentile(times_drawn @ clips_N / num_clips, [2.5, 97.5])
    mean = float(seeds_R.mean())
    return Figure(
        mean=mean,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        seeds=tuple(seeds_R.tolist()),
        clips_low=float(low),
        clips_high=float(high),
    )


def to_markdown(table: Table) -> str:
    """The table for docs/experiments.md."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(cells_of(row) for row in table.rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *table.sentences])


def cells_of(row: Row) -> tuple[str, ...]:
    """A row's figures in words, under HEADINGS."""
    ours = row.metrics["mse"]
    return (
        row.what,
        f"{ours.mean:.4f}",
        "" if ours.low is None or ours.high is None else f"{ours.low:.4f} to {ours.high:.4f}",
        f"{ours.clips_low:.4f} to {ours.clips_high:.4f}",
        f"{row.metrics['cv_mse'].mean:.4f}",
        f"{row.published['mse']:.4f} {row.published_method}" if row.published else "",
    )
