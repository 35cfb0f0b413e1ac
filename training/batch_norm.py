"""Batch statistics over all workers, on CPU too, so that local and distributed runs normalise by the same numbers.

torch's own SyncBatchNorm (torch 2.13) refuses CPU tensors, and with fewer than two values a channel over all workers it divides
by zero or lets the running statistics decay. So it is used for frames on GPUs alone, of which there are always many, and
this one for all else: rows of features are those that were measured, which may be one or none.
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

    Workers may hold different numbers of values a channel, or none: clips differ in what could be measured in them.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # statistics in float32 at least, and the variance about the joined mean: E[x^2] - E[x]^2 would cancel
        wide = x if x.dtype == torch.float64 else x.float()
        others = [0, *range(2, x.dim())]
        own_count = wide.new_full((1,), x.numel() // x.shape[1])
        sums = _sum_over_workers(torch.cat([wide.sum(dim=others), own_count]))
        count = int(sums[-1])
        along_C = (1, -1, *[1] * (x.dim() - 2))
        if count < 2:  # one value has no variance: the running statistics serve it, as for a process alone (RowNorm)
            assert self.running_mean is not None
            assert self.running_var is not None
            mean_C, variance_C = self.running_mean + 0 * sums[:-1], self.running_var
        else:
            mean_C = sums[:-1] / count
            squares_C = (wide - mean_C.view(along_C)).square().sum(dim=others)
            variance_C = _sum_over_workers(squares_C) / count
            self._update_running(mean_C, variance_C, count)
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        shift_C = self.bias - mean_C * scale_C
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
    """Make every BatchNorm1d and BatchNorm2d below `model` one over all workers; parameter and buffer names stay."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if device.type == "cuda" and type(module) is nn.BatchNorm2d:
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(module))  # type: ignore[no-untyped-call]
            else:
                module.__class__ = _OVER_ALL_WORKERS.get(type(module), type(module))
    return model
