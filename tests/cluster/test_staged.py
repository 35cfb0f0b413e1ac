"""CMOSE's two stages as one job: what is frozen stays, what has no speech scores the same, a stopped job goes on."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from cluster.command_line import rapt
from cluster.home import home, mlflow_uri, run_folder
from cluster.job import JobResult, TrainingJob
from cluster.launch import run_local
from cluster.staged import StagedJob, is_staged, load_staged_job, run_staged
from data_shards.errors import ConfigError, RaptError
from data_shards.manifest import Manifest
from data_shards.reading.loader import read_in_order
from data_shards.reading.reader import ShardSet
from tests.training.cmose_like import TINY_CMOSE, cmose_like_shards
from training.bundle import load_bundle, read_record
from training.config import stages_with_settings, with_settings
from training.events import Event, RunStarted, StepDone
from training.loop import train
from training.recipes import stages
from training.registry import resolve
from training.tracking import mlflow_client

Shards = tuple[Path, Manifest]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("cmose-like")
    return folder, cmose_like_shards(folder)


def staged_job(shards: Shards, run_id: str, *settings: str) -> StagedJob:
    runs = stages_with_settings(stages("cmose_short"), [*TINY_CMOSE, *settings])
    folder = run_folder(run_id)
    job = TrainingJob(run=runs[-1], data=str(shards[0]), run_id=run_id, run_folder=folder, mlflow_uri=mlflow_uri())
    return StagedJob(recipe="cmose_short", runs=runs, job=job)


def launched(job: TrainingJob, events: list[Event], stop: dict[str, int]) -> JobResult | None:
    return run_local(job, events.append, stop_after_step=stop.get(job.run.recipe))


def losses(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepDone)]


def all_logits(bundle: Path, shards: Shards) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits_NK, speaks_N) of the test split."""
    record, model = load_bundle(bundle)
    with ShardSet(shards[0], splits=("test",), target=record.run.target) as test, torch.inference_mode():
        read = partial(read_in_order, test, inputs=("openface", "i3d"), optional=("speech", "acoustics"))
        (batch,) = read(batch=len(test))
        return model(batch.inputs).logits_BK, batch.inputs.lengths["speech"] > 0


def test_two_stages_are_one_job(shards: Shards) -> None:
    events: list[Event] = []
    staged = staged_job(shards, "whole")
    result = run_staged(staged, partial(launched, events=events, stop={}))
    assert result is not None
    first, second = (staged.job.run_folder / name / "bundle" for name in ("1-cmose_short_visual", "2-cmose_short_audio"))
    assert result.bundle == second

    # what is frozen is the same bit for bit, batch statistics too, and the rest has trained
    before, after = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert any(name.startswith("visual.norm.norm.running") for name in before)
    fresh = set(after) - set(before)
    started = [event for event in events if isinstance(event, RunStarted)]
    assert fresh == set(started[1].fresh)
    assert all(name.startswith("audio.") for name in fresh)
    assert started[1].num_frozen == started[0].num_parameters
    assert int(after["audio.norm.norm.num_batches_tracked"]) > 0

    # trained on clips with speech alone, evaluated on all
    assert [event.num_dropped for event in started] == [0, 20]
    (visual_NK, speaks_N), (joint_NK, _) = all_logits(first, shards), all_logits(second, shards)
    assert torch.equal(visual_NK[~speaks_N], joint_NK[~speaks_N])
    assert not torch.isclose(visual_NK[speaks_N], joint_NK[speaks_N]).all(dim=1).any()
    record = read_record(second)
    assert record.test is not None
    assert record.test.num_samples == 16
    assert record.with_optional["test"] == {"speech": 8, "acoustics": 8}
    card = (second / "README.md").read_text()
    assert "16 clips of 16 people, 8 with speech, 8 with acoustics" in card
    assert "features computed beforehand: openface, i3d; where a clip has them: speech, acoustics" in card
    assert "| starts from | the weights of `whole/1-cmose_short_visual/bundle`; unchanged since: visual |" in card

    # one MLflow run with two below it; the last stage's bundle alone is registered
    client = mlflow_client(mlflow_uri())
    runs = client.search_runs([client.get_experiment_by_name("engagement").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_name for run in children} == {"whole-1-cmose_short_visual", "whole-2-cmose_short_audio"}
    assert (parent.info.run_name, parent.data.tags["recipe"]) == ("whole", "cmose_short")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.metrics["test_balanced_accuracy"] == record.test.metrics.balanced_accuracy
    assert result.version == "1"
    assert read_record(resolve("models:/engagement/1", mlflow_uri()).folder).run.recipe == "cmose_short_audio"
    assert len(client.search_model_versions("name='engagement'")) == 1


def test_a_job_stopped_in_its_second_stage_goes_on_there(shards: Shards) -> None:
    whole: list[Event] = []
    run_staged(staged_job(shards, "whole"), partial(launched, events=whole, stop={}))
    stopped: list[Event] = []
    staged = staged_job(shards, "stopped")
    stopping = partial(launched, events=stopped, stop={"cmose_short_audio": 2})
    assert run_staged(staged, stopping) is None
    client = mlflow_client(mlflow_uri())
    experiment = client.get_experiment_by_name("engagement").experiment_id
    (parent,) = client.search_runs([experiment], filter_string="attributes.run_name = 'stopped'")
    assert parent.info.status == "KILLED"

    assert is_staged(run_folder("stopped"))
    again = load_staged_job(run_folder("stopped"), data=None, mlflow_uri=mlflow_uri())
    assert again == staged
    rest: list[Event] = []
    assert run_staged(again, partial(launched, events=rest, stop={})) is not None
    assert [event.start_step for event in rest if isinstance(event, RunStarted)] == [2]  # of the second stage alone
    assert losses(stopped) + losses(rest) == losses(whole)
    names = [run.info.run_name for run in client.search_runs([experiment], filter_string="attributes.run_name LIKE 'stopped%'")]
    assert sorted(names) == ["stopped", "stopped-1-cmose_short_visual", "stopped-2-cmose_short_audio"]
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"
    weights = [
        (run_folder(run) / "2-cmose_short_audio" / "bundle" / "model.safetensors").read_bytes() for run in ("whole", "stopped")
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("model.speech=false", "freeze: visual are the whole model"),
        ("model.name=feature_tcn", "no sample has 'openface_15'"),
        ("model.head=linear", r"freeze: visual\.head\..* has its first, untrained weights"),
        ("freeze=audio", r"freeze: audio\..* has its first, untrained weights"),
        ("data.only_with=gaze", "no sample has 'gaze'"),
        ("data.label=boredom", "no label named 'boredom'"),
        ("loop.global_batch=9", "which 2 workers cannot share evenly"),
    ],
)
def test_what_the_last_stage_cannot_have_is_refused_before_the_first(shards: Shards, setting: str, sentence: str) -> None:
    staged = staged_job(shards, "refused")
    first, last = staged.runs
    staged = replace(staged, runs=(first, with_settings(last, [setting])), job=replace(staged.job, workers=2))
    with pytest.raises(RaptError, match=sentence):
        run_staged(staged, partial(launched, events=[], stop={}))
    assert not staged.job.run_folder.exists()
    assert not (home() / "mlflow").exists()


