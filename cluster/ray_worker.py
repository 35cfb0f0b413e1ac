"""What runs in a Ray Train worker: join the others, find the device, then the same job as everywhere."""

import os
import socket
from datetime import timedelta
from typing import Any

import ray.train
import ray.train.collective
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train.backend import Backend

from cluster.job import TrainingJob, run_worker
from cluster.ray_failures import is_mistake
from cluster.ray_link import Link, notice_sigterm
from data_shards.errors import Stopped
from training.events import Event, RunFinished, WorkersChanged
from training.loop import Phase
from training.watchdog import Watchdog
from training.world import World

__all__ = ["NoProcessGroup", "train_worker"]


class NoProcessGroup(ray.train.torch.TorchConfig):  # type: ignore[misc]  # Ray has no types
    """Ray Train's torch set-up without its process group: torch's rendezvous listens on every interface, ours does not."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _SigtermNoticed


class _SigtermNoticed(Backend):  # type: ignore[misc]
    """The training function runs beside the main thread, which alone can take signals: so they are prepared for here."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(notice_sigterm)


def train_worker(config: dict[str, Any]) -> None:
    """One worker's share of `config["job"]`. What no retry mends is told to the relay and ends the run; all else is raised."""
    job: TrainingJob = config["job"]
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size())
    link = Link(config["relay"], world.rank, world.size)
    if link.why_started is None:
        return link.close()
    try:
        result = _train(job, world, link)
    except Stopped as stopped:
        link.leave("stopped", str(stopped))
    except Exception as error:
        if is_mistake(error):
            link.leave("refused", (type(error).__name__, str(error)))
        elif not link.is_refused():  # else it failed only because the one that was refused went
            raise
    else:
        if result is not None:
            link.leave("result", result)
    finally:
        link.close()
        if dist.is_initialized():
            dist.destroy_process_group()


def _train(job: TrainingJob, world: World, link: Link) -> dict[str, str] | None:
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    watchdog = None
    if world.size > 1:
        store = _join_process_group(world, device, timedelta(seconds=job.timeout_s))
        watchdog = Watchdog(
            world.rank,
            world.size,
            store,
            job.run_folder / "hangs",
            hang_after_s=job.hang_after_s,
            timeout_s=job.timeout_s,
            tell=lambda sentence: link(WorkersChanged(alive=world.size, wanted=job.workers, reason=sentence)),
        )

    def tell(event: Event) -> None:
        if watchdog is not None and isinstance(event, RunFinished):
            watchdog.close()  # what is left, to wait for MLflow, is the first worker's alone
        link(event)

    def watch(phase: Phase, step: int) -> None:
        if watchdog is not None:
            watchdog(phase, step)
        if phase == "checkpoint":
            link.flush()

    try:
        result = run_worker(
            job,
            world=world,
            device=device,
            listeners=(tell,),
            first=(WorkersChanged(alive=world.size, wanted=job.workers, reason=link.why_started or ""),),
            should_stop=link.should_stop,
            watch=watch,
        )
    finally:
        if watchdog is not None:
            watchdog.close()
    if result is None:
        return None
    return {"bundle": str(result.bundle), "version": result.version, "mlflow_run_id": result.mlflow_run_id}


def _join_process_group(world: World, device: torch.device, timeout: timedelta) -> Any:
    """gloo on CPUs, NCCL on GPUs; the rendezvous listens on the first worker's node address alone. Returns its store."""
    listener = None
    if world.is_first:
        listener = socket.create_server((ray.util.get_node_ip_address(), 0))
    address = ray.train.collective.broadcast_from_rank_zero(listener.getsockname()[:2] if listener else None)
    store = dist.TCPStore(  # type: ignore[attr-defined]  # missing in torch's stubs
        address[0],
        address[1],
        world.size,
        is_master=world.is_first,
        timeout=timeout,
        master_listen_fd=listener.detach() if listener else None,
    )
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=timeout)
    return store
