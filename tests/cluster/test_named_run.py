"""`rapt train --run`, and the command line that `rapt submit` makes of a person's."""

import shlex
from dataclasses import replace
from pathlib import Path

import click
import pytest

from cluster.commands.submit import _NOT_FOR_JOBS, _entrypoint, _forwarded, submit
from cluster.commands.train import train
from cluster.home import mlflow_uri, run_folder
from cluster.job import TrainingJob
from cluster.jobs import JobRequest
from cluster.launch import run_local
from cluster.named_run import check_run_name, check_started_as
from data_shards.errors import ConfigError
from data_shards.manifest import Manifest
from tests.cluster.test_command_line import rapt_run
from tests.conftest import TINY_SETTINGS
from training.config import RunConfig, stages_with_settings, with_settings
from training.recipes import stages


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-rf", "a b", "ä", "a" * 129, "a\n"])
def test_a_name_that_is_a_path_or_an_option_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a run's name has up to 128 letters"):
        check_run_name(name)


def test_names_that_are_taken() -> None:
    for name in ("demo-20260101-120000-ab12", "a.b_c-1", "7"):
        check_run_name(name)


def test_a_named_run_goes_on_and_never_as_another(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPT_HOME", str(tmp_path))
    run = with_settings(tiny_run, ["loop.checkpoint_every_steps=2"])
    shards = str(simulated_shards[0])
    job = TrainingJob(run=run, data=shards, run_id="mine", run_folder=run_folder("mine"), mlflow_uri=mlflow_uri())
    assert run_local(job, lambda event: None, stop_after_step=2) is None
    settings = [f"--set={setting}" for setting in (*TINY_SETTINGS, "loop.checkpoint_every_steps=2")]
    command = ["train", "demo", "--data", shards, "--local", "--run", "mine", *settings]
    other = rapt_run(*command, "--set=loop.epochs=7")
    assert (other.returncode, other.stdout) == (1, "")
    assert "run mine: was started with loop.epochs=1, not 7; leave --set as it was" in other.stderr
    other = rapt_run("train", "demo_frames", *command[2:7])
    assert "run mine: was started as demo, not as demo_frames" in other.stderr
    other = rapt_run(*command, f"--checkpoints={tmp_path / 'elsewhere'}")
    assert other.returncode == 1
    assert f"its checkpoints lie below {run_folder('mine')}, not in {tmp_path / 'elsewhere'}; leave --checkpoints" in other.stderr
    gone_on = rapt_run(*command)
    assert gone_on.returncode == 0, gone_on.stderr
    assert "run mine, recipe demo" in gone_on.stderr
    assert "resumed at step 2" in gone_on.stderr


def test_a_staged_run_is_compared_stage_by_stage(simulated_shards: tuple[Path, Manifest], tmp_path: Path) -> None:
    from cluster.job import write_run_json

    runs = stages("cmose_short")
    job = TrainingJob(run=runs[-1], data=str(simulated_shards[0]), run_id="two", run_folder=tmp_path / "two", mlflow_uri="")
    content = {"recipe": "cmose_short", "stages": [run.model_dump(mode="json") for run in runs]}
    write_run_json(job, content, digest=simulated_shards[1].digest)
    check_started_as(tmp_path / "two", "cmose_short", runs, data=None)
    with pytest.raises(ConfigError, match=r"was started with seed=0, not 1"):
        check_started_as(tmp_path / "two", "cmose_short", stages_with_settings(runs, ["seed=1"]), data=None)


def test_a_jobs_command_is_the_persons_with_every_word_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nasty = "my shards; $(touch x)"
    given = ["demo", "--data", nasty, "--workers", "2", "--set", "model.widths=[4,8]", "--set", "starts_from=a b", "--no-wait"]
    given += ["--checkpoints", "c", "--strategy", "deepspeed-zero2", "--profile", "--max-failures", "0", "--tracking-wait-s", "5"]
    context = submit.make_context("submit", given)
    words = _forwarded(context, {name: context.params[name] for name in context.params if name not in _NOT_FOR_JOBS})
    line = _entrypoint("demo", nasty, words, "mine")
    assert shlex.split(line) == [
        *("python", "-m", "cluster", "train", "demo", f"--data={tmp_path / nasty}", "--workers=2:2", "--max-failures=0"),
        *("--strategy=deepspeed-zero2", "--set=model.widths=[4,8]", f"--set=starts_from={tmp_path / 'a b'}"),
        *("--tracking-wait-s=5.0", f"--checkpoints={tmp_path / 'c'}", "--profile", "--run", "mine", "--address", "auto"),
    ]
    with train.make_context("train", shlex.split(line)[4:]) as understood:
        assert understood.params["data"] == str(tmp_path / nasty)
        assert understood.params["workers"] == (2, 2)
        assert understood.params["settings"] == ("model.widths=[4,8]", f"starts_from={tmp_path / 'a b'}")


def test_every_option_of_train_is_one_of_submit_or_known_not_to_be() -> None:
    ours = {option.name for option in submit.params if isinstance(option, click.Option)}
    missing = {option.name for option in train.params if isinstance(option, click.Option)} - ours
    assert missing == {"local", "resume", "run", "show"}  # submit's own --run is `run_id`


def test_a_jobs_environment_names_what_it_runs_and_no_more(tmp_path: Path) -> None:
    request = JobRequest(run_id="mine", recipe="demo", entrypoint="true", commit="abc+changes", pack=tmp_path / "pack.zip")
    assert request.runtime_env == {
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120", "RAPT_COMMIT": "abc+changes"},
        "working_dir": str(tmp_path / "pack.zip"),
    }
    image = replace(request, commit="", pack=None, image="registry/rapt:1", cluster_home="/shared/rapt")
    assert image.runtime_env == {
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120", "RAPT_HOME": "/shared/rapt"},
        "image_uri": "registry/rapt:1",
    }
