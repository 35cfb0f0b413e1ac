"""EngageWild's table from its rows: all seeds, the average of rows, the published numbers, and whether the aim is met."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from data_shards.datasets.engagewild_arrays import LEVEL_VALUES
from data_shards.errors import ConfigError
from data_shards.manifest import read_manifest
from data_shards.storage.shard_cache import CacheSettings
from training.commit import current_commit
from training.reproduction.cross_validation import mean_squared_error
from training.reproduction.engagewild import ROWS, row_result
from training.reproduction.published import ENGAGEWILD_AIM
from training.reproduction.row_pool import Progress, run_tasks
from training.reproduction.split_arrays import SplitArrays, read_split
from training.reproduction.table import Column, Row, SeedResult, Table, row_of

__all__ = ["AVERAGED", "averaged_result", "engagewild_table"]

LABEL = "engagement"
HEADLINE = "tcn_mocorank"
AVERAGE = "average"
# which rows' predictions are averaged; one of these is chosen by cross-validation, as a setting of any row is
AVERAGED: dict[str, tuple[str, ...]] = {
    "ridges and support vectors": ("ridge_mean", "ridge_segments", "svr"),
    "networks": ("tcn_ce", "tcn_mse", "tcn_ordinal", "tcn_mocorank"),
    "all of these": ("ridge_mean", "ridge_segments", "svr", "tcn_ce", "tcn_mse", "tcn_ordinal", "tcn_mocorank"),
}
_COLUMNS = (
    Column(heading="MSE", metric="mse", shows="mean", digits=4),
    Column(heading="over seeds", metric="mse", shows="seeds", digits=4),
    Column(heading="over clips", metric="mse", shows="clips", digits=4),
    Column(heading="inside training", metric="cv_mse", shows="mean", digits=4),
    Column(heading="compared with", metric="mse", shows="published", digits=4),
)

Results = Mapping[tuple[str, int], SeedResult]


def engagewild_table(
    uri: str,
    *,
    num_seeds: int,
    rows: Sequence[str] = (),
    cache: CacheSettings | None = None,
    num_workers: int = 0,
    progress: Progress = lambda done, total: None,
) -> Table:
    """Run the rows named (all where none is) on shards of EngageWild's arrays. ConfigError on an unknown row or other data."""
    names = tuple(rows) or (*ROWS, AVERAGE)
    unknown = [name for name in names if name not in (*ROWS, AVERAGE)]
    if unknown:
        raise ConfigError(f"no row '{unknown[0]}' in the table engagewild; there are: {', '.join((*ROWS, AVERAGE))}")
    manifest = read_manifest(uri)
    if manifest.dataset != "engagewild" or not manifest.features:
        raise ConfigError(
            f"{uri}: holds {manifest.dataset}, not EngageWild's arrays; build them with `rapt shards build engagewild`"
        )
    train, validation = (
        read_split(uri, split, label=LABEL, value_of_level=LEVEL_VALUES, cache=cache) for split in ("train", "validation")
    )
    members = {name for averaged in AVERAGED.values() for name in averaged} if AVERAGE in names else set()
    tasks = [(name, seed) for name in ROWS if name in names or name in members for seed in range(num_seeds)]
    task = partial(row_result, train=train, held_out=validation.features)
    results = run_tasks(task, tasks, num_workers=num_workers, progress=progress)
    if AVERAGE in names:
        results |= {(AVERAGE, seed): averaged_result(results, train, seed) for seed in range(num_seeds)}
    commit, digest = current_commit(), manifest.digest
    made = tuple(_row(name, results, num_seeds, train, validation, commit, digest) for name in names)
    return _with_verdict(made, num_clips=len(validation))


def averaged_result(results: Results, train: SplitArrays, seed: int) -> SeedResult:
    """The mean of some rows' predictions, the rows chosen by the error of the mean of their out-of-fold predictions.

    All rows of a seed are cut into the same folds, so no clip's mean holds a fit that has seen it.
    """
    out_of_fold = {
        words: np.mean([results[name, seed].out_of_fold for name in averaged], axis=0) for words, averaged in AVERAGED.items()
    }
    errors = {words: mean_squared_error(predicted_N, train.values) for words, predicted_N in out_of_fold.items()}
    chosen = min(errors, key=lambda words: errors[words])
    predicted_N = np.mean([results[name, seed].predicted for name in AVERAGED[chosen]], axis=0)
    return SeedResult(
        seed=seed,
        chosen=chosen,
        cv_mse=errors[chosen],
        out_of_fold=tuple(out_of_fold[chosen].tolist()),
        predicted=tuple(predicted_N.tolist()),
    )


def _row(
    name: str, results: Results, num_seeds: int, train: SplitArrays, validation: SplitArrays, commit: str, digest: str
) -> Row:
    plan = ROWS[name]() if name in ROWS else None
    return row_of(
        [results[name, seed] for seed in range(num_seeds)],
        name=name,
        what=plan.what if plan else "average of other rows' predictions",
        published={"mse": plan.published.mse} if plan else {},
        published_method=plan.published.method if plan else "",
        published_source=plan.published.source if plan else "",
        train_values=train.values,
        validation_values=validation.values,
        commit=commit,
        data_digest=digest,
    )


def _with_verdict(rows: tuple[Row, ...], *, num_clips: int) -> Table:
    """The table, with a sentence each on the model under test and on the row that the training split alone would pick."""
    best = min(rows, key=lambda row: row.metrics["cv_mse"].mean)
    named = {row.name: row for row in rows}
    sentences = [_verdict(named[HEADLINE], "the model under test")] if HEADLINE in named else []
    if best.name != HEADLINE:
        sentences.append(_verdict(best, "first in cross-validation inside the training split"))
    sentences.append(
        f"Intervals: 95 %, t over seeds, and bootstrap over the {num_clips} clips; a row without chance in its fit differs "
        "between seeds by its folds alone."
    )
    return Table(
        table="engagewild",
        title="mean squared error",
        columns=_COLUMNS,
        rows=rows,
        headline=HEADLINE,
        aim=ENGAGEWILD_AIM,
        best_by_cv=best.name,
        sentences=tuple(sentences),
    )


def _verdict(row: Row, role: str) -> str:
    mean = row.metrics["mse"].mean
    met = "is met" if mean < ENGAGEWILD_AIM else "is missed"
    return f"{row.what[0].upper()}{row.what[1:]} ({role}): {mean:.4f}; the aim of below {ENGAGEWILD_AIM:.3f} {met}."
