"""A training job: what a worker does from its rank to the registered model, the same in-process and under Ray Train."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cluster.strategies import engine_for
from data_shards.atomic import write_whole
from data_shards.errors import ConfigError, DataError, ModelError
from data_shards.manifest import Manifest, read_manifest
from data_shards.storage.shard_cache import CacheSettings
from training.commit import current_commit
from training.config import RunConfig
from training.events import Event, EventLog, Listener, Notice, Profiled
from training.loop import Phase, Watch, train
from training.profile import StepProfile
from training.tracking.client import check_tracking_uri, shown_uri
from training.tracking.entries import ending_by
from training.tracking.system_metrics import NodeMonitor
from training.tracking.told_run import SPOOL, TrackingSettings
from training.tracking.tracker import MlflowTracker
from training.world import World

__all__ = [
    "JobResult",
    "TrainingJob",
    "job_again",
    "job_tags",
    "load_job",
    "run_worker",
    "save_job",
    "stored_run",
    "understanding",
    "write_run_json",
]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """All that a run needs, as plain values, so that it can be sent to a worker and stored in run.json.

    run_id: the name a person uses. stage: where this is a stage of that run, which; also the name of its folder below the
    run's. parent: the MLflow run it is below, tags: further tags of its own; registers: whether its bundle becomes a
    version, which one that a later stage starts from does not. ray_job: the id of the Ray job whose driver launches it, ""
    where there is none. checkpoints: a folder or s3://bucket/prefix that may be shared by runs, "" for the run's own folder.
    profile: whether a few steps are measured, with the traces in profile/ below the run's folder.

    workers: how many are wanted; min_workers: with how few the run goes on, 0 for no fewer than wanted. max_failures: how
    many times the run starts again after a worker failed. timeout_s: how long workers wait for each other. hang_after_s: how
    long a worker may stay where it is before it is called hung, unless its steps take longer.
    """

    run: RunConfig
    data: str
    run_id: str
    run_folder: Path
    mlflow_uri: str
    workers: int = 1
    min_workers: int = 0
    gpus_per_worker: float = 0.0
    max_failures: int = 3
    timeout_s: float = 300.0
    hang_after_s: float = 120.0
    cache: CacheSettings | None = None
    stage: str = ""
    parent: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    registers: bool = True
    ray_job: str = ""
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    checkpoints: str = ""
    profile: bool = False

    @property
    def mlflow_name(self) -> str:
        """The name of its MLflow run, which a stage does not share with the run it is of."""
        return f"{self.run_id}-{self.stage}" if self.stage else self.run_id

    @property
    def checkpoints_at(self) -> str | None:
        """Where its checkpoints lie, None for below its run's folder: one address serves all runs and stages."""
        parts = [self.checkpoints.rstrip("/"), self.run_id, *([self.stage] if self.stage else [])]
        return "/".join(parts) if self.checkpoints else None

    @property
    def is_elastic(self) -> bool:
        """Whether the run goes on with fewer workers than wanted."""
        return 0 < self.min_workers < self.workers

    def sizes(self) -> list[int]:
        """The numbers of workers that the run can have: those that can share its batch evenly. ConfigError where none can."""
        sizes = []
        for size in range(self.min_workers or self.workers, self.workers + 1):
            with suppress(ConfigError):
                self.run.loop.microbatch_for(size)
                sizes.append(size)
        if not sizes:
            self.run.loop.microbatch_for(self.workers)  # says why not
        return sizes


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """Where the bundle lies, and its version in the registry: "" where it was not registered, or waits for MLflow.

    mlflow_run_id: "" where MLflow has not answered.
    """

    bundle: Path
    version: str
    mlflow_run_id: str


