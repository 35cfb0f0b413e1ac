"""What a person sees in the terminal: progress bars, tables, and one line an epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from training.events import (
    CheckpointFailed,
    CheckpointSaved,
    EpochDone,
    Event,
    Notice,
    RunFinished,
    RunStarted,
    StepDone,
    WorkersChanged,
)
from training.metrics import Evaluation
from training.reproduction.table import Table as ReproducedTable
from training.reproduction.table import cells_of, headings_of

__all__ = ["TrainingDisplay", "clip_progress", "console", "counted", "evaluation_table", "progress_console", "reproduced_table"]

console = Console(highlight=False, markup=False, soft_wrap=True)
progress_console = Console(
    highlight=False, markup=False, stderr=True, soft_wrap=True
)  # standard output stays clean for results and --json


def counted(count: int, one: str, many: str = "") -> str:
    """A number and its noun: `1 shard`, `2,000 shards`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


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
    """A listener that shows a run: a bar with loss, samples/s, data wait and time left, and a line an epoch."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=progress_console,
        )
        self._task: TaskID | None = None
        self._loss = float("nan")
        self._rate = 0.0

    def __enter__(self) -> "TrainingDisplay":
        self._bar.start()
        self._task = self._bar.add_task("train", total=None, figures="starting")
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        assert self._task is not None
        if isinstance(event, RunStarted):
            self._loss, self._rate = float("nan"), 0.0  # the stage before has its own
            self._bar.reset(self._task, total=event.total_steps, completed=event.start_step, figures="starting")
            progress_console.print(
                f"run {event.run_id}, recipe {event.recipe}: {event.num_parameters:,} parameters, {event.total_steps} steps of "
                f"{event.global_batch} clips" + (f", resumed at step {event.start_step}" if event.start_step else "")
            )
            if event.num_dropped:
                progress_console.print(
                    f"{event.num_dropped} training clips have no level in this view, or lack a feature: left out"
                )
            for names, what in ((event.fresh, "start afresh"), (event.unused, "of the earlier model have no place in this one")):
                if names:
                    progress_console.print(f"{counted(len(names), 'weight')} {what}: {', '.join(names)}")
            if event.num_frozen:
                progress_console.print(f"{event.num_frozen:,} parameters are frozen")
            for name in event.skipped:
                progress_console.print(f"checkpoint {name} is damaged or half written, and was passed over", style="yellow")
        elif isinstance(event, StepDone):
            # a running mean over about ten steps, for the eye; the log and MLflow hold every step
            self._loss = event.loss if self._loss != self._loss else 0.9 * self._loss + 0.1 * event.loss
            self._rate = event.samples_per_s if not self._rate else 0.9 * self._rate + 0.1 * event.samples_per_s
            figures = f"loss {self._loss:.3f}  {self._rate:.1f} clips/s  data wait {event.data_wait_share:.0%}"
            self._bar.update(self._task, completed=event.step, figures=figures)
        elif isinstance(event, EpochDone):
            progress_console.print(_epoch_line(event))
        elif isinstance(event, RunFinished):
            self._bar.update(self._task, figures=f"finished, best epoch {event.best_epoch}")
        elif isinstance(event, Notice):
            progress_console.print(event.sentence, style="yellow")
        elif isinstance(event, CheckpointFailed):
            progress_console.print(f"checkpoint of step {event.step} is not there: {event.reason}", style="yellow")
        elif isinstance(event, WorkersChanged) and event.reason:
            progress_console.print(f"{event.alive} of {counted(event.wanted, 'worker')}: {event.reason}", style="yellow")
        elif isinstance(event, CheckpointSaved):
            pass


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
