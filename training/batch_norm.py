"""Batch statistics over all workers, on CPU too, so that local and distributed runs normalise by the same numbers.

torch's own SyncBatchNorm (torch 2.13) refuses CPU tensors; it is used on GPUs, and this one elsewhere.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["synchronise_batch_norm"]


class _SumOverWorkers(torch.autograd.Function):
    """all_reduce(sum) whose gradient is all_reduce(sum) too: each worker's loss depends on every worker's input."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum_over_workers(value: Tensor) -> Tensor:
    total: Tensor = _SumOverWorkers.apply(value)  # type: ignore[no-untyped-call]
    return total


class _GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation (Ioffe and Szegedy 2015) of x_NC... with mean and variance over the workers' joined batch.

    Every worker must hold the same number of values a channel, as the training loader's equal batches do.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        workers = dist.get_world_size()
        # statistics in float32 at least, and the variance about the joined mean: E[x^2] - E[x]^2 would cancel
        wide = x if x.dtype == torch.float64 else x.float()
        variance_C, own_mean_C = torch.var_mean(wide, dim=[0, *range(2, x.dim())], correction=0)
        mean_C = _sum_over_workers(own_mean_C) / workers
        variance_C = _sum_over_workers(variance_C + (own_mean_C - mean_C) ** 2) / workers
        self._update_running(mean_C, variance_C, workers * x.numel() // x.shape[1])
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        shift_C = self.bias - mean_C * scale_C
        along_C = (1, -1, *[1] * (x.dim() - 2))
        normalised = wide * scale_C.view(along_C) + shift_C.view(along_C)
        return normalised.to(x.dtype)

    @torch.no_grad()
    def _update_running(self, mean_C: Tensor, variance_C: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C * count / max(1, count - 1), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class GlobalBatchNorm1d(_GlobalBatchNorm, nn.BatchNorm1d):
    """BatchNorm1d over all workers."""


class GlobalBatchNorm2d(_GlobalBatchNorm, nn.BatchNorm2d):
    """BatchNorm2d over all workers."""


_OVER_ALL_WORKERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: GlobalBatchNorm1d,
    nn.BatchNorm2d: GlobalBatchNorm2d,
}


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm1d and BatchNorm2d by one over all workers; parameter and buffer names stay."""
    if device.type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return synchronised
    for module in model.modules():
        module.__class__ = _OVER_ALL_WORKERS.get(type(module), type(module))
    return model