def save_job(job: TrainingJob) -> TrainingJob:
    """Check that the data are the run's, and write run.json where the run is new, before any worker starts.

    Returns the job, its run fitted to the data.
    """
    check_tracking_uri(job.mlflow_uri)
    manifest = read_manifest(job.data)
    if job.run.data.label not in manifest.label_names:
        known = ", ".join(manifest.label_names)
        raise ConfigError(f"{job.data}: holds no label '{job.run.data.label}' (it has: {known}); set data.label to one")
    fitted = replace(job, run=job.run.fitted_to(manifest.features))
    write_run_json(fitted, {"run": fitted.run.model_dump(mode="json")}, digest=manifest.digest)
    return fitted


def write_run_json(job: TrainingJob, configured: dict[str, Any], *, digest: str) -> None:
    """Write run.json where the run is new: what is `configured`, and where it runs on what.

    ConfigError where it is there, and was started on other data than those of `digest`.
    """
    path = job.run_folder / "run.json"
    if path.exists():
        started_with = stored_run(job.run_folder)["data_digest"]
        if started_with != digest:
            raise ConfigError(
                f"{job.run_folder}: this run was started on data {started_with[:12]}, {job.data} is {digest[:12]}; "
                "name the data it was started with, or start a new run"
            )
        return
    content = configured | {
        "data": job.data,
        "data_digest": digest,
        "run_id": job.run_id,
        "stage": job.stage,
        "workers": job.workers,
        "min_workers": job.min_workers,
        "gpus_per_worker": job.gpus_per_worker,
        "checkpoints": job.checkpoints,
    }
    try:
        write_whole(path, json.dumps(content, indent=2).encode() + b"\n")
    except OSError as error:
        raise DataError(f"{job.run_folder}: cannot be written ({error.strerror}); make room, or set RAPT_HOME") from None


def load_job(run_folder: Path, *, data: str | None, mlflow_uri: str) -> TrainingJob:
    """The job of an earlier run, to resume it; its own data, unless the same lie elsewhere now.

    ConfigError where a stage of a run lies there: alone it would not end as the run does.
    """
    content = stored_run(run_folder)
    if content.get("stage"):
        whole = content.get("run_id")
        raise ConfigError(
            f"{run_folder}: is stage {content['stage']} of run {whole}; resume that with `rapt train --resume {whole}`"
        )
    with understanding(run_folder):
        return job_again(content, RunConfig.model_validate(content["run"]), run_folder, data=data, mlflow_uri=mlflow_uri)


def job_again(content: dict[str, Any], run: RunConfig, run_folder: Path, *, data: str | None, mlflow_uri: str) -> TrainingJob:
    """The job of a stored run, `content`, with its own data unless others are named."""
    return TrainingJob(
        run=run,
        data=data or str(content["data"]),
        run_id=content["run_id"],
        run_folder=run_folder,
        mlflow_uri=mlflow_uri,
        workers=int(content["workers"]),
        min_workers=int(content.get("min_workers", 0)),
        gpus_per_worker=float(content["gpus_per_worker"]),
        checkpoints=str(content.get("checkpoints", "")),
    )


@contextmanager
def understanding(run_folder: Path) -> Iterator[None]:
    """Whatever is not as it should be in a run's run.json, as one ModelError."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError) as error:  # pydantic's ValidationError is a ValueError
        raise ModelError(f"{run_folder / 'run.json'}: not a run of this Rapt ({type(error).__name__}); start a new run") from None


def stored_run(run_folder: Path) -> dict[str, Any]:
    """A run's run.json. ModelError where there is none, or it is damaged."""
    try:
        content = json.loads((run_folder / "run.json").read_bytes())
    except OSError:
        raise ModelError(f"{run_folder}: no such run; `ls {run_folder.parent}` lists them") from None
    except ValueError:
        raise ModelError(f"{run_folder}: its run.json is damaged; start a new run") from None
    if not isinstance(content, dict) or "data_digest" not in content:
        raise ModelError(f"{run_folder}: its run.json is no run of this Rapt; start a new run")
    return content


