"""The Engine: forward, backward, step and state of a model under one way of running it. The loop knows nothing else of it."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data_shards.errors import ModelError
from data_shards.reading.loader import ClipInputs
from training.batch_norm import synchronise_batch_norm
from training.config import OptimiserConfig, RunConfig
from training.models import EngagementModel, ModelOutput
from training.world import World

__all__ = ["DIVERGED", "Engine", "MakeEngine", "TorchEngine", "lr_at"]

DIVERGED = "the run has diverged: start a new one with a lower --set optimiser.lr=... or with --set optimiser.clip_norm=1"


class Engine(Protocol):
    """What the loop asks of DDP or DeepSpeed. `model` is the bare model, whose weights may be spread over the workers."""

    model: EngagementModel

    def whole(self) -> EngagementModel:
        """The model with all its weights on this worker, for evaluation, for losses and for the bundle.

        Workers call it together. It may be `model` itself, or a copy that is true until the next step.
        """

    def forward(self, inputs: ClipInputs) -> ModelOutput: ...

    def precision(self) -> AbstractContextManager[Any]:
        """What the forward pass computes in, for another model beside it: a loss's momentum encoder."""

    def backward(self, loss: Tensor, *, last_of_step: bool) -> None:
        """Add the gradient of `loss`, already divided by the step's microbatches; workers agree on the step's last one."""

    def step(self, lr: float) -> float:
        """Clip, update, clear; returns the gradient's norm before clipping. ModelError where it is no number."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, of the same form under every strategy. Workers call it together; whole on the first."""

    def load_state(self, state: dict[str, Any]) -> None: ...


class MakeEngine(Protocol):
    def __call__(self, model: EngagementModel, run: RunConfig, *, world: World, device: torch.device) -> Engine: ...


class TorchEngine:
    """Plain PyTorch; DistributedDataParallel where there are several workers."""

    def __init__(self, model: EngagementModel, run: RunConfig, *, world: World, device: torch.device) -> None:
        self.model = model.to(device, torch.float64 if run.loop.precision == "fp64" else torch.float32)
        if run.loop.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        if world.size > 1:
            synchronise_batch_norm(self.model, device)
        self._device = device
        self._bf16 = run.loop.precision == "bf16"
        self._clip_norm = run.optimiser.clip_norm
        self._optimiser = make_optimiser(self.model, run.optimiser)
        self._ddp: DistributedDataParallel | None = None
        wrapped: nn.Module = self.model
        if world.size > 1:
            ids = [device.index or 0] if device.type == "cuda" else None
            # synchronised statistics are equal on every worker already, so no buffer is sent before each forward
            self._ddp = DistributedDataParallel(self.model, device_ids=ids, broadcast_buffers=False)
            wrapped = self._ddp
        self._forward = torch.compile(wrapped) if run.loop.compile else wrapped

    def whole(self) -> EngagementModel:
        return self.model

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        with self.precision():
            output: ModelOutput = self._forward(inputs)
        return output

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16)

    def backward(self, loss: Tensor, *, last_of_step: bool) -> None:
        with nullcontext() if last_of_step or self._ddp is None else self._ddp.no_sync():
            loss.backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float) -> float:
        limit = self._clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if not math.isfinite(norm):
            raise ModelError(f"the gradient's norm is {norm}; {DIVERGED}")
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])


def make_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, over all parameters that train."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)


def lr_at(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """The learning rate of step in [0, total_steps): linear warm-up, then constant or cosine (Loshchilov and Hutter 2017)."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    share = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.lr_final + (config.lr - config.lr_final) * 0.5 * (1 + math.cos(math.pi * share))
