"""A training job: what a worker does from its rank to the registered model, the same in-process and under Ray Train."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_shards.atomic import write_whole
from data_shards.errors import ConfigError, DataError, ModelError
from data_shards.manifest import read_manifest
from data_shards.storage.shard_cache import CacheSettings
from training.commit import current_commit
from training.config import RunConfig
from training.events import EventLog, Listener, Profiled
from training.loop import train
from training.profile import StepProfile
from training.registry import register
from training.tracking import MlflowTracker
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
    run's. tags: further tags of its MLflow run; registers: whether its bundle becomes a version, which one that a later
    stage starts from does not. profile: whether a few steps are measured, with the traces in profile/ below the run's folder.
    """

    run: RunConfig
    data: str
    run_id: str
    run_folder: Path
    mlflow_uri: str
    workers: int = 1
    gpus_per_worker: float = 0.0
    cache: CacheSettings | None = None
    stage: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    registers: bool = True
    profile: bool = False

    @property
    def mlflow_name(self) -> str:
        """The name of its MLflow run, which a stage does not share with the run it is of."""
        return f"{self.run_id}-{self.stage}" if self.stage else self.run_id


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """Where the bundle lies, and its version in the registry, "" where it was not registered."""

    bundle: Path
    version: str
    mlflow_run_id: str


def save_job(job: TrainingJob) -> TrainingJob:
    """Check that the data are the run's, and write run.json where the run is new, before any worker starts.

    Returns the job, its run fitted to the data.
    """
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
        "gpus_per_worker": job.gpus_per_worker,
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
        gpus_per_worker=float(content["gpus_per_worker"]),
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
    stop_after_step: int | None = None,
) -> JobResult | None:
    """One worker's share of the job. The first worker logs to events.jsonl and MLflow and registers the bundle.

    Returns None on the other workers, and where stop_after_step ended the run before it was whole.
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
    )
    if job.profile:
        share = partial(_profiled, share, job.run_folder / "profile", world=world, device=device)
    if not world.is_first:
        share()
        return None
    tracker = MlflowTracker(job.mlflow_uri, job.run, name=job.mlflow_name, tags=job_tags(job) | job.tags)
    events = EventLog(job.run_folder / "events.jsonl")
    bundle = None
    try:
        bundle = share(listeners=(events, tracker, *listeners))
    finally:
        events.close()
        tracker.close(finished=bundle is not None)
    if bundle is None:
        return None
    version = register(job.mlflow_uri, tracker.mlflow_run_id, bundle) if job.registers else ""
    return JobResult(bundle=bundle, version=version, mlflow_run_id=tracker.mlflow_run_id)


def _profiled(
    share: Callable[..., Path | None], folder: Path, *, world: World, device: torch.device, listeners: tuple[Listener, ...] = ()
) -> Path | None:
    """The same share with a few of its steps profiled, and the verdict told."""
    with StepProfile(folder, world=world, device=device) as profile:
        bundle = share(listeners=listeners, watch=profile)
    if profile.verdict and world.is_first:
        found = profile.verdict
        told = Profiled(sentence=found.sentence, bound=found.bound, shares=dict(found.shares), folder=str(folder))
        for listener in listeners:
            listener(told)
    return bundle


def job_tags(job: TrainingJob) -> dict[str, str]:
    """What the MLflow run says of where it comes from."""
    manifest = read_manifest(job.data)
    tags = {
        "recipe": job.run.recipe,
        "commit": current_commit(),
        "data_digest": manifest.digest,
        "dataset": manifest.dataset,
        "workers": str(job.workers),
    }
    return tags | ({"simulated": manifest.notice} if manifest.simulated else {})
