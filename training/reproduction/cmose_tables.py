"""CMOSE's tables from their rows, on any set of shards with its features: Table 2 (losses), Tables 3 and 4 (parts).

Letters: R seeds, N clips of the test split.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_shards.errors import ConfigError
from data_shards.extraction.recorded import untrained_weights
from data_shards.manifest import Manifest, read_manifest
from data_shards.storage.shard_cache import CacheSettings
from training.commit import current_commit
from training.config import stages_with_settings
from training.metrics import confusion_matrix, metrics_of
from training.reproduction.cmose_fit import HeldOutClips, RowResult, held_out_clips, trained
from training.reproduction.cmose_rows import LOSS_ROWS, PART_ROWS, CmoseRow
from training.reproduction.paired import balanced_difference, in_words
from training.reproduction.row_pool import Progress, run_tasks
from training.reproduction.table import Column, Figure, Row, Table, seeds_figure

__all__ = ["BASELINE", "cmose_losses", "cmose_parts"]

Ints = npt.NDArray[np.int64]

BASELINE = "majority"


class Contest(NamedTuple):
    """Two rows whose difference is told in words, on all test clips or on those with speech."""

    ours: str
    theirs: str
    on_speech: bool


class Plan(NamedTuple):
    """A table before it is run."""

    name: str
    title: str
    rows: Mapping[str, CmoseRow]
    contests: tuple[Contest, ...]
    headline: str
    on_speech: bool


_LOSSES = Plan(
    "cmose_losses",
    "Table 2 of Wu et al. 2023",
    LOSS_ROWS,
    tuple(Contest(name, "cross_entropy", on_speech=False) for name in ("mocorank", "mocorank_center", "mocorank_fast")),
    "mocorank",
    on_speech=False,
)
_PARTS = Plan(
    "cmose_parts",
    "Tables 3 and 4 of Wu et al. 2023",
    PART_ROWS,
    (Contest("audio", "both", on_speech=True), Contest("audio", "both", on_speech=False)),
    "both",
    on_speech=True,
)


def _made(
    plan: Plan,
    uri: str,
    *,
    num_seeds: int,
    rows: Sequence[str] = (),
    cache: CacheSettings | None = None,
    num_workers: int = 0,
    progress: Progress = lambda done, total: None,
    settings: Sequence[str] = (),
) -> Table:
    """Train the plan's rows and judge them. settings: further `--set`s for all rows. ConfigError on an unknown row."""
    names = tuple(rows) or (BASELINE, *plan.rows)
    unknown = [name for name in names if name not in (BASELINE, *plan.rows)]
    if unknown:
        raise ConfigError(f"no row '{unknown[0]}' in the table {plan.name}; there are: {', '.join((BASELINE, *plan.rows))}")
    clips = held_out_clips(uri, cache, needs_speech=plan.on_speech)
    stages = {name: stages_with_settings(plan.rows[name].stages, settings) for name in names if name != BASELINE}
    tasks = [(name, seed) for name in names if name != BASELINE for seed in range(num_seeds)]
    with TemporaryDirectory(prefix="rapt-table-") as scratch:
        task = partial(trained, stages=stages, uri=uri, cache=cache, scratch=scratch)
        results = run_tasks(task, tasks, num_workers=num_workers, progress=progress)
    manifest = read_manifest(uri)
    return Table(
        table=plan.name,
        title=plan.title + (", on simulated clips" if manifest.simulated else ""),
        columns=_columns(on_speech=plan.on_speech),
        rows=tuple(_row(name, plan, [results[name, s] for s in _seeds(name, num_seeds)], clips, manifest) for name in names),
        headline=plan.headline,
        sentences=tuple(_sentences(plan, names, results, num_seeds, clips, manifest)),
    )


# Table 2: every loss on the visual part
cmose_losses = partial(_made, _LOSSES)
# Tables 3 and 4: what each part adds, on all test clips and on those with speech
cmose_parts = partial(_made, _PARTS)


