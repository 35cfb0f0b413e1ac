"""Launch a training job: in this process, or as Ray Train workers."""

import contextlib
import io
import os
import socket
from functools import partial

from cluster.job import JobResult, TrainingJob, run_worker, save_job
from cluster.ray_address import ON_LOOPBACK, join_address
from cluster.waiting import StopRequest, stop_on_sigterm
from data_shards.errors import ConfigError, ServiceError
from training.events import Listener
from training.world import World

__all__ = ["connect_ray", "disconnect_ray", "run_local", "run_on_ray"]


def run_local(
    job: TrainingJob, listener: Listener, *, stop: StopRequest | None = None, stop_after_step: int | None = None
) -> JobResult | None:
    """Train in this process, on a GPU where there is one. None where stop_after_step ended the run early.

    stop: where it is given, SIGTERM and Ctrl-C ask it while the job runs; Stopped is raised where it was asked.
    """
    import torch

    job = save_job(job)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    share = partial(run_worker, job, world=World(), device=device, listeners=(listener,), stop_after_step=stop_after_step)
    if stop is None:
        return share()
    with stop.on_signals():
        return share(should_stop=stop)


def connect_ray(address: str | None, *, num_cpus: int) -> None:
    """Connect to the Ray cluster at `address`, or start one on this machine that listens on loopback alone."""
    import logging

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a service for personal data sends nothing home
    if address := join_address(address):
        _check_answers(address)
    else:
        os.environ.update(ON_LOOPBACK)
        # Serve kills a proxy that is not up in 5 s, which a busy laptop's is not
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S", "60")
    import ray

    if ray.is_initialized():
        return
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            # "local": else Ray joins whatever cluster it finds on this machine, somebody else's too
            ray.init(
                address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        stop_on_sigterm()  # in place of Ray's own handler, which ends the process without a word
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = address or "on this machine"
        raise ServiceError(f"Ray {where}: cannot be reached or started ({str(error).splitlines()[0]}); check --address") from None


def _check_answers(address: str) -> None:
    """ServiceError where nothing answers at HOST:PORT; Ray itself would try for a minute and print its own errors."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local") or not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ServiceError(f"Ray at {address}: nothing answers ({error}); check --address, or leave it out") from None


def _check_resources(job: TrainingJob) -> None:
    """ConfigError where the cluster could never run the job; Ray Train would wait for ever."""
    import ray

    there = ray.cluster_resources()
    fewest = job.sizes()[0]
    for name, wanted in (("GPU", fewest * job.gpus_per_worker), ("CPU", fewest if not job.gpus_per_worker else 0)):
        if wanted > there.get(name, 0):
            raise ConfigError(
                f"{fewest} workers need {wanted:g} {name}s, the cluster has {there.get(name, 0):g}; "
                "change --workers or --gpus-per-worker, or name a larger cluster with --address"
            )


def disconnect_ray() -> None:
    """Leave the cluster; one that `connect_ray` started ends."""
    import ray

    with contextlib.redirect_stdout(io.StringIO()):  # there Ray tells of processes that it ends, as of failed tasks
        ray.shutdown()


def run_on_ray(
    job: TrainingJob,
    listener: Listener,
    *,
    address: str | None = None,
    stop: StopRequest | None = None,
    resize_every_s: float = 30.0,
) -> JobResult:
    """Train with up to `job.workers` Ray Train workers, DDP over gloo on CPUs and NCCL on GPUs.

    A failure starts the run again from its last whole checkpoint, `job.max_failures` times. stop: as in run_local; all workers
    write a checkpoint before Stopped is raised. resize_every_s: how often a run that has fewer workers than it wants
    looks for more.
    """
    job.sizes()  # refuse a batch that cannot be shared before anything starts
    job = save_job(job)
    connect_ray(address, num_cpus=max(os.cpu_count() or 1, job.workers + 1))
    _check_resources(job)
    from cluster.ray_run import RayRun

    if stop is None:
        return RayRun(job, listener, lambda: False, resize_every_s).train()
    with stop.on_signals():
        return RayRun(job, listener, stop, resize_every_s).train()
