"""`rapt train`, `rapt evaluate`."""

import json
from typing import TYPE_CHECKING

import click

from cluster.commands.options import cache_option
from cluster.commands.worker_range import WORKERS
from cluster.waiting import StopRequest

if TYPE_CHECKING:
    from pathlib import Path

    from training.bundle import BundleRecord
    from training.config import RunConfig

__all__ = ["evaluate", "record_of_result", "train"]


@click.command(context_settings={"show_default": True})
@click.argument("recipe", required=False)
@click.option("--data", help="Shards: a folder, or s3://bucket/prefix. [required unless --resume]")
@cache_option
@click.option("--local", is_flag=True, help="Train in this process, without Ray.")
@click.option(
    "--workers", type=WORKERS, help="Ray Train workers, which share the global batch; MIN:MAX follows the cluster. [default: 1]"
)
@click.option("--gpus-per-worker", type=click.FloatRange(0, 8), help="GPUs each worker gets. [default: 0]")
@click.option("--max-failures", type=click.IntRange(0), default=3, help="How often workers that failed are started again.")
@click.option("--timeout-s", type=click.FloatRange(1), default=300.0, help="How long workers wait for each other.")
@click.option("--address", help="Ray cluster to train on; one is started on this machine otherwise.")
@click.option(
    "--strategy",
    type=click.Choice(["ddp", "deepspeed-zero1", "deepspeed-zero2", "deepspeed-zero3"]),
    help="What workers share: the batch, or by DeepSpeed's ZeRO the optimiser's state, gradients (2), weights (3) too; "
    "short for --set loop.strategy=... [default: the recipe's, ddp]",
)
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change a setting of the recipe; may be repeated.")
@click.option("--resume", metavar="RUN", help="Go on with an earlier run from its last whole checkpoint.")
@click.option("--run", metavar="RUN", help="Start the run of that name, or go on with it where it is there already.")
@click.option("--tracking-wait-s", default=60.0, type=click.FloatRange(min=0), help="How long the end waits for MLflow.")
@click.option(
    "--system-metrics-s", default=10.0, type=click.FloatRange(min=0), help="Seconds between a node's CPU, GPU, ...; 0: none."
)
@click.option("--checkpoints", metavar="URI", help="Folder or s3://bucket/prefix for RUN's checkpoints. [default: below RUN]")
@click.option(
    "--profile",
    is_flag=True,
    help="Profile a few steps: traces in RUN/profile, and whether data, computing or communication holds the run up.",
)
@click.option("--show", is_flag=True, help="Print the resolved recipe and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.make_pass_decorator(StopRequest, ensure=True)
def train(
    stop: StopRequest,
    recipe: str | None,
    data: str | None,
    cache_gib: float,
    local: bool,
    workers: tuple[int, int] | None,
    gpus_per_worker: float | None,
    max_failures: int,
    timeout_s: float,
    address: str | None,
    strategy: str | None,
    settings: tuple[str, ...],
    resume: str | None,
    run: str | None,
    tracking_wait_s: float,
    system_metrics_s: float,
    checkpoints: str | None,
    profile: bool,
    show: bool,
    as_json: bool,
) -> None:
    """Train RECIPE on shards, track it in MLflow, register the bundle. Where it has stages, --set is for each that has PATH.

    \b
    resnet_tcn            ResNet+TCN as published (Abedi and Khan 2021)
    resnet_tcn_weighted   with weighted loss and every class in every batch
    engagewild            MocoRank on feature arrays instead of video, for EngageWild
    demo                  the same model, small, for two CPU cores
    demo_frames           demo without its temporal part: the baseline to beat
    cmose                 CMOSE's system as published (Wu et al. 2023), in two stages: cmose_visual, cmose_audio
    cmose_short           the same, short and small, for two CPU cores

    SIGTERM or Ctrl-C ends the step, writes a checkpoint and exits with 143 or 130; a second stops at once.

    \b
    Examples:
        rapt train demo --data demo-shards --local
        rapt train resnet_tcn --data daisee-shards --workers 2:8 --max-failures 10
        rapt train demo --data demo-shards --local --profile
        rapt train resnet_tcn --data daisee-shards --workers 2 --set loop.epochs=1 --set loop.global_batch=4
        rapt train resnet_tcn --data daisee-shards --workers 8 --gpus-per-worker 1 --strategy deepspeed-zero2
        rapt train --resume demo-20260101-120000-ab12
        rapt train demo --data demo-shards --run my-run
    """
    from dataclasses import replace
    from functools import partial

    from cluster.home import absolute_uri, cache_settings, mlflow_uri, new_run_id, run_folder, shown
    from cluster.job import TrainingJob, load_job
    from cluster.launch import run_local, run_on_ray
    from cluster.named_run import check_run_name, check_started_as
    from cluster.ray_address import submission_id
    from cluster.staged import StagedJob, is_staged, load_staged_job, run_staged
    from cluster.terminal import TrainingDisplay, console, evaluation_table
    from data_shards.errors import ConfigError
    from training.config import stages_with_settings
    from training.events import Notice
    from training.recipes import stages
    from training.tracking.told_run import TrackingSettings

    if strategy:
        settings = (*settings, f"loop.strategy={strategy}")
    if resume and (settings or recipe or run):
        raise ConfigError(
            "--resume goes on with a run as it was started; leave RECIPE, --run, --strategy and --set out, or start a new run"
        )
    if run is not None:
        check_run_name(run)
    runs = tuple(_with_absolute_start(stage) for stage in stages_with_settings(stages(recipe), settings)) if recipe else ()
    if run and recipe and not show and (run_folder(run) / "run.json").exists():
        check_started_as(run_folder(run), recipe, runs, data=data and absolute_uri(data))
        resume = run
    if resume:
        folder, there = run_folder(resume), data and absolute_uri(data)
        staged = load_staged_job(folder, data=there, mlflow_uri=mlflow_uri()) if is_staged(folder) else None
        job = staged.job if staged else load_job(folder, data=there, mlflow_uri=mlflow_uri())
    else:
        if recipe is None:
            raise ConfigError("no recipe named; e.g. rapt train demo --data demo-shards --local")
        if show:
            shown_runs = [stage.model_dump(mode="json") for stage in runs]
            click.echo(json.dumps(shown_runs if len(runs) > 1 else shown_runs[0], indent=2))
            return
        if data is None:
            raise ConfigError("no data named; give the folder of shards with --data, e.g. --data demo-shards")
        run_id = run or new_run_id(recipe)
        folder = run_folder(run_id)
        job = TrainingJob(run=runs[-1], data=absolute_uri(data), run_id=run_id, run_folder=folder, mlflow_uri=mlflow_uri())
        staged = StagedJob(recipe=recipe, runs=runs, job=job) if len(runs) > 1 else None
    tracking = TrackingSettings(close_wait_s=tracking_wait_s, system_interval_s=system_metrics_s)
    job = replace(
        job,
        cache=cache_settings(cache_gib),
        ray_job=submission_id(),
        tracking=tracking,
        max_failures=max_failures,
        timeout_s=timeout_s,
        profile=profile,
    )
    if local and (workers or gpus_per_worker or address):
        raise ConfigError("--local trains in this one process; leave it out to use --workers, --gpus-per-worker or --address")
    if workers is not None:
        job = replace(job, workers=workers[1], min_workers=workers[0] if workers[0] < workers[1] else 0)
    if gpus_per_worker is not None:
        job = replace(job, gpus_per_worker=gpus_per_worker)
    if checkpoints is not None:
        wanted = absolute_uri(checkpoints)
        if resume and wanted.rstrip("/") != job.checkpoints.rstrip("/"):
            there = job.checkpoints or f"below {folder}"
            raise ConfigError(f"run {job.run_id}: its checkpoints lie {there}, not in {wanted}; leave --checkpoints out")
        job = replace(job, checkpoints=wanted)
    with TrainingDisplay() as display:
        by_ray = partial(run_on_ray, listener=display, stop=stop, address=address)
        launch = partial(run_local, listener=display, stop=stop) if local else by_ray
        if staged:
            result = run_staged(replace(staged, job=job), launch, notify=lambda sentence: display(Notice(sentence=sentence)))
        else:
            result = launch(job)
    assert result is not None
    record = record_of_result(result.bundle, result.version)
    if as_json:
        content = {"run_id": job.run_id, "bundle": str(result.bundle), "version": result.version}
        click.echo(json.dumps({**content, "test": record.test.model_dump() if record.test else None}))
        return
    if record.test:
        title = f"{'simulated ' if record.simulated else ''}split {record.test.split}, model of epoch {record.best_epoch}"
        console.print(evaluation_table(record.test, title=title))
    console.print(f"bundle {shown(result.bundle)}")
    if result.version:
        version = f"registered as engagement version {result.version}"
        console.print(f"{version}; `rapt promote {record.run_id}` makes it the champion if it is better")
    else:
        console.print(f"not registered yet: `rapt runs sync {job.run_id}` does that once MLflow answers")


def record_of_result(bundle: "Path", version: str) -> "BundleRecord":
    """The record of a run's bundle; where the worker that wrote it has a disk of its own, from the registry."""
    from cluster.home import mlflow_uri
    from training.bundle import read_record
    from training.registry import MODEL_NAME, record_of

    if bundle.exists() or not version:
        return read_record(bundle)
    return record_of(f"models:/{MODEL_NAME}/{version}", mlflow_uri())


def _with_absolute_start(run: "RunConfig") -> "RunConfig":
    """The run with starts_from as it is from any folder: a worker, or a person who resumes it, may stand elsewhere."""
    from cluster.home import absolute_uri

    return run.model_copy(update={"starts_from": absolute_uri(run.starts_from)}) if run.starts_from else run


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option("--data", required=True, help="Shards: a folder, or s3://bucket/prefix.")
@cache_option
@click.option("--split", default="test", help="The split to evaluate on.")
@click.option("--json", "as_json", is_flag=True, help="Print the evaluation as JSON.")
def evaluate(model: str, data: str, cache_gib: float, split: str, as_json: bool) -> None:
    """Evaluate MODEL, a bundle's folder or models:/NAME@alias, on a split of shards.

    \b
    Example:
        rapt evaluate models:/engagement@champion --data demo-shards --split test
    """
    import numpy as np
    import torch

    from cluster.home import cache_settings, mlflow_uri
    from cluster.terminal import console, evaluation_table
    from data_shards.errors import ConfigError
    from data_shards.reading.reader import ShardSet
    from training.bundle import load_bundle
    from training.evaluate import evaluate as judge
    from training.evaluate import predict
    from training.registry import resolve

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    record, loaded = load_bundle(resolve(model, mlflow_uri()).folder, device)
    target, cache = record.run.target, cache_settings(cache_gib)
    held_out = ShardSet(data, splits=(split,), target=target, cache_settings=cache)
    if record.preprocess not in (None, held_out.manifest.preprocess):
        raise ConfigError(f"{data}: made with other preprocessing than the model's data; build shards with its settings")
    # the baseline is the most frequent level of training data; where these shards have none, of the split itself
    train_splits = tuple(s for s in record.run.data.train_splits if s in held_out.manifest.splits) or (split,)
    trained_on = ShardSet(data, splits=train_splits, target=target, cache_settings=cache)
    majority = int(np.bincount(trained_on.view.levels_N).argmax())
    predictions = predict(loaded, held_out, batch=record.run.loop.eval_batch, device=device)
    evaluation = judge(predictions, split=split, majority_level=majority)
    if as_json:
        click.echo(evaluation.model_dump_json())
        return
    word = "simulated " if held_out.manifest.simulated else ""
    console.print(evaluation_table(evaluation, title=f"{model} on {word}{split}"))
