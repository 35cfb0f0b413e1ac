"""A very small job on simulated clips, for benchmarks of what surrounds the training: 40 steps of 8 clips, two workers."""

from pathlib import Path
from typing import Any

from cluster.job import TrainingJob
from data_shards.building.build import build_shards
from data_shards.datasets import DATASETS
from data_shards.preprocess import PreprocessConfig
from data_shards.simulation import SimulationSettings, generate
from data_shards.storage.source import Source
from training.config import with_settings
from training.recipes import recipe

__all__ = ["tiny_job"]

_SMALL = ("model.widths=[4,8]", "model.levels=2", "model.hidden=8", "model.kernel=3", "loop.global_batch=8", "loop.epochs=8")


def tiny_job(
    scratch: Path, run_id: str, *, settings: tuple[str, ...] = ("loop.checkpoint_every_steps=4",), **more: Any
) -> TrainingJob:
    """A job whose clips, runs and MLflow lie below `scratch`; the clips are made once."""
    shards = scratch / "shards"
    if not (shards / "manifest.json").exists():
        generate(SimulationSettings(num_clips=64, seed=3, fps=6, width_px=160, height_px=120), scratch / "clips", num_workers=2)
        listing = DATASETS["simulated"](Source(scratch / "clips"))
        build_shards(listing, shards, preprocess=PreprocessConfig(num_frames=6, size_px=32), clips_per_shard=16, num_workers=2)
    return TrainingJob(
        run=with_settings(recipe("demo"), [*_SMALL, *settings]),
        data=str(shards),
        run_id=run_id,
        run_folder=scratch / "runs" / run_id,
        mlflow_uri=f"sqlite:///{scratch}/mlflow.db",
        **{"workers": 2, **more},
    )
