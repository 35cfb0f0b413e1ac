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

__all__ = [
    "DIVERGED",
    "Engine",
    "MakeEngine",
    "TorchEngine",
    "lr_at",
    "make_optimiser",
    "optimiser_by_name",
    "set_lr",
    "trained",
]

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
        """What a checkpoint holds, of one form under every strategy: {"model": the state dict, "optimiser": {name of a
        parameter: its state's tensors}}. Workers call it together; whole on the first, empty elsewhere. True until the next
        step: who keeps it copies it, as the checkpoints' writer does, so the engine makes no copy of its own.
        """

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave, under this strategy or another, of as many workers or not. All hold the whole.

        ModelError where it is of another model.
        """

    def close(self) -> None:
        """Let go of the model: nothing is called afterwards."""


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
        self._world, self._device = world, device
        self._bf16 = run.loop.precision == "bf16"
        self._clip_norm = run.optimiser.clip_norm
        self._optimiser = make_optimiser(self.model, run.optimiser)
        self._ddp: DistributedDataParallel | None = None
        wrapped: nn.Module = self.model
        if world.size > 1:
            ids = [device.index or 0] if device.type == "cuda" else None
            # synchronised statistics are equal on every worker already, so no buffer is sent before each forward
            self._ddp = DistributedDataParallel(self.model, device_ids=ids, forward_sync_buffers=False)
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
        set_lr(self._optimiser, lr)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Any]:
        if not self._world.is_first:
            return {}
        by_name = {name: dict(self._optimiser.state.get(p, {})) for name, p in trained(self.model).items()}
        return {"model": self.model.state_dict(), "optimiser": by_name}

    def load_state(self, state: dict[str, Any]) -> None:
        by_name = optimiser_by_name(state, self.model)
        self.model.load_state_dict(state["model"])
        numbered = {number: by_name[name] for number, name in enumerate(by_name) if by_name[name]}
        self._optimiser.load_state_dict({"state": numbered, "param_groups": self._optimiser.state_dict()["param_groups"]})

    def close(self) -> None:
        pass


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def optimiser_by_name(state: dict[str, Any], model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The optimiser's part of a checkpoint, of every parameter that trains, in the model's order.

    ModelError where the checkpoint is of another model, or other parts of it were frozen.
    """
    names, stored = list(trained(model)), state["optimiser"]
    if set(stored) != set(names) or state["model"].keys() != model.state_dict().keys():
        raise ModelError("the checkpoint is of another model than this run's; start a new run")
    return {name: stored[name] for name in names}


def make_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, over all parameters that train."""
    parameters = list(trained(model).values())
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


def lr_at(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """The learning rate of step in [0, total_steps): linear warm-up, then constant or cosine (Loshchilov and Hutter 2017)."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    share = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.lr_final + (config.lr - config.lr_final) * 0.5 * (1 + math.cos(math.pi * share))
