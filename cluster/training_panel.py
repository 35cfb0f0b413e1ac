"""The panel of a run that trains in an interactive terminal: how far, how well, how fast, who is alive, what is safe."""

import time

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from training.events import CheckpointFailed, CheckpointSaved, EpochDone, Event, RunFinished, RunStarted, StepDone, WorkersChanged

__all__ = ["LossCurve", "TrainingPanel"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_SMOOTHING = 0.9


class LossCurve:
    """A run's losses as a line of blocks, one a stretch of equally many steps; at most `columns` of them, however long it is."""

    def __init__(self, columns: int) -> None:
        self._columns, self._steps_a_column = columns, 1
        self._means: list[float] = []
        self._open: list[float] = []

    def add(self, loss: float) -> None:
        self._open.append(loss)
        if len(self._open) < self._steps_a_column:
            return
        self._means.append(sum(self._open) / len(self._open))
        self._open = []
        if len(self._means) > self._columns:  # two columns become one; an odd one at the end is opened again
            *pairs, last = self._means
            self._open = [last] * self._steps_a_column
            self._means = [(a + b) / 2 for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
            self._steps_a_column *= 2

    def __str__(self) -> str:
        if not self._means:
            return ""
        low, high = min(self._means), max(self._means)
        scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
        return "".join(_BLOCKS[round((mean - low) * scale)] for mean in self._means)


class TrainingPanel:
    """A listener that rich can draw. Figures of steps are running means over about ten, for the eye; MLflow holds every step."""

    def __init__(self) -> None:
        self._bar = Progress(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            auto_refresh=False,
            expand=True,
        )
        self._task = self._bar.add_task("train", total=None)
        self._title = "starting"
        self._workers = ""
        self._clear()

    def _clear(self) -> None:
        self._loss, self._rate, self._wait = float("nan"), 0.0, 0.0
        self._curve = LossCurve(columns=40)
        self._gpu_memory_gib = 0.0
        self._validation, self._checkpoint = "", ""
        self._saved_s = float("nan")

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._clear()  # the stage before has its own figures
            self._title = f"run {event.run_id}" + (f", recipe {event.recipe}" if event.recipe else "")
            self._bar.reset(self._task, total=event.total_steps, completed=event.start_step)
        elif isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, EpochDone):
            if event.validation:
                metrics = event.validation.metrics
                best = ", the best so far" if event.is_best else ""
                self._validation = f"balanced accuracy {metrics.balanced_accuracy:.3f}, accuracy {metrics.accuracy:.3f}{best}"
        elif isinstance(event, WorkersChanged):
            self._workers = f"{event.alive} of {event.wanted} alive"
        elif isinstance(event, CheckpointSaved):
            stall = f", stalled {event.stall_s:.2f} s" if event.stall_s else ""
            self._checkpoint, self._saved_s = f"step {event.step}{stall}", time.monotonic()
        elif isinstance(event, CheckpointFailed):
            self._checkpoint += f"; that of step {event.step} could not be written"
        elif isinstance(event, RunFinished):
            self._title += ", finished"

    def _step(self, event: StepDone) -> None:
        first = self._loss != self._loss
        kept = 0.0 if first else _SMOOTHING
        self._loss = (0.0 if first else kept * self._loss) + (1 - kept) * event.loss
        self._rate = kept * self._rate + (1 - kept) * event.samples_per_s
        self._wait = kept * self._wait + (1 - kept) * event.data_wait_share
        self._gpu_memory_gib = event.gpu_memory_gib
        self._curve.add(event.loss)
        self._bar.update(self._task, completed=event.step)

    def __rich__(self) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim")
        rows.add_column(no_wrap=True, overflow="ellipsis")
        for name, value in self._rows():
            rows.add_row(name, value)
        return Panel(Group(self._bar.get_renderable(), rows), title=self._title, title_align="left")

    def _rows(self) -> list[tuple[str, str]]:
        """What is known so far, one line a question."""
        known = self._loss == self._loss
        speed = f"{self._rate:.1f} clips/s, data wait {self._wait:.0%}"
        if self._gpu_memory_gib:
            speed += f", GPU memory {self._gpu_memory_gib:.1f} GiB"
        ago = f", {time.monotonic() - self._saved_s:.0f} s ago" if self._saved_s == self._saved_s else ""
        rows = [
            ("loss", f"{self._loss:.3f}  {self._curve}" if known else "no step yet"),
            ("validation", self._validation or "no epoch yet"),
            ("speed", speed if known else ""),
            ("workers", self._workers),
            ("checkpoint", self._checkpoint + ago if self._checkpoint else "none yet"),
        ]
        return [row for row in rows if row[1]]
