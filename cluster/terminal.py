"""What a person sees in the terminal: progress bars, tables, a run's panel and one line an epoch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cluster.training_panel import TrainingPanel
from training.events import CheckpointFailed, EpochDone, Event, Notice, Profiled, RunFinished, RunStarted, WorkersChanged
from training.metrics import Evaluation
from training.reproduction.table import Table as ReproducedTable
from training.reproduction.table import cells_of, headings_of

__all__ = [
    "TrainingDisplay",
    "clip_progress",
    "columns",
    "console",
    "counted",
    "evaluation_table",
    "progress_console",
    "reproduced_table",
]

console = Console(highlight=False, markup=False, soft_wrap=True)
progress_console = Console(
    highlight=False, markup=False, stderr=True, soft_wrap=True
)  # standard output stays clean for results and --json

_PANEL_COLUMNS = 80  # below that its lines would be cut


def counted(count: int, one: str, many: str = "") -> str:
    """A number and its noun: `1 shard`, `2,000 shards`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of cells one below the other, as wide as they are: names are there to be copied whole, and piped."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


@contextmanager
def clip_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for long work over clips or shards; yields progress(done, total)."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=progress_console,
    )
    with bar:
        task = bar.add_task(what, total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield progress


class TrainingDisplay:
    """A listener that shows a run: a live panel in a terminal that is wide enough, and lines for what should stay to be read."""

    def __init__(self, shown_on: Console = progress_console) -> None:
        self._console = shown_on
        self.panel = TrainingPanel()
        is_live = shown_on.is_terminal and shown_on.width >= _PANEL_COLUMNS
        self._live = Live(self.panel, console=shown_on, refresh_per_second=4) if is_live else None
        self._run_id = ""

    def __enter__(self) -> "TrainingDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        self.panel(event)
        for line, style in self._lines(event):
            self._console.print(line, style=style)

    def _lines(self, event: Event) -> Iterator[tuple[str, str | None]]:
        """What of an event is worth a line, and its style."""
        if isinstance(event, RunStarted):
            yield from self._start_lines(event)
        elif isinstance(event, EpochDone):
            yield _epoch_line(event), None
        elif isinstance(event, CheckpointFailed):
            yield f"checkpoint of step {event.step} could not be written ({event.reason}); training goes on", "yellow"
        elif isinstance(event, WorkersChanged):
            line = f"{event.alive} of {counted(event.wanted, 'worker')} alive"
            yield line + (f": {event.reason}" if event.reason else ""), None if event.alive == event.wanted else "yellow"
        elif isinstance(event, RunFinished):
            yield f"finished, best epoch {event.best_epoch}", None
        elif isinstance(event, Notice):
            yield event.sentence, "yellow"
        elif isinstance(event, Profiled):
            yield f"{event.sentence}; traces for ui.perfetto.dev in {event.folder}", None

    def _start_lines(self, event: RunStarted) -> Iterator[tuple[str, str | None]]:
        if event.run_id == self._run_id and event.start_step:
            yield f"run {event.run_id} restarted, at step {event.start_step} of {event.total_steps}", "yellow"
        else:
            yield (
                f"run {event.run_id}, recipe {event.recipe}: {event.num_parameters:,} parameters, {event.total_steps} steps of "
                f"{event.global_batch} clips" + (f", resumed at step {event.start_step}" if event.start_step else ""),
                None,
            )
            if event.num_dropped:
                yield f"{event.num_dropped} training clips have no level in this view, or lack a feature: left out", None
            for names, what in ((event.fresh, "start afresh"), (event.unused, "of the earlier model have no place in this one")):
                if names:
                    yield f"{counted(len(names), 'weight')} {what}: {', '.join(names)}", None
            if event.num_frozen:
                yield f"{event.num_frozen:,} parameters are frozen", None
        for name in event.skipped:
            yield f"checkpoint {name} is damaged or half written, and was passed over", "yellow"
        self._run_id = event.run_id


def _epoch_line(event: EpochDone) -> str:
    line = f"epoch {event.epoch:3d}  train loss {event.train_loss:.3f}"
    if event.validation:
        metrics = event.validation.metrics
        line += f"  validation balanced accuracy {metrics.balanced_accuracy:.3f}, accuracy {metrics.accuracy:.3f}"
    return line + ("  best so far" if event.is_best and event.validation else "")


def evaluation_table(evaluation: Evaluation, *, title: str) -> Table:
    """A table of an evaluation's figures beside the majority-class baseline."""
    interval = evaluation.balanced_accuracy_interval
    table = Table(title=title, caption=f"{evaluation.num_samples} clips of {interval.num_subjects} people")
    for heading in ("figure", "model", "majority class", "95 % interval over people"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    ours, base = evaluation.metrics, evaluation.majority_baseline
    intervals = {"accuracy": evaluation.accuracy_interval, "balanced_accuracy": interval}
    names = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro-F1",
        "qwk": "quadratic weighted kappa",
        "mae": "mean absolute error (levels)",
        "mse": "mean squared error (levels)",
    }
    for field, name in names.items():
        found = intervals.get(field)
        span = f"{found.low:.3f} to {found.high:.3f}" if found else ""
        table.add_row(name, f"{getattr(ours, field):.3f}", f"{getattr(base, field):.3f}", span)
    for level, recall in enumerate(ours.per_class_recall):
        base_recall = base.per_class_recall[level]
        if recall is not None and base_recall is not None:
            table.add_row(f"recall of level {level}", f"{recall:.3f}", f"{base_recall:.3f}", "")
    return table


def reproduced_table(made: ReproducedTable) -> Table:
    """A paper's table made again: our figures with their intervals beside the published ones."""
    table = Table(title=f"{made.table}, {made.title}")
    headings = headings_of(made)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in (headings[0], headings[-1]) else "right")
    for row in made.rows:
        table.add_row(*cells_of(row, made.columns))
    return table
