"""`rapt reproduce` as a person calls it."""

import json
from pathlib import Path

import pytest

from tests.cluster.test_command_line import rapt_run
from tests.training.cmose_like import cmose_like_shards
from training.tracking import mlflow_client


def test_engagewild_from_arrays_to_a_table(real_data: Path, tmp_path: Path) -> None:
    shards = tmp_path / "ew-shards"
    assert rapt_run("shards", "build", "engagewild", real_data / "engagewild", shards).returncode == 0
    told = ("reproduce", "engagewild", "--data", shards, "--seeds", "2", "--rows", "mean,ridge_stat")
    made = rapt_run(*told, "--json", "--workers", "1", RAPT_HOME=str(tmp_path / "home"))
    assert made.returncode == 0, made.stderr
    content = json.loads(made.stdout)
    assert [row["name"] for row in content["rows"]] == ["mean", "ridge_stat"]
    for row in content["rows"]:
        assert {"name", "published", "metrics", "commit", "data_digest"} <= set(row)
        assert {"mean", "low", "high", "seeds"} <= set(row["metrics"]["mse"])
        assert len(row["metrics"]["mse"]["seeds"]) == 2
    assert round(content["rows"][0]["metrics"]["mse"]["mean"], 4) == 0.0952
    assert content["rows"][1]["published"] == {"mse": 0.0563}
    assert [row["published_source"].split()[0] for row in content["rows"]] == ["measured", "Savchenko"]
    client = mlflow_client(f"sqlite:///{tmp_path / 'home' / 'mlflow' / 'mlflow.db'}")
    [experiment] = [found for found in client.search_experiments() if found.name == "engagement"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"reproduce-engagewild", "mean", "ridge_stat"}
    assert runs["mean"].data.tags["mlflow.parentRunId"] == runs["reproduce-engagewild"].info.run_id
    assert round(runs["mean"].data.metrics["mse_mean"], 4) == 0.0952
    table = rapt_run(*told[:-1], "mean", "--workers", "1", "--no-tracking")
    assert "training mean" in table.stdout
    assert "0.0952" in table.stdout
    assert "the aim of below 0.080 is missed" in table.stdout


def test_the_losses_of_cmose_from_shards_to_a_table(tmp_path: Path) -> None:
    cmose_like_shards(tmp_path / "shards")
    told = ("reproduce", "cmose_losses", "--data", tmp_path / "shards", "--seeds", "1", "--rows", "majority,mocorank")
    made = rapt_run(*told, "--json", "--workers", "1", RAPT_HOME=str(tmp_path / "home"))
    assert made.returncode == 0, made.stderr
    content = json.loads(made.stdout)
    assert content["rows"][0]["metrics"]["balanced_accuracy"]["mean"] == 0.25
    assert content["rows"][1]["published"] == pytest.approx({"accuracy": 0.7748, "balanced_accuracy": 0.6094})
    client = mlflow_client(f"sqlite:///{tmp_path / 'home' / 'mlflow' / 'mlflow.db'}")
    [experiment] = [found for found in client.search_experiments() if found.name == "engagement"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"reproduce-cmose_losses", "majority", "mocorank"}
    assert runs["majority"].data.metrics["balanced_accuracy_mean"] == 0.25


def test_more_seeds_than_an_interval_is_known_for_are_refused(tmp_path: Path) -> None:
    done = rapt_run("reproduce", "engagewild", "--data", tmp_path, "--seeds", "21")
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "Error: --seeds is 21, and intervals are known for up to 20 seeds; ask for fewer",
    )


def test_an_unknown_table_names_the_known_ones(tmp_path: Path) -> None:
    done = rapt_run("reproduce", "imagenet", "--data", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == "Error: no table named 'imagenet'; there are: engagewild, cmose_losses, cmose_parts"


def test_a_tracking_store_that_is_down_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    # there are no shards there: to open them would be the other sentence
    done = rapt_run("reproduce", "engagewild", "--data", tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
