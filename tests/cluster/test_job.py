"""How many workers a run may have."""

from dataclasses import replace
from pathlib import Path

import click
import pytest

from cluster.commands.worker_range import WORKERS
from cluster.home import mlflow_uri
from cluster.job import TrainingJob, load_job, save_job
from data_shards.errors import ConfigError
from data_shards.manifest import Manifest
from training.config import RunConfig


def job(run: RunConfig, shards: Path, folder: Path) -> TrainingJob:
    return TrainingJob(
        run=run, data=str(shards), run_id="a", run_folder=folder, mlflow_uri=mlflow_uri(), workers=8, min_workers=3
    )


def test_only_numbers_of_workers_that_share_the_batch_evenly_are_used(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path: Path
) -> None:
    elastic = job(tiny_run, simulated_shards[0], tmp_path)
    assert elastic.is_elastic
    assert elastic.sizes() == [4, 8]
    assert replace(elastic, min_workers=0).sizes() == [8]
    with pytest.raises(ConfigError, match="7 workers cannot share evenly"):
        replace(elastic, workers=7, min_workers=5).sizes()


def test_run_json_holds_the_fewest_workers_too(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path: Path
) -> None:
    save_job(job(tiny_run, simulated_shards[0], tmp_path))
    again = load_job(tmp_path, data=None, mlflow_uri=mlflow_uri())
    assert (again.min_workers, again.workers) == (3, 8)


def test_workers_are_a_number_or_the_fewest_and_the_most() -> None:
    assert WORKERS.convert("2", None, None) == (2, 2)
    assert WORKERS.convert("2:8", None, None) == (2, 8)
    for wrong in ("0", "8:2", "2:", "two", "1:2:3"):
        with pytest.raises(click.BadParameter, match=r"neither a number of workers from 1 to 4096 nor MIN:MAX"):
            WORKERS.convert(wrong, None, None)
