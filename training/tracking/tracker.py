"""The listener that tells a run to MLflow: events become entries of the run's spool, and a thread sends them."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.manifest import Manifest
from training.bundle import read_record
from training.config import RunConfig
from training.events import CheckpointSaved, EpochDone, Event, Profiled, RunFinished, RunStarted, StepDone
from training.tracking.client import first_line, shown_uri
from training.tracking.entries import (
    Artifact,
    DatasetInput,
    Ending,
    Metrics,
    Params,
    Register,
    RunOpened,
    Status,
    Tags,
    parse_entry,
)
from training.tracking.figures import figures_of, final_figures
from training.tracking.model_files import write_model_files
from training.tracking.pictures import Curve, draw_confusion, draw_curves
from training.tracking.sender import Sender
from training.tracking.spool import Spool, read_lines

__all__ = ["MlflowTracker", "TrackingSettings"]

SPOOL = "tracking"  # the folder below the run's
_STEP_FIGURES = ("loss", "lr", "grad_norm", "samples_per_s", "data_wait_share", "epoch")


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """close_wait_s: how long a finished run waits for what MLflow has not taken yet. stopped_wait_s: the same of one that
    was stopped or failed, which may have little time, and whose record is sent when it goes on.
    system_interval_s: seconds between a node's system metrics, 0 for none.
    """

    close_wait_s: float = 60.0
    stopped_wait_s: float = 10.0
    system_interval_s: float = 0.0


class MlflowTracker:
    """Tells a run to MLflow without ever waiting for it, and without ending the run whatever happens.

    run_folder: the spool lies in its folder `tracking`; a run that goes on goes on with the same. parent: the name of the
    MLflow run that this one is below. notify: gets a sentence where something is amiss.
    """

    def __init__(
        self,
        uri: str,
        run: RunConfig,
        *,
        name: str,
        tags: dict[str, str],
        run_folder: Path,
        manifest: Manifest,
        data: str,
        settings: TrackingSettings | None = None,
        parent: str = "",
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._settings = settings or TrackingSettings()
        self._uri, self._name, self._notify, self._run_folder, self._manifest = uri, name, notify, run_folder, manifest
        self._spool = Spool(run_folder / SPOOL)
        if not self._spool.last_status:  # new, or killed before all of these were told
            self._spool.append(RunOpened(name=name, parent=parent, at_ms=_now_ms()))
            self._spool.append(Params(values={name: str(value) for name, value in _flat(run.model_dump(mode="json"))}))
            self._spool.append(_dataset(manifest, data))
        self._spool.append(Tags(values=tags))
        self._spool.append(Status(status="RUNNING", at_ms=_now_ms()), durable=True)
        self._sender = Sender(self._spool, uri, notify=notify)
        self.mlflow_run_id = self.version = ""

    def __call__(self, event: Event) -> None:
        try:
            self._tell(event)
        except Exception as error:  # a picture that cannot be drawn, a bundle that is gone: the run is worth more than its record
            self._notify(f"not told to MLflow: {event.kind} ({type(error).__name__}: {first_line(error)})")

    def close(self, ending: Ending, *, register: Path | None = None) -> None:
        """End the run, after its bundle was registered; then wait for MLflow, but not for ever.

        Afterwards mlflow_run_id and version are what MLflow gave, "" where it has not answered.
        """
        if register:
            self._spool.append(Register(path=self._relative(register)))
        self._spool.append(Status(status=ending, at_ms=_now_ms()), durable=True)
        self._spool.close()
        wait_s = self._settings.close_wait_s if ending == "FINISHED" else self._settings.stopped_wait_s
        position, num_waiting = self._sender.close(wait_s=wait_s)
        self.mlflow_run_id, self.version = position.mlflow_run_id, position.version
        if num_waiting:
            self._notify(waiting_sentence(num_waiting, self._uri, self._name))

    def _tell(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._figures(event.step, {name: getattr(event, name) for name in _STEP_FIGURES})
        elif isinstance(event, EpochDone):
            values = figures_of(event.validation) if event.validation else {}
            self._figures(event.step, {"train_loss": event.train_loss, **values})
            if event.is_best:
                self._spool.append(Tags(values={"best_epoch": str(event.epoch), "best_step": str(event.step)}), durable=True)
        elif isinstance(event, CheckpointSaved):
            self._spool.append(Tags(values={"checkpoint": Path(event.path).name}), durable=True)
        elif isinstance(event, RunStarted):
            steps = {"total_steps": str(event.total_steps), "steps_per_epoch": repr(event.steps_per_epoch)}
            self._spool.append(Tags(values=steps))
        elif isinstance(event, Profiled):
            self._spool.append(Tags(values={"profile": event.sentence}))
        elif isinstance(event, RunFinished):
            self._finished(event)

    def _finished(self, event: RunFinished) -> None:
        """Figures of the best epoch's weights, the bundle with what MLflow's page shows of it, and the pictures."""
        bundle = Path(event.bundle)
        record = read_record(bundle)
        self._figures(0, final_figures(record))
        self._spool.append(Artifact(path=self._relative(bundle), to="bundle"))
        beside = self._spool.folder / "model"
        write_model_files(beside, record, self._manifest.features)
        self._spool.append(Artifact(path=self._relative(beside), to="bundle"))
        pictures = self._spool.folder / "pictures"
        draw_curves(pictures / "curves.png", self._curves(), record)
        self._spool.append(Artifact(path=self._relative(pictures / "curves.png")))
        if event.test:
            draw_confusion(pictures / "confusion_matrix_test.png", event.test, record)
            self._spool.append(Artifact(path=self._relative(pictures / "confusion_matrix_test.png")))

    def _figures(self, step: int, values: dict[str, float]) -> None:
        self._spool.append(Metrics(at_ms=_now_ms(), step=step, values=values))

    def _curves(self) -> dict[str, Curve]:
        """Every figure's (step, value), from the spool: those of before a resume too."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for line in read_lines(self._spool.folder / "spool.jsonl"):
            entry = parse_entry(line)
            if isinstance(entry, Metrics):
                for name, value in entry.values.items():
                    curves.setdefault(name, []).append((entry.step, value))
        return dict(curves)

    def _relative(self, path: Path) -> str:
        """As a spool names a file: by its place below the run's folder, which may be moved."""
        return str(path.relative_to(self._run_folder)) if path.is_relative_to(self._run_folder) else str(path.absolute())


def waiting_sentence(num_waiting: int, uri: str, name: str) -> str:
    """What a person reads who has to send the rest."""
    records = "1 record waits" if num_waiting == 1 else f"{num_waiting:,} records wait"
    return f"{records} for MLflow at {shown_uri(uri)}; `rapt runs sync {name}` sends them"


def _dataset(manifest: Manifest, data: str) -> DatasetInput:
    profile = {
        "digest": manifest.digest,
        "num_clips": sum(split.num_samples for split in manifest.splits.values()),
        "splits": {name: split.num_samples for name, split in manifest.splits.items()},
        "simulated": manifest.simulated,
    }
    return DatasetInput(name=manifest.dataset, digest=manifest.digest, source=shown_uri(data), profile=json.dumps(profile))


def _now_ms() -> int:
    return int(time.time() * 1000)


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
