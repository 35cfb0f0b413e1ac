"""MLflow, really: the embedded sqlite database, its runs, artifacts and registry."""

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from mlflow.models import Model

from cluster.home import mlflow_uri, run_folder
from cluster.job import JobResult, TrainingJob
from cluster.launch import run_local
from data_shards.errors import ConfigError, ModelError, Stopped
from data_shards.manifest import Manifest
from tests.conftest import ROOT
from training.bundle import BundleRecord, read_record
from training.config import RunConfig
from training.events import Profiled
from training.promotion import Gate, promote
from training.registry import resolve
from training.reproduction.table import Figure, Row, Table
from training.tracking import MlflowTracker, TrackingSettings, mlflow_client, shown_uri, track_table
from training.tracking.client import experiment_id, new_client
from training.tracking.entries import RunOpened, ending_by
from training.tracking.spool import Spool


def run_job(
    run: RunConfig, shards: tuple[Path, Manifest], run_id: str, *, stop_after_step: int | None = None
) -> JobResult | None:
    job = TrainingJob(
        run=run,
        data=str(shards[0]),
        run_id=run_id,
        run_folder=run_folder(run_id),
        mlflow_uri=mlflow_uri(),
        tracking=TrackingSettings(stopped_wait_s=60),
    )
    return run_local(job, lambda event: None, stop_after_step=stop_after_step)


def test_a_run_is_found_whole_in_mlflow(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    result = run_job(tiny_run, simulated_shards, "first")
    assert result is not None
    client = mlflow_client(mlflow_uri())
    run = client.get_run(result.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["loop.epochs"] == "1"
    assert run.data.params["model.name"] == "resnet_tcn"
    assert run.data.tags["data_digest"] == simulated_shards[1].digest
    assert run.data.tags["simulated"].startswith("simulated")
    assert {"loss", "samples_per_s", "train_loss", "validation_balanced_accuracy", "test_balanced_accuracy"} <= set(
        run.data.metrics
    )
    assert len(client.get_metric_history(result.mlflow_run_id, "loss")) == 5
    files = {file.path for file in client.list_artifacts(result.mlflow_run_id)}
    assert files == {"bundle", "confusion_matrix_test.png", "curves.png"}
    for picture in ("confusion_matrix_test.png", "curves.png"):
        assert (Path(run.info.artifact_uri) / picture).read_bytes().startswith(b"\x89PNG")
    ours = {"bundle/README.md", "bundle/model.safetensors", "bundle/run.json"}
    assert {file.path for file in client.list_artifacts(result.mlflow_run_id, "bundle")} == ours | {
        "bundle/MLmodel",
        "bundle/requirements.txt",
    }
    assert {path.name for path in result.bundle.iterdir()} == {Path(name).name for name in ours}  # no part of it
    _check_model_page(Path(run.info.artifact_uri) / "bundle", read_record(result.bundle))
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == simulated_shards[1].digest[:36]
    assert json.loads(data.dataset.source) == {"uri": str(simulated_shards[0])}
    assert json.loads(data.dataset.profile)["num_clips"] == 64
    assert list(here.iterdir()) == []  # mlflow makes its own database in this folder wherever it is not told of ours


def _check_model_page(folder: Path, record: BundleRecord) -> None:
    """MLflow itself reads the model's signature, and the versions are those of this interpreter."""
    signature = Model.load(str(folder)).signature
    (frames,) = signature.inputs.inputs
    assert (frames.name, frames.type, frames.shape) == ("frames", np.dtype("uint8"), (-1, 6, 3, 32, 32))
    assert [(output.name, output.shape) for output in signature.outputs.inputs] == [("probabilities", (-1, 4)), ("score", (-1,))]
    assert record.level_names == tuple(Model.load(str(folder)).metadata["levels"])
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert f"torch=={metadata.version('torch')}" in requirements
    assert f"numpy=={metadata.version('numpy')}" in requirements
    assert not [line for line in requirements if line.startswith("pytest")]


def test_a_stopped_and_resumed_job_is_one_mlflow_run(tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest]) -> None:
    assert run_job(tiny_run, simulated_shards, "stopped", stop_after_step=2) is None
    client = mlflow_client(mlflow_uri())
    experiment = client.get_experiment_by_name("engagement").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["KILLED"]
    result = run_job(tiny_run, simulated_shards, "stopped")
    assert result is not None
    assert [run.info.status for run in client.search_runs([experiment])] == ["FINISHED"]
    steps = [metric.step for metric in client.get_metric_history(result.mlflow_run_id, "loss")]
    assert steps == [1, 2, 3, 4, 5]


def test_a_run_that_was_killed_while_it_was_opened_has_its_params_and_its_newest_job(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest]
) -> None:
    folder = run_folder("cut")
    spool = Spool(folder / "tracking")
    spool.append(RunOpened(name="cut", at_ms=1))  # the kill came here
    spool.close()
    for job in ("job-1", "job-2"):
        tracker = MlflowTracker(
            mlflow_uri(),
            tiny_run,
            name="cut",
            tags={"ray_job": job},
            run_folder=folder,
            manifest=simulated_shards[1],
            data=str(simulated_shards[0]),
            settings=TrackingSettings(stopped_wait_s=60),
        )
        tracker(Profiled(sentence=f"{job} is data-bound", bound="data", shares={"data": 1.0}, folder="profile"))
        tracker.close(ending_by(Stopped("stopped")))
    run = mlflow_client(mlflow_uri()).get_run(tracker.mlflow_run_id)
    assert (run.info.status, run.data.tags["ray_job"], run.data.tags["profile"]) == ("KILLED", "job-2", "job-2 is data-bound")
    assert run.data.params["model.name"] == "resnet_tcn"
    assert len(run.inputs.dataset_inputs) == 1


