"""Launch a training job: in this process, or as Ray Train workers."""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cluster.job import JobResult, TrainingJob, run_worker, save_job
from cluster.ray_address import join_address
from cluster.waiting import StopRequest, stop_on_sigterm
from data_shards.errors import ConfigError, RaptError, ServiceError
from training.events import Listener, parse_event
from training.world import World

__all__ = ["connect_ray", "disconnect_ray", "run_local", "run_on_ray"]

_POLL_S = 0.25


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
        # Ray reads this when it is imported: its processes then listen on loopback, not on every interface. The name
        # is of the systems it was made for (ray/_private/services.py, get_node_ip_address); gloo has its own.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # Serve kills a proxy that is not up in 5 s, which a busy laptop's is not
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S", "60")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    import ray

    if ray.is_initialized():
        return
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
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
    for name, wanted in (("GPU", job.workers * job.gpus_per_worker), ("CPU", job.workers if not job.gpus_per_worker else 0)):
        if wanted > there.get(name, 0):
            raise ConfigError(
                f"{job.workers} workers need {wanted:g} {name}s, the cluster has {there.get(name, 0):g}; "
                "change --workers or --gpus-per-worker, or name a larger cluster with --address"
            )


def disconnect_ray() -> None:
    """Leave the cluster; one that `connect_ray` started ends."""
    import ray

    ray.shutdown()


def run_on_ray(job: TrainingJob, listener: Listener, *, address: str | None = None) -> JobResult:
    """Train with `job.workers` Ray Train workers, DDP over gloo on CPUs and NCCL on GPUs."""
    job.run.loop.microbatch_for(job.workers)  # refuse a batch that cannot be shared before anything starts
    job = save_job(job)
    connect_ray(address, num_cpus=max(os.cpu_count() or 1, job.workers + 1))
    _check_resources(job)
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    from cluster.ray_worker import NoProcessGroup, train_worker

    result_path = job.run_folder / "result.json"
    result_path.unlink(missing_ok=True)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=NoProcessGroup(),
        scaling_config=ScalingConfig(
            num_workers=job.workers,
            use_gpu=job.gpus_per_worker > 0,
            resources_per_worker={"GPU": job.gpus_per_worker} if job.gpus_per_worker else {"CPU": 1},
        ),
        run_config=RunConfig(name=job.run_id, storage_path=str(job.run_folder / "ray")),
    )
    with _Following(job.run_folder / "events.jsonl", listener):
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _plain_failure(error, job) from None
        except SystemExit:  # Ray Train's own answer to Ctrl-C, once it has stopped the workers
            raise KeyboardInterrupt from None
    return _read_result(result_path)


def _read_result(path: Path) -> JobResult:
    content = json.loads(path.read_bytes())
    return JobResult(bundle=Path(content["bundle"]), version=content["version"], mlflow_run_id=content["mlflow_run_id"])


def _plain_failure(error: Exception, job: TrainingJob) -> RaptError:
    """The first worker's own RaptError where it raised one, else what Ray says, in one sentence."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    for _, failure in sorted(failures.items()):
        cause = getattr(failure, "cause", None) or failure.__cause__ or failure
        for candidate in (failure, cause):
            if isinstance(candidate, RaptError):
                return type(candidate)(str(candidate))
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return ConfigError(f"run {job.run_id}: a worker failed ({last}); resume it with `rapt train --resume {job.run_id}`")


class _Following:
    """Hands the events that another process appends to `path` to a listener, until the block ends."""

    def __init__(self, path: Path, listener: Callable[[Any], None]) -> None:
        self._path, self._listener = path, listener
        self._offset = path.stat().st_size if path.exists() else 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        self._pass_on()

    def _follow(self) -> None:
        while not self._done.wait(_POLL_S):
            self._pass_on()

    def _pass_on(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # half an event: the rest comes with the next look
                self._offset += len(line)
                self._listener(parse_event(line))
