"""A model that names an emotion is trained and measured like any other, and answers nobody until an operator says so."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.home import mlflow_uri
from cluster.job import TrainingJob
from cluster.launch import run_local
from data_shards.building.build import build_shards
from data_shards.datasets import DATASETS
from data_shards.datasets.daisee import LABEL_NAMES
from data_shards.errors import ModelError
from data_shards.reading.label_views import infers_emotion
from data_shards.storage.source import Source
from serving.predictor import Predictor
from serving.service import start_service
from tests.conftest import TINY_PREPROCESS
from training.config import RunConfig, with_settings
from training.promotion import Gate, promote
from training.registry import resolve


@pytest.mark.parametrize(
    ("label", "view", "emotion"),
    [
        ("engagement", "levels", False),
        ("engagement", "binary", False),
        ("engagement", "three_class", True),
        ("boredom", "levels", True),
        ("frustration", "binary", True),
        ("presence", "levels", False),
    ],
)
def test_which_models_name_an_emotion(label: str, view: str, emotion: bool) -> None:
    assert infers_emotion(label, view) is emotion


@pytest.fixture
def affect_shards(simulated_folder: Path, tmp_path: Path) -> Path:
    """The simulated clips with made-up levels of DAiSEE's other affects."""
    listing = DATASETS["simulated"](Source(simulated_folder))
    clips = tuple(
        replace(clip, labels={**clip.labels, "boredom": number % 4, "confusion": 0, "frustration": 0})
        for number, clip in enumerate(listing.clips)
    )
    build_shards(
        replace(listing, clips=clips, label_names=LABEL_NAMES), tmp_path / "s", preprocess=TINY_PREPROCESS, num_workers=2
    )
    return tmp_path / "s"


def test_it_gets_no_alias_and_answers_only_when_it_is_turned_on(
    tiny_run: RunConfig, affect_shards: Path, simulated_folder: Path, tmp_path: Path
) -> None:
    run = with_settings(tiny_run, ["data.label=boredom"])
    job = TrainingJob(run=run, data=str(affect_shards), run_id="b", run_folder=tmp_path / "b", mlflow_uri=mlflow_uri())
    result = run_local(job, lambda event: None)
    assert result is not None
    with pytest.raises(ModelError, match="the registry holds none"):
        resolve("models:/engagement@champion", mlflow_uri())
    refused = promote(mlflow_uri(), "b", alias="champion", gate=Gate())
    assert not refused.passed
    assert "names an emotion, which is off" in refused.failures
    registered = resolve(f"models:/engagement/{result.version}", mlflow_uri())
    with pytest.raises(ModelError, match=r"Art\. 5\(1\)\(f\)"):
        Predictor(registered)
    with pytest.raises(ModelError, match="--allow-emotion"):
        start_service(registered, host="127.0.0.1", port=1)
    allowed = promote(mlflow_uri(), "b", alias="champion", gate=Gate(), allow_emotion=True)
    assert (allowed.version, allowed.passed) == (result.version, True)
    predictor = Predictor(registered, allow_emotion=True)
    clip = next((simulated_folder / "clips").iterdir())
    assert "It names an emotion all the same" in predictor.score_file(clip).model.limits


def test_models_of_different_questions_are_not_compared(tiny_run: RunConfig, affect_shards: Path, tmp_path: Path) -> None:
    for run_id, view in (("four", "levels"), ("two", "binary")):
        run = with_settings(tiny_run, [f"data.view={view}"])
        job = TrainingJob(run=run, data=str(affect_shards), run_id=run_id, run_folder=tmp_path / run_id, mlflow_uri=mlflow_uri())
        assert run_local(job, lambda event: None) is not None
    refused = promote(mlflow_uri(), "two", alias="champion", gate=Gate())
    assert not refused.passed
    assert "answer different questions" in refused.failures
