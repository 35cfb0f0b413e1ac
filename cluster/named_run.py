"""A run whose name is given: started where it is new, gone on with where it is there, and never as something else."""

import re
from pathlib import Path

from cluster.job import stored_run, understanding
from data_shards.errors import ConfigError
from data_shards.manifest import read_manifest
from training.config import RunConfig, first_difference

__all__ = ["check_run_name", "check_started_as"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_run_name(name: str) -> None:
    """ConfigError unless the name is of letters, digits, -, _ and . alone: it becomes a folder and a part of a job's id."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"run '{name[:140]}': a run's name has up to 128 letters, digits, -, _ and ., and starts with a letter or a digit"
        )


def check_started_as(run_folder: Path, recipe: str, runs: tuple[RunConfig, ...], *, data: str | None) -> None:
    """ConfigError unless the run that lies there was started as `recipe` with these settings; data: None for its own."""
    content = stored_run(run_folder)
    with understanding(run_folder):
        stored = content["stages"] if "stages" in content else [content["run"]]
        before = [RunConfig.model_validate(run) for run in stored]
        started_as = content["recipe"] if "stages" in content else before[0].recipe
    if started_as != recipe:
        raise ConfigError(
            f"run {run_folder.name}: was started as {started_as}, not as {recipe}; name that recipe, or another run with --run"
        )
    now = list(runs)
    if "stages" not in content:  # a run of one stage is stored as it was fitted to its data
        now = [run.fitted_to(read_manifest(data or str(content["data"])).features) for run in runs]
    for old, new in zip(before, now, strict=False):
        if difference := first_difference(old.model_dump(mode="json"), new.model_dump(mode="json")):
            raise ConfigError(
                f"run {run_folder.name}: was started with {difference}; leave --set as it was, or name another run with --run"
            )
