"""DeepSpeed's configuration, as it follows from a RunConfig and the number of workers."""

from typing import Any

from data_shards.errors import ConfigError
from training.config import RunConfig

__all__ = ["KEPT_WHOLE", "deepspeed_config", "zero_stage"]

KEPT_WHOLE = 10_000
"""ZeRO-3 leaves weights of fewer numbers whole on every worker: to gather a bias costs more than to keep it."""

_BUCKET = 5_000_000  # numbers a message: 20 MB, as torch's DDP has 25; DeepSpeed's own 500 million is 2 GB of buffer


def zero_stage(run: RunConfig) -> int:
    """1, 2 or 3. ConfigError where the run's strategy is not DeepSpeed's."""
    name, _, stage = run.loop.strategy.rpartition("zero")
    if name != "deepspeed-":
        raise ConfigError(f"loop.strategy is {run.loop.strategy}, which is not DeepSpeed's; set loop.strategy=deepspeed-zero2")
    return int(stage)


def deepspeed_config(run: RunConfig, world_size: int, *, kept_whole: int = KEPT_WHOLE) -> dict[str, Any]:
    """What deepspeed.initialize takes as `config`. ConfigError where the workers cannot share the batch, and as zero_stage.

    The arithmetic is TorchEngine's: weights, gradients and messages in float32, the forward pass alone under torch's
    autocast, the same rule of clipping. kept_whole: see KEPT_WHOLE.
    """
    stage, loop = zero_stage(run), run.loop
    microbatch = loop.microbatch_for(world_size)
    return {
        "train_batch_size": loop.global_batch,
        "train_micro_batch_size_per_gpu": microbatch,
        "gradient_accumulation_steps": loop.global_batch // (microbatch * world_size),
        "gradient_clipping": run.optimiser.clip_norm,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},  # would make the weights bfloat16, with a copy in float32
        "torch_autocast": {
            "enabled": loop.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],  # of these, gradients would be sent in bfloat16
        },
        "zero_allow_untested_optimizer": True,  # torch's own SGD: it goes by element, as AdamW does
        "zero_force_ds_cpu_optimizer": False,  # theirs is compiled when it is first used, and is another arithmetic
        "zero_optimization": _zero(stage, loop.offload, kept_whole),
    }


def _zero(stage: int, offload: str, kept_whole: int) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
        # [choice] messages are sent in turn with the backward pass: double buffers and two streams are memory, and the
        # source of most of DeepSpeed's reports of wrong gradients
        "overlap_comm": False,
    }
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    if stage == 3:
        zero |= {
            "stage3_param_persistence_threshold": kept_whole,
            "stage3_prefetch_bucket_size": _BUCKET,
            "memory_efficient_linear": False,  # replaces torch's linear layer for the whole process
        }
    return zero
