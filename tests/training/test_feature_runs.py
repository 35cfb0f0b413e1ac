"""Runs on feature arrays instead of video: the same loop, from shards without a frame."""

from pathlib import Path

import pytest
import torch

from cluster.home import mlflow_uri
from cluster.job import TrainingJob
from cluster.launch import run_local
from data_shards.building.verify import verify_shards
from data_shards.errors import ConfigError, ModelError
from data_shards.manifest import Manifest
from data_shards.reading.loader import ClipInputs
from serving.predictor import Predictor
from tests.training.test_loop import ddp_events, losses, run_events
from training.config import RunConfig, with_settings
from training.events import EpochDone, RunFinished, RunStarted
from training.models import MODELS
from training.recipes import recipe
from training.registry import RegisteredModel, resolve

Shards = tuple[Path, Manifest]


@pytest.fixture(scope="module")
def run() -> RunConfig:
    settings = ["model.name=feature_tcn", "loss.name=cross_entropy", "data.validation_split=validation", "data.test_split=test"]
    return with_settings(recipe("engagewild"), [*settings, "loop.epochs=15", "loop.global_batch=8"])


def test_the_set_says_what_it_holds(feature_shards: Shards) -> None:
    folder, manifest = feature_shards
    assert manifest.preprocess is None
    assert manifest.features == {"openface_15": (15, 60)}
    assert verify_shards(folder)[1] == []


def test_a_run_learns_and_leaves_out_what_has_no_level(run: RunConfig, feature_shards: Shards, tmp_path: Path) -> None:
    events = run_events(run, feature_shards, tmp_path)
    started = next(e for e in events if isinstance(e, RunStarted))
    finished = next(e for e in events if isinstance(e, RunFinished))
    assert started.num_dropped == len([n for n in range(96) if n % 13 == 5])
    assert finished.test is not None
    assert finished.test.metrics.balanced_accuracy > 0.6  # chance is 0.25
    with pytest.raises(ModelError, match="cannot score a video"):
        Predictor(RegisteredModel(name="features", version="", folder=Path(finished.bundle)))


def test_a_model_that_reads_no_video_is_registered_but_never_the_champion(
    run: RunConfig, feature_shards: Shards, tmp_path: Path
) -> None:
    short = with_settings(run, ["loop.epochs=1"])
    job = TrainingJob(run=short, data=str(feature_shards[0]), run_id="f", run_folder=tmp_path / "f", mlflow_uri=mlflow_uri())
    result = run_local(job, lambda event: None)
    assert result is not None
    assert resolve(f"models:/engagement/{result.version}", mlflow_uri()).folder.is_dir()
    with pytest.raises(ModelError, match="the registry holds none"):
        resolve("models:/engagement@champion", mlflow_uri())


def test_the_card_of_a_run_without_a_selection_split_says_so(feature_shards: Shards, tmp_path: Path) -> None:
    events = run_events(with_settings(recipe("engagewild"), ["loop.epochs=1"]), feature_shards, tmp_path)
    finished = next(e for e in events if isinstance(e, RunFinished))
    card = (Path(finished.bundle) / "README.md").read_text()
    said = "No split chose anything: the last epoch is kept, the temperature is 1; the split `validation` was read once."
    assert said in card
    assert "chose the epoch" not in card


def test_two_workers_have_the_losses_of_one(run: RunConfig, feature_shards: Shards, tmp_path: Path) -> None:
    short = with_settings(run, ["loop.epochs=2", "loop.precision=fp64"])
    alone = run_events(short, feature_shards, tmp_path / "alone")
    together = ddp_events(short, feature_shards, tmp_path / "together", 2)
    assert losses(together) == pytest.approx(losses(alone), rel=1e-7)
    confusions = [
        [e.validation.confusion for e in part if isinstance(e, EpochDone) and e.validation] for part in (alone, together)
    ]
    assert confusions[0] == confusions[1]


def test_gradients_are_those_of_finite_differences(run: RunConfig) -> None:
    # torch 2.13's batch norm of (N, C, L, 1) takes wrong gradients on a CPU; this model must not meet that
    settings = with_settings(run, ["model.dropout=0", "model.hidden=4", "model.levels=1"]).model
    model = MODELS["feature_tcn"](settings, 4).double()
    features = torch.randn(4, 15, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 100

    def total(weight: torch.Tensor) -> torch.Tensor:
        inputs = ClipInputs(torch.empty(4, 0, 3, 0, 0, dtype=torch.uint8), torch.arange(4), {"openface_15": features})
        logits: torch.Tensor = torch.func.functional_call(model, {"norm.norm.weight": weight}, (inputs,)).logits_BK
        return (logits * torch.arange(4)).square().sum()

    weight = torch.rand(60, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(total, (weight,))


def test_a_feature_of_another_width_or_name_is_refused(run: RunConfig, feature_shards: Shards, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'openface_15' is 15x60 a clip in the data, and model.width is 128"):
        run_events(with_settings(run, ["model.width=128"]), feature_shards, tmp_path / "width")
    with pytest.raises(ConfigError, match=r"no sample has 'vggface2_15' \(they have: openface_15\)"):
        run_events(with_settings(run, ["model.feature=vggface2_15"]), feature_shards, tmp_path / "name")
    with pytest.raises(ConfigError, match=r"no sample has 'frames'"):
        run_events(with_settings(recipe("demo"), ["loop.epochs=1"]), feature_shards, tmp_path / "frames")
