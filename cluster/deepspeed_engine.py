"""The Engine over DeepSpeed's ZeRO (Rajbhandari et al. 2020), stages 1 to 3; written against DeepSpeed 0.19.8.

Torch's optimisers step on one flat piece a worker, of all weights that train: what a checkpoint holds of a parameter by its
name lies there in as many fragments as workers have a part of it.
"""

import copy
import math
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cluster.deepspeed_config import KEPT_WHOLE, deepspeed_config, zero_stage
from data_shards.errors import ModelError
from data_shards.reading.loader import ClipInputs
from training.batch_norm import synchronise_batch_norm
from training.config import RunConfig
from training.engine import DIVERGED, make_optimiser, optimiser_by_name, set_lr, trained
from training.models import EngagementModel, ModelOutput
from training.world import World

__all__ = ["DeepSpeedEngine"]


class DeepSpeedEngine:
    """ZeRO 1, 2 or 3 as the run says, over the process group that is there; a group of its own where there is one worker.

    What TorchEngine does with whole gradients and state, in shares: the same autocast, accumulation, clipping and optimiser.
    """

    def __init__(
        self, model: EngagementModel, run: RunConfig, *, world: World, device: torch.device, kept_whole: int = KEPT_WHOLE
    ) -> None:
        config = deepspeed_config(run, world.size, kept_whole=kept_whole)
        self.model = model.to(device, torch.float32)
        if world.size > 1:
            synchronise_batch_norm(self.model, device)
        self._world, self._device = world, device
        self._bf16 = run.loop.precision == "bf16"
        self._stage = zero_stage(run)
        self._copy = copy.deepcopy(self.model) if self._stage == 3 else None
        self._copy_is_true = True
        self._deepspeed = _import_deepspeed(device)
        self._owns_group = _join_world(device)
        self._optimiser = make_optimiser(self.model, run.optimiser)
        try:
            self._engine = self._deepspeed.initialize(
                model=self.model, optimizer=self._optimiser, config=config, dist_init_required=False
            )[0]
        except BaseException:
            self._leave_group()
            raise
        if run.loop.compile:
            self._engine.compile()

    def whole(self) -> EngagementModel:
        """The model itself; under ZeRO-3 a copy, which every worker keeps whole."""
        if self._copy is None:
            return self.model
        if not self._copy_is_true:
            with torch.no_grad(), self._gathered():
                for own, other in zip(self._copy.parameters(), self.model.parameters(), strict=True):
                    own.copy_(other)
                for buffer, newer in zip(self._copy.buffers(), self.model.buffers(), strict=True):
                    buffer.copy_(newer)
            self._copy_is_true = True
        return self._copy

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        self._copy_is_true = False  # batch statistics move already here
        with self.precision():
            output: ModelOutput = self._engine(inputs)
        return output

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16)

    def backward(self, loss: Tensor, *, last_of_step: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(last_of_step)
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, lr: float) -> float:
        set_lr(self._optimiser, lr)
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm):  # DeepSpeed has left the step out
            raise ModelError(f"the gradient's norm is {norm}; {DIVERGED}")
        self._copy_is_true = False
        return norm

    def state(self) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_optimizer_state

        whole = self.whole()
        shared, of_all = self._optimiser_state()
        by_name: dict[str, dict[str, Tensor]] = {}
        for name, parameter in trained(self.model).items():
            gathered = {key: safe_get_full_optimizer_state(parameter, key) for key in shared}
            if self._world.is_first:
                # from a GPU at once, where all of them together may have no room
                by_name[name] = {key: tensor.detach().cpu() for key, tensor in gathered.items()}
                # one of its own: torch's optimisers count each parameter's steps
                by_name[name] |= {key: tensor.to("cpu", copy=True) for key, tensor in of_all.items()}
        return {"model": whole.state_dict(), "optimiser": by_name} if self._world.is_first else {}

    def load_state(self, state: dict[str, Any]) -> None:
        by_name = optimiser_by_name(state, self.model)
        with self._gathered(changed=True):
            self.model.load_state_dict(state["model"])
        self._zero.refresh_fp32_params()
        self._load_optimiser(by_name)
        self._copy_is_true = False

    def close(self) -> None:
        self._engine.destroy()
        self._leave_group()

    @property
    def _zero(self) -> Any:
        """DeepSpeed's optimiser, which wraps ours."""
        return self._engine.optimizer

    @property
    def _pieces(self) -> list[Tensor]:
        """What our optimiser steps on: this worker's share of the weights, flat. One, or some under ZeRO-3."""
        zero = self._zero
        pieces: list[Tensor] = zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
        return pieces

    def _optimiser_state(self) -> tuple[list[str], dict[str, Tensor]]:
        """(names of what each number of a piece has, such as momentum; what all have in common, as AdamW's count of steps)."""
        piece = self._pieces[0]
        state = self._optimiser.state.get(piece, {})
        shared = [key for key, value in state.items() if value.shape == piece.shape]
        return shared, {key: value for key, value in state.items() if key not in shared}

    def _gathered(self, *, changed: bool = False) -> AbstractContextManager[None]:
        """All weights are whole inside; under ZeRO-3 they are shared out again afterwards, as the first worker has them."""
        if self._stage != 3:
            return nullcontext()
        gathered: AbstractContextManager[None] = self._deepspeed.zero.GatheredParameters(
            list(self.model.parameters()), modifier_rank=0 if changed else None
        )
        return gathered

    @torch.no_grad()
    def _load_optimiser(self, by_name: dict[str, dict[str, Tensor]]) -> None:
        """Give each piece its part of what parameters have; a parameter that has none yet has zeros."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        parameters = trained(self.model)
        known = {key: value for tensors in by_name.values() for key, value in tensors.items()}
        shared = [key for key in known if known[key].dim() > 0]  # [choice] a parameter that is one number counts as a count
        for piece in self._pieces if known else ():
            for key, value in known.items():
                self._optimiser.state[piece][key] = torch.zeros_like(piece) if key in shared else value.clone()
        if self._stage != 3:
            self._zero._lazy_init_hp_params_optimizer_state()
        for name, parameter in parameters.items():
            for key in shared:
                if key not in by_name[name]:
                    continue
                value = by_name[name][key]
                if self._stage == 3:
                    safe_set_local_optimizer_state(parameter, self._share(value), key)
                else:
                    safe_set_full_optimizer_state(parameter, value, key)

    def _share(self, value: Tensor) -> Tensor:
        """This worker's share of a whole tensor as ZeRO-3 cuts it: equal parts, the last filled up with zeros."""
        size = -(-value.numel() // self._world.size)
        padded = nn.functional.pad(value.flatten(), (0, size * self._world.size - value.numel()))
        return padded[self._world.rank * size :][:size]

    def _leave_group(self) -> None:
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, quiet, on this device, compiling nothing and looking for no launcher."""
    os.environ["DS_ACCELERATOR"] = device.type  # else it looks for one, and says what it found on stdout
    os.environ["LOCAL_RANK"] = str(device.index or 0)  # by which it chooses its GPU
    import deepspeed

    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # with each of its messages
    deepspeed.utils.logging.set_log_level_from_string("error")
    deepspeed.ops.__compatible_ops__ = {}  # else it compiles messages through shared memory where it finds a compiler
    return deepspeed


def _join_world(device: torch.device) -> bool:
    """Have DeepSpeed use the process group that is there, with its timeout, in place of a second one of the same workers.

    Where there is none, one of this process alone, which listens nowhere. Returns whether it was made.
    """
    from deepspeed.utils import groups

    alone = not dist.is_initialized()
    if alone:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]  # as is TCPStore
    groups._WORLD_GROUP = dist.group.WORLD
    return alone
