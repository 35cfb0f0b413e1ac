"""What runs in a Ray Train worker: join the others, find the device, then the same job as everywhere."""

import json
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train.backend import Backend

from cluster.job import JobResult, TrainingJob, run_worker
from data_shards.atomic import write_whole
from training.world import World

__all__ = ["NoProcessGroup", "train_worker"]

_TIMEOUT = timedelta(minutes=10)  # of a collective: a dead peer is seen in minutes, not in torch's half hour


class NoProcessGroup(ray.train.torch.TorchConfig):  # type: ignore[misc]  # Ray has no types
    """Ray Train's torch set-up without its process group: torch's rendezvous listens on every interface, ours does not."""

    @property
    def backend_cls(self) -> type[Backend]:
        return Backend  # type: ignore[no-any-return]


def train_worker(config: dict[str, Any]) -> None:
    """One worker's share of `config["job"]`; the first worker leaves the result beside the run."""
    job: TrainingJob = config["job"]
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size())
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    if world.size > 1:
        _join_process_group(world, device)
    try:
        result = run_worker(job, world=world, device=device)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    if result is not None:
        _write_result(job.run_folder / "result.json", result)


def _join_process_group(world: World, device: torch.device) -> None:
    """gloo on CPUs, NCCL on GPUs; the rendezvous listens on the first worker's node address alone."""
    listener = None
    if world.is_first:
        listener = socket.create_server((ray.util.get_node_ip_address(), 0))
    address = ray.train.collective.broadcast_from_rank_zero(listener.getsockname()[:2] if listener else None)
    store = dist.TCPStore(  # type: ignore[attr-defined]  # missing in torch's stubs
        address[0],
        address[1],
        world.size,
        is_master=world.is_first,
        timeout=_TIMEOUT,
        master_listen_fd=listener.detach() if listener else None,
    )
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=_TIMEOUT)


def _write_result(path: Path, result: JobResult) -> None:
    content = {"bundle": str(result.bundle), "version": result.version, "mlflow_run_id": result.mlflow_run_id}
    write_whole(path, json.dumps(content).encode())
