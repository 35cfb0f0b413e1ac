"""Batch statistics over workers that hold few rows, or none: those of one process with all rows."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from training.batch_norm import GlobalBatchNorm1d, GlobalBatchNorm2d, synchronise_batch_norm
from training.models.row_norm import RowNorm

MEASURED = {"nobody": (0, 0), "one": (0, 1), "two": (1, 1), "all of one worker": (3, 0), "many": (3, 2)}


def _normalised(norm: nn.Module, rows: Tensor, count: int) -> dict[str, Tensor]:
    """What the first `count` of the rows become, their gradient, and the running statistics after it."""
    rows = rows.clone().requires_grad_()
    out = norm(rows, torch.arange(len(rows)) < count)
    (out * torch.arange(1.0, 4.0)).square().sum().backward()
    assert isinstance(norm, RowNorm)
    assert rows.grad is not None
    running = {name: value.clone() for name, value in norm.norm.named_buffers()}
    return {"out": out.detach()[:count], "grad": rows.grad[:count], **running}


def _worker(rank: int, size: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=size)
    try:
        made = {}
        for name, counts in MEASURED.items():
            norm = synchronise_batch_norm(RowNorm(3), torch.device("cpu")).train()
            made[name] = _normalised(norm, _rows(rank), counts[rank])
        torch.save(made, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def _rows(rank: int) -> Tensor:
    return torch.randn(3, 3, generator=torch.Generator().manual_seed(rank)) * 5


def test_workers_with_few_rows_or_none_normalise_as_one_process_does(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_worker, (2, port, str(tmp_path)), nprocs=2)
    of_workers = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, counts in MEASURED.items():
        rows = torch.cat([_rows(rank)[:count] for rank, count in enumerate(counts)])
        alone = _normalised(RowNorm(3).train(), rows, len(rows))
        for part in ("out", "grad"):
            joined = torch.cat([worker[name][part] for worker in of_workers])
            assert torch.allclose(joined, alone[part], atol=1e-4), (name, part)
        for worker in of_workers:
            for running in ("running_mean", "running_var", "num_batches_tracked"):
                assert torch.allclose(worker[name][running], alone[running]), (name, running)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_rows_of_features_are_ours_on_gpus_too(device: str) -> None:
    # torch's SyncBatchNorm has no guard for fewer than two rows over all workers
    model = nn.Sequential(RowNorm(3), nn.Sequential(nn.BatchNorm2d(4)), nn.BatchNorm1d(5))
    names = list(model.state_dict())
    made = synchronise_batch_norm(model, torch.device(device))
    assert [type(module) for module in made.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)] == [
        GlobalBatchNorm1d,
        nn.SyncBatchNorm if device == "cuda" else GlobalBatchNorm2d,
        GlobalBatchNorm1d,
    ]
    assert list(made.state_dict()) == names
