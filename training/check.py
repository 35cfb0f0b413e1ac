"""Whether the stages of a job can train on some data: all that can be told before the first of them does."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch

from data_shards.storage.shard_cache import CacheSettings
from training.config import RunConfig
from training.losses import LOSSES
from training.models import MODELS, EngagementModel
from training.run_data import RunData
from training.starting import prepare, prepare_after
from training.world import World

__all__ = ["check_stages"]


def check_stages(runs: Sequence[RunConfig], data: str | Path, *, workers: int, cache: CacheSettings | None = None) -> None:
    """Open the data of each stage, build its model and loss, load and freeze as it will, from the stage before untrained.

    Of the data it reads the manifest alone. ConfigError or ModelError as the stage itself would raise.
    """
    earlier = None
    for run in runs:
        earlier = _check(run, data, workers, cache, earlier)


def _check(
    run: RunConfig, uri: str | Path, workers: int, cache: CacheSettings | None, earlier: EngagementModel | None
) -> EngagementModel:
    with closing(RunData(run, uri, World(0, workers), torch.device("cpu"), cache)) as data:
        for split in (run.data.validation_split, run.data.test_split):
            data.held_out(split)
        model = MODELS[run.model.name](data.run.model, len(data.level_names))
        LOSSES[run.loss.name](run.loss, data.levels)
        if earlier is None:
            prepare(model, run)
        else:
            prepare_after(earlier, model, run)
        return model