def run_worker(
    job: TrainingJob,
    *,
    world: World,
    device: torch.device,
    listeners: tuple[Listener, ...] = (),
    first: tuple[Event, ...] = (),
    stop_after_step: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    watch: Watch = lambda phase, step: None,
) -> JobResult | None:
    """One worker's share of the job. The first worker logs to events.jsonl and MLflow and registers the bundle.

    first: what is told before the run itself speaks. Returns None on the other workers, and where stop_after_step ended the
    run before it was whole.
    """
    share: Callable[..., Path | None] = partial(
        train,
        job.run,
        job.data,
        job.run_folder,
        run_id=job.run_id,
        world=world,
        device=device,
        cache=job.cache,
        stop_after_step=stop_after_step,
        make_engine=engine_for(job.run),
        should_stop=should_stop,
        checkpoints=job.checkpoints_at,
        watch=watch,
    )
    if job.profile:
        share = partial(_profiled, share, job.run_folder / "profile", watch, world=world, device=device)
    if not world.is_first:
        with _watched(job, lambda sentence: None):
            share()
        return None
    with closing(EventLog(job.run_folder / "events.jsonl")) as events:
        told: tuple[Listener, ...] = (events, *listeners)
        for event in first:
            for listener in told:
                listener(event)

        def notify(sentence: str) -> None:
            for listener in told:
                listener(Notice(sentence=sentence))

        manifest = read_manifest(job.data)
        tracker = MlflowTracker(
            job.mlflow_uri,
            job.run,
            name=job.mlflow_name,
            tags=job_tags(job, manifest) | job.tags,
            run_folder=job.run_folder,
            manifest=manifest,
            data=job.data,
            settings=job.tracking,
            parent=job.parent,
            notify=notify,
        )
        try:
            with _watched(job, notify):
                bundle = share(listeners=(events, tracker, *listeners))
        except BaseException as error:
            tracker.close(ending_by(error))
            raise
        tracker.close("FINISHED" if bundle else ending_by(None), register=bundle if job.registers else None)
    if bundle is None:
        return None
    return JobResult(bundle=bundle, version=tracker.version, mlflow_run_id=tracker.mlflow_run_id)


@contextmanager
def _watched(job: TrainingJob, notify: Callable[[str], None]) -> Iterator[None]:
    """System metrics of this node while the block runs."""
    settings = job.tracking
    folder = job.run_folder / SPOOL
    monitor = NodeMonitor(folder, job.mlflow_uri, run_name=job.mlflow_name, interval_s=settings.system_interval_s, notify=notify)
    try:
        yield
    finally:
        monitor.close(wait_s=min(settings.close_wait_s, 5.0))


def _profiled(
    share: Callable[..., Path | None],
    folder: Path,
    watch: Watch,
    *,
    world: World,
    device: torch.device,
    listeners: tuple[Listener, ...] = (),
) -> Path | None:
    """The same share with a few of its steps profiled, and the verdict told."""
    with StepProfile(folder, world=world, device=device) as profile:

        def watch_both(phase: Phase, step: int) -> None:
            watch(phase, step)
            profile(phase, step)

        bundle = share(listeners=listeners, watch=watch_both)
    if profile.verdict and world.is_first:
        found = profile.verdict
        told = Profiled(sentence=found.sentence, bound=found.bound, shares=dict(found.shares), folder=str(folder))
        for listener in listeners:
            listener(told)
    return bundle


def job_tags(job: TrainingJob, manifest: Manifest) -> dict[str, str]:
    """What the MLflow run says of where it comes from. manifest: of the job's data."""
    tags = {
        "recipe": job.run.recipe,
        "commit": current_commit(),
        "data_digest": manifest.digest,
        "dataset": manifest.dataset,
        "workers": str(job.workers),
        "data": shown_uri(job.data),
        "num_clips": str(sum(split.num_samples for split in manifest.splits.values())),
    }
    tags |= {"ray_job": job.ray_job} if job.ray_job else {}
    return tags | ({"simulated": manifest.notice} if manifest.simulated else {})
