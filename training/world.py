"""Which worker this is, and the few things workers say to each other. `World()` is one process alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from data_shards.errors import RaptError

__all__ = ["World"]

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """rank in [0, size). With size 1 nothing of torch.distributed is touched."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar tensor over workers."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, item: Any) -> list[Any]:
        """Every worker's item, in rank order, on every worker."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item)
        return items

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives on the first worker, on every worker; a RaptError that it raises there is raised on all.

        Where it raises anything else there, the others raise a RuntimeError that says so, and wait for nothing.
        """
        if self.size == 1:
            return make()
        answer: list[Any] = [None, None]  # what was made, and the error in its place
        fault: Exception | None = None
        if self.is_first:
            try:
                answer[0] = make()
            except RaptError as error:
                fault = answer[1] = error
            except Exception as error:  # may be of a kind that cannot be sent
                fault, answer[1] = error, RuntimeError(f"the first worker failed ({type(error).__name__}: {error})")
        dist.broadcast_object_list(answer)
        if (failed := fault or answer[1]) is not None:
            raise failed
        return answer[0]  # type: ignore[no-any-return]  # what came is what was sent

    def stack(self, values: Tensor) -> Tensor:
        """Every worker's tensor, all of one shape, stacked along a new first axis in rank order; without gradient."""
        values = values.detach().contiguous()
        if self.size == 1:
            return values.unsqueeze(0)
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values)
        return torch.stack(gathered)

    def join(self, rows: Tensor) -> Tensor:
        """Every worker's rows, equally many, one after the other in rank order; the gradient finds back to each worker."""
        if self.size == 1:
            return rows
        joined: Tensor = _Join.apply(rows, self)  # type: ignore[no-untyped-call]
        return joined

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


class _Join(torch.autograd.Function):
    """Every worker's loss depends on every worker's rows: a row's gradient is the sum of what all workers have for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        ctx.rank, ctx.num_rows = world.rank, len(rows)
        return world.stack(rows).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rank * ctx.num_rows :][: ctx.num_rows], None