def _seeds(name: str, num_seeds: int) -> range:
    return range(0 if name == BASELINE else num_seeds)


def _row(name: str, plan: Plan, results: Sequence[RowResult], clips: HeldOutClips, manifest: Manifest) -> Row:
    """A row's figures; the baseline's are of one prediction, whatever the seeds."""
    row = plan.rows.get(name)
    constant_N = np.full_like(clips.labels_N, clips.majority)
    levels_RN = np.stack([result.levels_N for result in results] or [constant_N])
    metrics = _figures(levels_RN, clips.labels_N, clips.num_levels)
    if plan.on_speech:
        on_speech = _figures(levels_RN[:, clips.speaks_N], clips.labels_N[clips.speaks_N], clips.num_levels)
        metrics |= {f"speech_{metric}": figure for metric, figure in on_speech.items()}
    if results and not np.isnan([result.validation for result in results]).any():
        metrics["validation"] = seeds_figure(np.array([result.validation for result in results]))
    return Row(
        name=name,
        what=row.what if row else "the majority class of the training split",
        published=row.published if row else {},
        published_method="",
        metrics=metrics,
        chosen=tuple(result.chosen for result in results),
        commit=current_commit(),
        data_digest=manifest.digest,
    )


def _figures(levels_RN: Ints, labels_N: Ints, num_levels: int) -> dict[str, Figure]:
    each_R = [metrics_of(confusion_matrix(labels_N, levels_N, num_levels)) for levels_N in levels_RN]
    return {
        "accuracy": seeds_figure(np.array([metrics.accuracy for metrics in each_R])),
        "balanced_accuracy": seeds_figure(np.array([metrics.balanced_accuracy for metrics in each_R])),
    }


def _columns(*, on_speech: bool) -> tuple[Column, ...]:
    shown = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
    if on_speech:
        shown |= {f"speech_{metric}": f"{heading}, with speech" for metric, heading in shown.items()}
    columns = []
    for metric, heading in shown.items():
        columns.append(Column(heading=heading, metric=metric, shows="mean_and_seeds", digits=3))
        columns.append(Column(heading="published", metric=metric, shows="published", digits=3))
    return (*columns, Column(heading="balanced on validation", metric="validation", shows="mean", digits=3))


def _sentences(
    plan: Plan,
    names: Sequence[str],
    results: Mapping[tuple[str, int], RowResult],
    num_seeds: int,
    clips: HeldOutClips,
    manifest: Manifest,
) -> list[str]:
    levels = {name: np.stack([results[name, s].levels_N for s in range(num_seeds)]) for name in names if name != BASELINE}
    told = [
        _told(contest, plan.rows, levels, clips) for contest in plan.contests if {contest.ours, contest.theirs} <= set(levels)
    ]
    people = len(set(clips.subjects_N))
    told.append(f"Intervals in the table: 95 %, t over seeds, on the same {len(clips.labels_N)} clips of {people} people.")
    for feature, record in manifest.extractors.items():
        if weights := untrained_weights(record):
            told.append(f"{feature}: {weights}; what a row owes to it says nothing of the real one.")
    if manifest.notice:
        told.append(manifest.notice[0].upper() + manifest.notice[1:] + ".")
    return told


def _told(contest: Contest, rows: Mapping[str, CmoseRow], levels_RN: Mapping[str, Ints], clips: HeldOutClips) -> str:
    counted_N = clips.speaks_N if contest.on_speech else np.full(len(clips.labels_N), fill_value=True)
    found = balanced_difference(
        levels_RN[contest.ours][:, counted_N],
        levels_RN[contest.theirs][:, counted_N],
        clips.labels_N[counted_N],
        np.array(clips.subjects_N)[counted_N].tolist(),
    )
    where = f"the {counted_N.sum()} test clips with speech" if contest.on_speech else f"all {len(clips.labels_N)} test clips"
    return in_words(rows[contest.ours].what, rows[contest.theirs].what, found, clips=where)
