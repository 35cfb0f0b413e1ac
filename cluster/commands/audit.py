"""`rapt shards audit`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.commands.options import cache_option

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from data_shards.audit import Audit
    from data_shards.audit.ceiling import Figures

__all__ = ["audit"]


@click.command(context_settings={"show_default": True})
@click.argument("uri")
@click.option("--dataset", help="URI is this dataset's source: audit its labels alone, no video is opened.")
@click.option("--face-model", envvar="RAPT_FACE_LANDMARKER", help="MediaPipe's face_landmarker.task, to look for faces.")
@click.option("--frames", default=12, type=click.IntRange(1, 64), help="Frames of a clip that are compared.")
@click.option("--max-distance", default=4, type=click.IntRange(0, 32), help="Bits of 64 by which frames of one scene differ.")
@cache_option
@click.option("--strict", is_flag=True, help="Exit non-zero on any finding, a leak or a warning.")
@click.option("--json", "as_json", is_flag=True, help="Print the audit as one JSON object.")
def audit(
    uri: str,
    dataset: str | None,
    face_model: str | None,
    frames: int,
    max_distance: int,
    cache_gib: float,
    strict: bool,
    as_json: bool,
) -> None:
    """Find what would make a model's figures too good: leakage between splits, duplicates, contradicting labels.

    People and recording sessions in two splits; clips that are there twice, as the same file or as a re-encoded,
    trimmed, shifted or mirrored copy; copies with other labels; levels that a split lacks; clips without a face; and how
    well the person alone predicts the label. What is found in shards is kept below RAPT_HOME: `rapt promote` asks for it.

    \b
    Examples:
        rapt shards audit my-shards
        rapt shards audit my-shards --strict --face-model face_landmarker.task
        rapt shards audit ~/DAiSEE --dataset daisee
    """
    from contextlib import ExitStack

    from cluster.home import audits_folder, cache_settings
    from data_shards.atomic import write_whole
    from data_shards.audit import AuditSettings, audit_shards
    from data_shards.errors import DataError

    if dataset:
        found = _audit_of_labels(uri, dataset)
    else:
        settings = AuditSettings(frames_per_clip=frames, max_distance=max_distance)
        with ExitStack() as stages:
            model = _face_model(face_model)
            found = audit_shards(
                uri,
                settings=settings,
                face_model=model,
                cache_settings=cache_settings(cache_gib),
                progress=lambda stage: _bar(stages, stage),
            )
        write_whole(audits_folder() / f"{found.digest}.json", found.to_bytes())  # `rapt promote` and `lineage` look there
    if as_json:
        click.echo(found.model_dump_json())
    else:
        _show(found)
    if strict and found.findings:
        first = min(found.findings, key=lambda finding: finding.severity != "leak")
        more = f" and {len(found.findings) - 1} more findings" if len(found.findings) > 1 else ""
        if found.num_leaks:
            raise DataError(f"{uri}: held-out figures would be too good ({first.sentence}{more}); split the clips anew by person")
        raise DataError(f"{uri}: not without fault ({first.sentence}{more}); mend the set, or audit it without --strict")


def _audit_of_labels(uri: str, dataset: str) -> "Audit":
    from cluster.home import absolute_uri
    from data_shards.audit import audit_listing
    from data_shards.datasets import DATASETS
    from data_shards.datasets.daisee_labels import list_labels
    from data_shards.errors import ConfigError
    from data_shards.storage.source import Source

    if dataset not in DATASETS:
        raise ConfigError(f"no dataset named '{dataset}'; there are: {', '.join(DATASETS)}")
    source = Source(absolute_uri(uri))
    if dataset == "daisee":
        labels = list_labels(source)
        return audit_listing(labels.listing, source=uri, mismatches=labels.mismatches)
    return audit_listing(DATASETS[dataset](source), source=uri)


def _face_model(option: str | None) -> Path | None:
    from data_shards.face_model import face_model_path

    return face_model_path(option) if option else None


def _bar(stages: "ExitStack", stage: str) -> "Callable[[int, int], None]":
    """The next stage's bar in place of the last one's."""
    from cluster.terminal import clip_progress

    stages.close()
    return stages.enter_context(clip_progress(stage))


def _show(audit: "Audit") -> None:
    from cluster.terminal import console, counted

    people = {subject for histogram in audit.histograms.values() for s in histogram.splits.values() for subject in s.subjects} - {
        ""
    }
    console.print(
        f"{audit.source}: {audit.dataset}, {counted(audit.num_clips, 'clip')} of {counted(len(people), 'person', 'people')}",
        style="bold",
    )
    _show_classes(audit)
    _show_ceilings(audit)
    for check, state in audit.checks.items():
        console.print(f"{check}: {state}", style="" if state == "checked" else "yellow")
    for finding in audit.findings:
        console.print(f"{finding.severity}: {finding.sentence}", style="bold red" if finding.severity == "leak" else "yellow")
        for example in finding.examples[:3]:
            console.print(f"    {example}")
        if finding.examples and finding.count > 3:
            console.print(f"    and {finding.count - 3:,} more (--json lists {len(finding.examples)})")
    leaks, warnings = counted(audit.num_leaks, "leak"), counted(len(audit.findings) - audit.num_leaks, "warning")
    console.print(f"{leaks}, {warnings}", style="bold")
    if audit.notice:
        console.print(audit.notice, style="yellow")


def _show_classes(audit: "Audit") -> None:
    from rich.table import Table

    from cluster.terminal import console

    table = Table(title="clips by label, split and level")
    most = max((len(histogram.level_names) for histogram in audit.histograms.values()), default=0)
    for heading in ("label", "split", "people", *map(str, range(most)), "clips a person, least to most"):
        table.add_column(heading, justify="left" if heading in ("label", "split") else "right")
    for label, histogram in audit.histograms.items():
        for number, (split, counts) in enumerate(histogram.splits.items()):
            clips = sorted(map(sum, counts.subjects.values()))
            padded = [*map(str, counts.levels), *[""] * (most - len(counts.levels))]
            span = f"{clips[0]} to {clips[-1]}, median {clips[len(clips) // 2]}"
            table.add_row("" if number else label, split, str(len(counts.subjects)), *padded, span)
    console.print(table)


def _show_ceilings(audit: "Audit") -> None:
    from rich.table import Table

    from cluster.terminal import console

    table = Table(title="what the person alone predicts: accuracy (balanced accuracy)")
    table.add_column("from")
    for label in audit.ceilings:
        table.add_column(label, justify="right")
    rows = {
        "held_out_majority": "held-out clips: most frequent level (baseline)",
        "held_out_person": "held-out clips: their person's level in training",
        "held_out_nearest": "held-out clips: training clip that looks most alike",
        "train_majority": "training clips: most frequent level (baseline)",
        "train_person": "training clips: their person's other clips",
        "train_nearest": "training clips: the other clip that looks most alike",
        "train_nearest_stranger": "training clips: the same, among other people",
    }
    for field, name in rows.items():
        figures = [getattr(ceiling, field) for ceiling in audit.ceilings.values()]
        if any(figures):
            table.add_row(name, *map(_shown, figures))
    if table.row_count:
        console.print(table)


def _shown(figures: "Figures | None") -> str:
    return f"{figures.accuracy:.3f} ({figures.balanced_accuracy:.3f})" if figures else "-"
