"""`rapt runs` and `rapt lineage` on two real tiny runs in the embedded database."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cluster.command_line import rapt
from cluster.commands.train import record_of_result
from cluster.job import JobResult, TrainingJob
from cluster.launch import run_local
from data_shards.errors import ModelError
from data_shards.manifest import Manifest
from training.bundle import read_record
from training.config import RunConfig, with_settings
from training.tracking import TrackingSettings
from training.tracking.system_metrics import node_name


@pytest.fixture(scope="module")
def two_runs(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, JobResult]]:
    """A state folder with the runs `slow` and `fast`, the first of which watched its node; and their results."""
    home = tmp_path_factory.mktemp("home")
    results = {}
    for name, settings, interval_s in (("slow", [], 0.2), ("fast", ["optimiser.lr=0.02", "loop.epochs=2"], 0.0)):
        job = TrainingJob(
            run=with_settings(tiny_run, settings),
            data=str(simulated_shards[0]),
            run_id=name,
            run_folder=home / "runs" / name,
            mlflow_uri=f"sqlite:///{home}/mlflow/mlflow.db",
            tags={"ray_job": "raysubmit_1"} if name == "fast" else {},
            tracking=TrackingSettings(system_interval_s=interval_s, close_wait_s=120),
        )
        result = run_local(job, lambda event: None)
        assert result is not None
        results[name] = result
    return home, results


@pytest.fixture(autouse=True)
def at_home(two_runs: tuple[Path, dict[str, JobResult]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPT_HOME", str(two_runs[0]))
    monkeypatch.setenv("COLUMNS", "200")


def said(*arguments: str) -> str:
    result = CliRunner().invoke(rapt, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def rapt_json(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


def test_the_list_has_the_newest_first_with_figures_and_intervals(two_runs: tuple[Path, dict[str, JobResult]]) -> None:
    fast, slow = rapt_json("runs")
    assert [run["name"] for run in (fast, slow)] == ["fast", "slow"]
    record = read_record(two_runs[1]["fast"].bundle)
    for split in ("validation", "test"):
        evaluation = getattr(record, split)
        interval = evaluation.balanced_accuracy_interval
        assert fast[split] == {
            "value": evaluation.metrics.balanced_accuracy,
            "low": interval.low,
            "high": interval.high,
        }
    assert (fast["state"], fast["step"], fast["total_steps"], fast["epochs"]) == ("finished", 10, 10, 2)
    assert (slow["step"], slow["total_steps"], slow["epoch"]) == (5, 5, 1.0)
    assert fast["samples_per_s"] > 0
    assert fast["duration_s"] > 0
    assert [run["name"] for run in json.loads(said("runs", "--limit", "1", "--json"))] == ["fast"]
    assert json.loads(said("runs", "--recipe", "cmose", "--json")) == []


def test_what_is_shown_of_a_run_and_of_two(two_runs: tuple[Path, dict[str, JobResult]]) -> None:
    shown = rapt_json("runs", "show", "slow")
    assert shown["params"]["optimiser.lr"] == str(read_record(two_runs[1]["slow"].bundle).run.optimiser.lr)
    assert shown["tags"]["recipe"] == "demo"
    with pytest.raises(ModelError, match="run nobody: MLflow has none of that name"):
        said("runs", "show", "nobody")
    compared = rapt_json("runs", "compare", "slow", "fast")
    assert compared["runs"] == ["slow", "fast"]
    assert compared["params"] == {"loop.epochs": ["1", "2"], "optimiser.lr": [shown["params"]["optimiser.lr"], "0.02"]}
    for figure in compared["figures"]:
        values = figure["values"]
        if figure["name"] in ("test_mse", "train_loss") and values[0] != values[1]:
            assert figure["best"] == values.index(min(values))
        if figure["name"] == "test_accuracy" and values[0] != values[1]:
            assert figure["best"] == values.index(max(values))
        if figure["name"] in ("lr", "test_majority_accuracy"):
            assert figure["best"] is None
    assert "test_mse" in {figure["name"] for figure in compared["figures"]}
    assert "optimiser.lr" in said("runs", "compare", "slow", "fast")


def test_a_node_is_watched_where_it_is_asked_for() -> None:
    prefix = f"system/{node_name()}/"
    watched = {name for name in rapt_json("runs", "show", "slow")["metrics"] if name.startswith("system/")}
    expected = {"cpu_utilization_percentage", "system_memory_usage_megabytes", "disk_usage_percentage"}
    assert {prefix + name for name in expected | {"network_receive_megabytes"}} <= watched
    assert not [name for name in rapt_json("runs", "show", "fast")["metrics"] if name.startswith("system/")]


def test_the_chain_from_data_to_alias_is_what_was_run(
    two_runs: tuple[Path, dict[str, JobResult]], simulated_shards: tuple[Path, Manifest]
) -> None:
    folder, manifest = simulated_shards
    record = read_record(two_runs[1]["fast"].bundle)
    by_name = rapt_json("lineage", "fast")
    assert by_name["data"] == {
        "dataset": "simulated",
        "uri": str(folder),
        "digest": manifest.digest,
        "num_clips": 64,
        "simulated": True,
        "audit": "none known",
    }
    assert by_name["run"] == {
        "name": "fast",
        "recipe": "demo",
        "commit": record.commit,
        "mlflow_run_id": two_runs[1]["fast"].mlflow_run_id,
        "ray_job": "raysubmit_1",
        "parent": "",
        "starts_from": "",
    }
    assert by_name["checkpoint"] == {"best_epoch": record.best_epoch, "step": 5 * record.best_epoch}
    assert by_name["version"] == {"name": "engagement", "version": "2", "aliases": ["challenger"]}
    for model in ("models:/engagement@challenger", "models:/engagement/2", str(two_runs[1]["fast"].bundle)):
        assert rapt_json("lineage", model) == by_name
    assert rapt_json("lineage", "slow")["version"]["aliases"] == ["champion"]
    lines = said("lineage", "fast").splitlines()
    assert [line.split()[1] if line.lstrip().startswith("+-") else line.split()[0] for line in lines] == [
        "data",
        "|",
        "run",
        "checkpoint",
        "version",
        "aliases",
    ]


def test_promote_asks_for_an_audit_which_the_audit_command_leaves(simulated_shards: tuple[Path, Manifest]) -> None:
    worst = ["--metric", "mse", "--margin", "-100"]  # whichever of the two is better
    refused = CliRunner().invoke(rapt, ["promote", "slow", *worst])
    assert refused.exit_code != 0
    assert "failed  audit: none is known of data" in refused.stdout
    assert "the alias was not moved" in str(refused.exception)
    assert json.loads(said("shards", "audit", str(simulated_shards[0]), "--json"))["digest"] == simulated_shards[1].digest
    output = said("promote", "slow", *worst)
    assert "passed  audit: data" in output
    assert output.endswith("models:/engagement@champion is version 1\n")
    assert rapt_json("lineage", "slow")["data"]["audit"] == "no leak in 64 clips"


def test_a_bundle_that_lies_on_another_node_is_read_from_the_registry(two_runs: tuple[Path, dict[str, JobResult]]) -> None:
    result = two_runs[1]["slow"]
    assert record_of_result(Path("/on/another/node/bundle"), result.version) == read_record(result.bundle)
    with pytest.raises(ModelError, match="no bundle there"):
        record_of_result(Path("/on/another/node/bundle"), "")
