"""The listener that tells a run to MLflow: events become entries of the run's spool, and a thread sends them."""

import json
from collections.abc import Callable, Iterator
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
    Tags,
    parse_entry,
)
from training.tracking.figures import figures_of, final_figures
from training.tracking.model_files import write_model_files
from training.tracking.pictures import Curve, draw_confusion, draw_curves
from training.tracking.spool import read_lines
from training.tracking.told_run import ToldRun, TrackingSettings, now_ms

__all__ = ["MlflowTracker"]

_STEP_FIGURES = ("loss", "lr", "grad_norm", "samples_per_s", "data_wait_share", "epoch")


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
        self._run_folder, self._manifest, self._notify = run_folder, manifest, notify
        params = Params(values={name: str(value) for name, value in _flat(run.model_dump(mode="json"))})
        self._told = ToldRun(
            uri,
            name=name,
            tags=tags,
            run_folder=run_folder,
            parent=parent,
            opening=(params, _dataset(manifest, data)),
            settings=settings,
            notify=notify,
        )
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
            self._told.tell(Register(path=self._relative(register)))
        position = self._told.close(ending)
        self.mlflow_run_id, self.version = position.mlflow_run_id, position.version

    def _tell(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._figures(event.step, {name: getattr(event, name) for name in _STEP_FIGURES})
        elif isinstance(event, EpochDone):
            values = figures_of(event.validation) if event.validation else {}
            self._figures(event.step, {"train_loss": event.train_loss, **values})
            if event.is_best:
                self._told.tell(Tags(values={"best_epoch": str(event.epoch), "best_step": str(event.step)}), durable=True)
        elif isinstance(event, CheckpointSaved):
            self._told.tell(Tags(values={"checkpoint": Path(event.path).name}), durable=True)
        elif isinstance(event, RunStarted):
            steps = {"total_steps": str(event.total_steps), "steps_per_epoch": repr(event.steps_per_epoch)}
            self._told.tell(Tags(values=steps))
        elif isinstance(event, Profiled):
            self._told.tell(Tags(values={"profile": event.sentence}))
        elif isinstance(event, RunFinished):
            self._finished(event)

    def _finished(self, event: RunFinished) -> None:
        """Figures of the best epoch's weights, the bundle with what MLflow's page shows of it, and the pictures."""
        bundle = Path(event.bundle)
        record = read_record(bundle)
        self._figures(0, final_figures(record))
        self._told.tell(Artifact(path=self._relative(bundle), to="bundle"))
        beside = self._told.folder / "model"
        write_model_files(beside, record, self._manifest.features)
        self._told.tell(Artifact(path=self._relative(beside), to="bundle"))
        pictures = self._told.folder / "pictures"
        draw_curves(pictures / "curves.png", self._curves(), record)
        self._told.tell(Artifact(path=self._relative(pictures / "curves.png")))
        if event.test:
            draw_confusion(pictures / "confusion_matrix_test.png", event.test, record)
            self._told.tell(Artifact(path=self._relative(pictures / "confusion_matrix_test.png")))

    def _figures(self, step: int, values: dict[str, float]) -> None:
        self._told.tell(Metrics(at_ms=now_ms(), step=step, values=values))

    def _curves(self) -> dict[str, Curve]:
        """Every figure's (step, value), from the spool: those of before a resume too."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for line in read_lines(self._told.folder / "spool.jsonl"):
            entry = parse_entry(line)
            if isinstance(entry, Metrics):
                for name, value in entry.values.items():
                    curves.setdefault(name, []).append((entry.step, value))
        return dict(curves)

    def _relative(self, path: Path) -> str:
        """As a spool names a file: by its place below the run's folder, which may be moved."""
        return str(path.relative_to(self._run_folder)) if path.is_relative_to(self._run_folder) else str(path.absolute())


def _dataset(manifest: Manifest, data: str) -> DatasetInput:
    profile = {
        "digest": manifest.digest,
        "num_clips": sum(split.num_samples for split in manifest.splits.values()),
        "splits": {name: split.num_samples for name, split in manifest.splits.items()},
        "simulated": manifest.simulated,
    }
    return DatasetInput(name=manifest.dataset, digest=manifest.digest, source=shown_uri(data), profile=json.dumps(profile))


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
