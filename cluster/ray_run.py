"""A run on a Ray cluster that outlives its workers: attempt after attempt, until it is whole, refused, stopped or given up.

An attempt is one fit of Ray Train with a fixed number of workers. Where a worker fails, Ray Train starts all of them again
(FailureConfig), from the last whole checkpoint. A run that may go on with fewer workers, is preempted or grows is ended by
its workers with a checkpoint, and gets another attempt: Ray Train's own resizing would throw away what no checkpoint has.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.placement_group import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.job import JobResult, TrainingJob
from cluster.ray_failures import TellFailures, mistake_again
from cluster.ray_worker import NoProcessGroup, train_worker
from cluster.relay import End, Order, Relay
from data_shards.errors import ServiceError, Stopped
from training.events import Listener, WorkersChanged, parse_event

__all__ = ["RayRun"]

_TAKE_S = 0.25
_SETTLE_S = 5.0  # until what a failed attempt held is free again
_SAY_WAITING_S = 10.0
_SAY_AGAIN_S = 60.0


class RayRun:
    def __init__(self, job: TrainingJob, listener: Listener, should_stop: Callable[[], bool], resize_every_s: float) -> None:
        self._job, self._listener, self._should_stop, self._resize_every_s = job, listener, should_stop, resize_every_s
        # how often, and for how long, Ray Train's controller asks a worker that does not answer; its own are 2 s and 10 min
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "1")
        os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(1.5 * job.timeout_s)  # the collectives first
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._relay: Any = ray.remote(Relay).options(num_cpus=0, scheduling_strategy=here).remote(job.workers)

    def train(self) -> JobResult:
        """ServiceError where the retries are used up, Stopped where a person asked, else what the workers refuse or make."""
        why = ""
        try:
            while True:
                size = self._wait_for_workers()
                ray.get(self._relay.begin.remote(why))
                failed = self._attempt(size)
                end: End = ray.get(self._relay.end.remote())
                if end.result is not None:
                    return JobResult(**end.result | {"bundle": Path(end.result["bundle"])})  # type: ignore[arg-type]
                if end.refused is not None:
                    raise mistake_again(*end.refused)
                if failed is None and self._should_stop():
                    raise Stopped(end.stopped)
                if failed is None:
                    why = f"started again after {end.cause}"
                    continue
                self._give_up_where_due(end, failed)
                why = f"started again after {end.failures[-1]}" if end.failures else ""
        finally:
            ray.kill(self._relay)

    def _give_up_where_due(self, end: End, failed: TrainingFailedError) -> None:
        """Raise the sentence of a run that failed too often."""
        cause = getattr(failed, "controller_failure", None)
        if self._job.is_elastic and type(cause).__name__ == "WorkerGroupStartupTimeoutError":
            return  # what was free a moment ago is not: look again how many there can be
        if cause is None and len(end.failures) <= self._job.max_failures:
            return
        what = end.failures[-1] if cause is None and end.failures else f"Ray Train's controller failed ({_last_line(failed)})"
        times = f", {len(end.failures)} failures in all" if len(end.failures) > 1 else ""
        raise ServiceError(
            f"run {self._job.run_id}: {what}{times}; `rapt train --resume {self._job.run_id}` goes on from the last checkpoint"
        )

    def _attempt(self, size: int) -> TrainingFailedError | None:
        """One fit with `size` workers, its events handed to the listener; what it failed with."""
        failures = ray.get(self._relay.end.remote()).failures
        # an elastic run may have to go on with another number, which is for the next attempt to see
        retries = 0 if self._job.is_elastic else max(0, self._job.max_failures - len(failures))
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": self._job, "relay": self._relay},
            torch_config=NoProcessGroup(),
            scaling_config=ScalingConfig(
                num_workers=size, use_gpu=self._job.gpus_per_worker > 0, resources_per_worker=self._needs
            ),
            run_config=RunConfig(
                name=f"{self._job.run_id}-{time.time_ns()}",  # else Ray Train looks for what an earlier attempt reported
                storage_path=str(self._job.run_folder / "ray"),
                failure_config=FailureConfig(max_failures=retries, controller_failure_limit=0 if self._job.is_elastic else -1),
                callbacks=[TellFailures(self._relay, size)],
            ),
        )
        failed: list[BaseException] = []

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:
                failed.append(error)

        # beside the main thread, which Ray Train would otherwise make deaf to Ctrl-C
        fitting = threading.Thread(target=fit, daemon=True, name="fit")
        fitting.start()
        self._follow(fitting, size)
        if failed and not isinstance(failed[0], TrainingFailedError):
            raise failed[0]
        return failed[0] if failed else None

    def _follow(self, fitting: threading.Thread, size: int) -> None:
        """Hand on the events, and the driver's wishes, until the fit is over and nothing is left.

        Stopped where that is wished while no worker is at work: none would hear it, perhaps for hours.
        """
        looked_s, waiting_since_s = time.monotonic(), time.monotonic() + _SAY_WAITING_S
        asked: Order = ""
        while True:
            ended = not fitting.is_alive()
            events, alive = ray.get(self._relay.take.remote(0 if ended else _TAKE_S))
            for event in events:
                self._listener(parse_event(event))
            if ended and not events:
                return
            now_s = time.monotonic()
            if not ended and not alive and self._should_stop():
                raise self._stopped()
            if asked != "stop" and self._should_stop():
                asked = "stop"
                ray.get(self._relay.order.remote("stop", "a person stopped it"))
            elif not asked and alive and self._job.is_elastic and now_s - looked_s >= self._resize_every_s:
                looked_s = now_s
                if (more := self._largest(size + self._free())) > size:
                    asked = "pause"
                    ray.get(self._relay.order.remote("pause", f"there was room for {more} workers instead of {size}"))
            if not alive and now_s >= waiting_since_s and _is_waiting_for_room():
                waiting_since_s = now_s + _SAY_AGAIN_S
                self._say_waiting(size)

    def _wait_for_workers(self) -> int:
        """How many workers the next attempt gets: as many as are wanted where it is not elastic, else as many as there is
        room for, at least the fewest."""
        if not self._job.is_elastic:
            return self._job.workers
        began_s = say_s = time.monotonic()
        sizes = self._job.sizes()
        while True:
            size, waited_s = self._largest(self._free()), time.monotonic() - began_s
            if size == sizes[-1] or (size and waited_s >= _SETTLE_S):
                return size
            if self._should_stop():
                raise self._stopped()
            if time.monotonic() - say_s >= _SAY_WAITING_S:
                say_s = time.monotonic() + _SAY_AGAIN_S
                self._say_waiting(sizes[0])
            time.sleep(0.5)

    def _stopped(self) -> Stopped:
        """The end of a run that no worker is at: what it has is in its last checkpoint."""
        run_id = self._job.run_id
        return Stopped(f"run {run_id}: stopped; `rapt train --resume {run_id}` goes on from its last checkpoint, if it has one")

    def _largest(self, room: int) -> int:
        """The most workers, of at most `room`, that can share the batch; 0 where none can."""
        return max((size for size in self._job.sizes() if size <= room), default=0)

    @property
    def _needs(self) -> dict[str, float]:
        return {"GPU": self._job.gpus_per_worker} if self._job.gpus_per_worker else {"CPU": 1.0}

    def _free(self) -> int:
        """For how many more workers there is room."""
        free = ray.available_resources()
        return min(int(free.get(name, 0) // wanted) for name, wanted in self._needs.items())

    def _say_waiting(self, size: int) -> None:
        free = ray.available_resources()
        words = ", ".join(f"{wanted * size:g} {name}s, {free.get(name, 0):g} are free" for name, wanted in self._needs.items())
        self._listener(WorkersChanged(alive=0, wanted=self._job.workers, reason=f"waiting for {words}"))


def _is_waiting_for_room() -> bool:
    return any(group["state"] in ("PENDING", "RESCHEDULING") for group in placement_group_table().values())


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