def test_a_stage_killed_after_its_bundle_is_still_told_to_mlflow(shards: Shards) -> None:
    staged = staged_job(shards, "killed", "loop.epochs=1")

    def killed(job: TrainingJob) -> JobResult | None:
        train(job.run, job.data, job.run_folder, run_id=job.run_id)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_staged(staged, killed)
    rest: list[Event] = []
    assert run_staged(staged, partial(launched, events=rest, stop={})) is not None
    assert [event.recipe for event in rest if isinstance(event, RunStarted)] == ["cmose_short_audio"]
    client = mlflow_client(mlflow_uri())
    experiment = client.get_experiment_by_name("engagement").experiment_id
    (first,) = client.search_runs([experiment], filter_string="attributes.run_name = 'killed-1-cmose_short_visual'")
    assert first.info.status == "FINISHED"
    assert "test_balanced_accuracy" in first.data.metrics
    assert "bundle" in {file.path for file in client.list_artifacts(first.info.run_id)}


def rapt_json(*arguments: str) -> Any:
    result = CliRunner().invoke(rapt, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_command_shows_trains_and_resumes_stages(shards: Shards) -> None:
    settings = [part for setting in (*TINY_CMOSE, "loop.epochs=1") for part in ("--set", setting)]
    shown = rapt_json("train", "cmose_short", "--show", *settings)
    assert [stage["recipe"] for stage in shown] == ["cmose_short_visual", "cmose_short_audio"]
    assert [stage["model"]["hidden"] for stage in shown] == [8, 8]
    trained = rapt_json("train", "cmose_short", "--data", str(shards[0]), "--local", "--json", *settings)
    assert trained["run_id"].startswith("cmose_short-")
    assert (trained["version"], trained["test"]["num_samples"]) == ("1", 16)
    again = rapt_json("train", "--resume", trained["run_id"], "--local", "--json")
    assert again == trained

    # the run is known by one name: to the bundle, to the registry, and to who would resume a stage of it
    assert read_record(Path(trained["bundle"])).run_id == trained["run_id"]
    registered = mlflow_client(mlflow_uri()).search_model_versions(f"name='engagement' and tags.run='{trained['run_id']}'")
    assert len(registered) == 1
    stage = Path(trained["bundle"]).parents[1] / "1-cmose_short_visual"
    refused = CliRunner().invoke(rapt, ["train", "--resume", str(stage), "--local"])
    assert isinstance(refused.exception, ConfigError)
    assert f"is stage 1-cmose_short_visual of run {trained['run_id']}; resume that" in str(refused.exception)


def test_a_model_that_hears_is_evaluated_on_clips_without_sound(shards: Shards, tmp_path: Path) -> None:
    audio = with_settings(stages("cmose_short")[1], [*TINY_CMOSE, "loop.epochs=1", "freeze=[]"])
    bundle = train(audio, shards[0], tmp_path / "run", run_id="run")
    cmose_like_shards(tmp_path / "mute", lacking=("speech", "acoustics"))
    evaluation = rapt_json("evaluate", str(bundle), "--data", str(tmp_path / "mute"), "--json")
    assert evaluation["num_samples"] == 16


def test_what_a_job_starts_from_is_for_its_first_stage_and_absolute() -> None:
    shown = rapt_json("train", "cmose_short", "--show", "--set", "starts_from=earlier/bundle")
    assert [stage["starts_from"] for stage in shown] == [str(Path("earlier/bundle").absolute()), ""]


def test_settings_are_for_the_stages_that_have_them() -> None:
    both = stages_with_settings(stages("cmose_short"), ["seed=3", "model.hidden=16", "loss.name=weighted_cross_entropy"])
    assert [(run.seed, run.model.model_dump()["hidden"]) for run in both] == [(3, 16), (3, 16)]
    assert [run.loss.name for run in both] == ["weighted_cross_entropy"] * 2
    mixed = stages_with_settings((stages("demo")[0], both[0]), ["model.chunks=4", "loop.epochs=1"])
    assert [run.loop.epochs for run in mixed] == [1, 1]
    assert mixed[1].model.model_dump()["chunks"] == 4
    with pytest.raises(ConfigError, match=r"no setting 'model\.widths'"):
        stages_with_settings(stages("cmose_short"), ["model.widths=[4]"])