def test_only_an_error_is_a_failure() -> None:
    assert {ending_by(error) for error in (None, Stopped("a person"), KeyboardInterrupt())} == {"KILLED"}
    assert {ending_by(error) for error in (ModelError("diverged"), RuntimeError("no memory"))} == {"FAILED"}


def test_resuming_with_other_data_leaves_the_run_as_it_was(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path: Path
) -> None:
    assert run_job(tiny_run, simulated_shards, "mine", stop_after_step=2) is None
    before = (run_folder("mine") / "run.json").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(simulated_shards[0], other)
    text = (other / "manifest.json").read_text()
    (other / "manifest.json").write_text(text.replace('"dataset":"simulated"', '"dataset":"folder"'))
    with pytest.raises(ConfigError, match="was started on data"):
        run_job(tiny_run, (other, simulated_shards[1]), "mine")
    assert (run_folder("mine") / "run.json").read_bytes() == before


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///{tmp}/corrupt.db", "sqlite:///{tmp}"])
def test_a_tracking_store_that_does_not_answer_is_one_sentence(tmp_path: Path, uri: str) -> None:
    (tmp_path / "corrupt.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ModelError, match=r"does not answer .* check MLFLOW_TRACKING_URI") as caught:
        mlflow_client(uri.format(tmp=tmp_path))
    assert "\n" not in str(caught.value)


WRONG = ["bogus://x", "http://", "http://host:port", "postgresql://", "mlruns", "sqlite:///{tmp}/corrupt.db", "sqlite:///{tmp}"]


@pytest.mark.parametrize("uri", WRONG)
def test_an_address_where_nothing_can_ever_answer_is_refused_before_a_run_starts(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path: Path, uri: str
) -> None:
    (tmp_path / "corrupt.db").write_bytes(b"not a database" * 100)
    folder = run_folder("refused")
    job = TrainingJob(
        run=tiny_run, data=str(simulated_shards[0]), run_id="r", run_folder=folder, mlflow_uri=uri.format(tmp=tmp_path)
    )
    with pytest.raises(ConfigError, match=r"^MLFLOW_TRACKING_URI"):
        run_local(job, lambda event: None)
    assert not folder.exists()


def test_an_addresss_password_is_neither_printed_nor_stored() -> None:
    assert shown_uri("http://ann:secret@host:5000/path") == "http://host:5000/path"
    assert shown_uri("sqlite:////home/a@b/mlflow.db") == "sqlite:////home/a@b/mlflow.db"
    with pytest.raises(ModelError) as caught:
        mlflow_client("http://ann:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)


def test_what_is_not_registered_is_one_sentence(tiny_bundle: Path) -> None:
    for model in ("models:/engagement@champion", "models:/nothing@champion", "models:/engagement/3", "models:/engagement/x"):
        with pytest.raises(ModelError, match="the registry holds none"):
            resolve(model, mlflow_uri())
    with pytest.raises(ModelError, match="no registered version"):
        promote(mlflow_uri(), "nobody", alias="champion", gate=Gate())
    assert resolve(str(tiny_bundle), mlflow_uri()).version == ""


def test_a_registered_bundle_is_what_was_trained(tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest]) -> None:
    result = run_job(tiny_run, simulated_shards, "run")
    assert result is not None
    fetched = resolve("models:/engagement/1", mlflow_uri())
    for path in result.bundle.iterdir():
        assert (fetched.folder / path.name).read_bytes() == path.read_bytes()
    assert replace(fetched, folder=result.bundle).version == "1"


def test_a_table_that_mlflow_does_not_take_leaves_no_run_open() -> None:
    figure = Figure(mean=0.1, low=None, high=None, seeds=(0.1,), clips_low=0.0, clips_high=0.2)
    rows = [
        Row(
            name=name,
            what="",
            published={},
            published_method="",
            metrics={metric: figure},
            chosen=("",),
            commit="c",
            data_digest="d",
        )
        for name, metric in (("good", "mse"), ("bad", "no such name?"))
    ]
    table = Table(table="t", title="T", columns=(), rows=tuple(rows), aim=0.0, headline="good", best_by_cv="good", sentences=())
    with pytest.raises(Exception, match="no such name"):
        track_table(mlflow_uri(), table)
    client = mlflow_client(mlflow_uri())
    runs = client.search_runs([client.get_experiment_by_name("engagement").experiment_id])
    ended = {run.info.run_name: run.info.status for run in runs}
    assert ended == {"reproduce-t": "FAILED", "good": "FINISHED", "bad": "FAILED"}


def test_the_embedded_database_is_made_whole_by_one_of_many_and_though_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "mlflow" / "mlflow.db"
    code = "import sys; from training.tracking.client import mlflow_client; mlflow_client(f'sqlite:///{sys.argv[1]}')"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=ROOT) as killed:
        while not [name for name in tmp_path.glob("mlflow/**/mlflow.db") if name.stat().st_size]:
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
    together = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in together]
    assert [process.returncode for process in together] == [0, 0], said


def test_senders_that_meet_a_new_database_together_make_one_experiment(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    clients = [new_client(uri) for _ in range(6)]
    with ThreadPoolExecutor(len(clients)) as pool:
        assert len(set(pool.map(lambda client: experiment_id(client, uri), clients))) == 1
