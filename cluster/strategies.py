"""Which engine trains a run: torch's DistributedDataParallel, or DeepSpeed's ZeRO."""

from importlib.util import find_spec

from data_shards.errors import ConfigError
from training.config import RunConfig
from training.engine import MakeEngine, TorchEngine

__all__ = ["engine_for"]


def engine_for(run: RunConfig) -> MakeEngine:
    """The engine of `run.loop.strategy`. ConfigError where DeepSpeed is asked for and not installed."""
    if run.loop.strategy == "ddp":
        return TorchEngine
    if find_spec("deepspeed") is None:
        raise ConfigError(
            f"loop.strategy is {run.loop.strategy}, and DeepSpeed is not installed here; run `pip install deepspeed==0.19.8`, "
            "or set loop.strategy=ddp"
        )
    from cluster.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine
