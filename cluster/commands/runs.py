"""`rapt runs`: list, show and compare runs, and send what MLflow has not got."""

import json
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from training.tracking.run_list import Estimate, RunRecord

__all__ = ["runs"]

_UNKNOWN = "-"
_HEADINGS = ("run", "recipe", "state", "step", "epoch", "validation", "test", "clips/s", "started", "took")


@click.group(invoke_without_command=True, context_settings={"show_default": True})
@click.option("--limit", default=20, type=click.IntRange(1, 10_000), help="How many runs, the newest first.")
@click.option("--recipe", default="", help="Runs of this recipe alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.pass_context
def runs(context: click.Context, limit: int, recipe: str, as_json: bool) -> None:
    """List runs, from MLflow: state, progress, figures with their 95 % intervals over people, speed.

    \b
    Examples:
        rapt runs
        rapt runs --recipe resnet_tcn --limit 5
        rapt runs show demo-20260101-120000-ab12
        rapt runs compare demo-20260101-120000-ab12 demo-20260102-090000-cd34
        rapt runs sync
    """
    if context.invoked_subcommand:
        return
    from cluster.home import mlflow_uri
    from cluster.terminal import columns
    from training.tracking.run_list import list_runs

    found = list_runs(mlflow_uri(), limit=limit, recipe=recipe)
    if as_json:
        click.echo(json.dumps([run.model_dump(mode="json", exclude={"params", "metrics", "tags"}) for run in found]))
        return
    if not found:
        click.echo("no runs; `rapt train demo --data SHARDS --local` makes one")
        return
    for line in columns([_HEADINGS, *map(_cells, found)]):
        click.echo(line)
    click.echo("validation and test: balanced accuracy, with its 95 % interval over people")


@runs.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(run: str, as_json: bool) -> None:
    """Show all that MLflow knows of RUN: what it came from, its settings, its figures.

    \b
    Example:
        rapt runs show demo-20260101-120000-ab12
    """
    from rich.table import Table

    from cluster.home import mlflow_uri
    from cluster.terminal import console
    from training.tracking.run_list import read_run

    found = read_run(mlflow_uri(), run)
    if as_json:
        click.echo(found.model_dump_json())
        return
    for heading, cell in zip(_HEADINGS, _cells(found), strict=True):
        console.print(f"{heading:12}{cell}")
    figures = {name: f"{value:.6g}" for name, value in found.metrics.items()}
    for title, content in (("tags", found.tags), ("settings", found.params), ("figures", figures)):
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in sorted(content.items()):
            table.add_row(name, value)
        console.print(table)


@runs.command()
@click.argument("names", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(names: tuple[str, ...], as_json: bool) -> None:
    """Compare runs: the settings that differ, and their figures side by side, the better one marked with *.

    \b
    Example:
        rapt runs compare demo-20260101-120000-ab12 demo-20260102-090000-cd34
    """
    from rich.table import Table

    from cluster.home import mlflow_uri
    from cluster.terminal import console
    from data_shards.errors import ConfigError
    from training.tracking.run_list import compare_runs, read_run

    if len(names) < 2:
        raise ConfigError("one run alone compares with nothing; name two or more, `rapt runs` lists them")
    found = compare_runs([read_run(mlflow_uri(), name) for name in names])
    if as_json:
        click.echo(found.model_dump_json())
        return
    table = Table("setting that differs", *found.runs)
    for name, settings in found.params.items():
        table.add_row(name, *settings)
    if found.params:
        console.print(table)
    table = Table("figure", *found.runs)
    for figure in found.figures:
        cells = [_UNKNOWN if value is None else f"{value:.4g}" for value in figure.values]
        table.add_row(figure.name, *(f"{cell} *" if place == figure.best else cell for place, cell in enumerate(cells)))
    console.print(table)


@runs.command()
@click.argument("run", required=False)
def sync(run: str | None) -> None:
    """Send what waits for MLflow on this disk, of RUN or of all runs, and register bundles where that waits too.

    \b
    Examples:
        rapt runs sync
        rapt runs sync demo-20260101-120000-ab12
    """
    from cluster.home import home, mlflow_uri, run_folder
    from cluster.terminal import counted
    from data_shards.errors import RaptError
    from training.tracking.spool import waiting_records
    from training.tracking.sync import spools_of, sync_run

    if run:
        folders = [run_folder(run)]
    else:
        known = sorted((home() / "runs").glob("*/"))
        folders = [folder for folder in known if any(waiting_records(spool) for spool in spools_of(folder))]
        if not folders:
            click.echo("nothing waits for MLflow")
    failures: list[RaptError] = []
    for folder in folders:
        try:
            sent = sync_run(folder, mlflow_uri())
        except RaptError as error:  # of one run: the others are sent all the same
            failures.append(error)
            continue
        refused = f", {counted(sent.num_refused, 'record')} refused" if sent.num_refused else ""
        version = f", engagement version {sent.version}" if sent.version else ""
        click.echo(f"{folder.name}: {counted(sent.num_sent, 'record')} sent{refused}{version}")
    for failure in failures[1:]:
        click.echo(str(failure), err=True)
    if failures:
        raise failures[0]


def _cells(run: "RunRecord") -> tuple[str, ...]:
    return (
        run.name,
        run.recipe or _UNKNOWN,
        run.state,
        _of(run.step, run.total_steps),
        _of(None if run.epoch is None else round(run.epoch, 2), run.epochs),
        _shown(run.validation),
        _shown(run.test),
        _UNKNOWN if run.samples_per_s is None else f"{run.samples_per_s:.1f}",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started_ms / 1000)),
        _UNKNOWN if run.duration_s is None else f"{run.duration_s:,.0f} s",
    )


def _of(done: float | None, total: int | None) -> str:
    return _UNKNOWN if done is None else f"{done:g}" + (f"/{total}" if total else "")


def _shown(estimate: "Estimate | None") -> str:
    if estimate is None:
        return _UNKNOWN
    has_interval = estimate.low is not None and estimate.high is not None
    return f"{estimate.value:.3f}" + (f" ({estimate.low:.3f} to {estimate.high:.3f})" if has_interval else "")
