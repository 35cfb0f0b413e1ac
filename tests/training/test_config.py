"""Recipes and settings: whole, frozen, and refused in one sentence where they cannot apply."""

import pytest
from pydantic import ValidationError

from data_shards.errors import ConfigError
from training.config import LoopConfig, RunConfig, with_settings
from training.engine import lr_at
from training.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_named_whole_and_survives_json(name: str) -> None:
    run = recipe(name)
    assert run.recipe == name
    assert RunConfig.model_validate_json(run.model_dump_json()) == run
    assert RECIPES[name].__doc__


def test_resnet_tcn_is_as_published() -> None:
    run = recipe("resnet_tcn")
    model = run.model.model_dump()
    assert (model["levels"], model["hidden"], model["kernel"], model["dropout"]) == (8, 128, 7, 0.25)
    assert (run.optimiser.name, run.optimiser.lr, run.loop.global_batch) == ("sgd", 0.001, 5)
    weighted = recipe("resnet_tcn_weighted")
    assert (weighted.loss.name, weighted.data.sampler) == ("weighted_cross_entropy", "class_complete")
    assert weighted.model == run.model


def test_settings_reach_every_depth() -> None:
    run = with_settings(
        recipe("demo"),
        ["loop.epochs=1", "seed=7", "model.widths=[4,8]", "data.train_splits=train,validation", "data.validation_split=none"],
    )
    assert (run.loop.epochs, run.seed, run.data.train_splits, run.data.validation_split) == (1, 7, ("train", "validation"), None)
    assert run.model.model_dump()["widths"] == [4, 8] or run.model.model_dump()["widths"] == (4, 8)


def test_another_model_brings_its_own_settings() -> None:
    run = with_settings(recipe("demo"), ["model.name=resnet_mean", "model.widths=[4,8]"])
    assert run.model.model_dump() == {"name": "resnet_mean", "widths": (4, 8), "blocks": 2, "weights": "none"}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("loop.epoch=1", r"no setting 'loop.epoch'; there are here: .*epochs"),
        ("nothing.at.all=1", "no setting 'nothing.at.all'"),
        ("loop=1", "'loop' is a group"),
        ("loop.epochs", "not of the form"),
        ("loop.epochs=0", "loop.epochs: Input should be greater than or equal to 1"),
        ("loop.epochs=many", "loop.epochs: Input should be a valid integer"),
        ("model.name=vgg", "no model named 'vgg'; there are: resnet_tcn, resnet_mean"),
        ("loss.name=hinge", "no loss named 'hinge'"),
        ("data.sampler=random", "data.sampler: Input should be"),
        ("optimiser.momentum=0.5", "AdamW has none"),
        ("data.train_splits=train,test", "must not share a split"),
        ("data.test_split=validation", "must not share a split"),
        ("data.test_split=tset", "no split 'tset'"),
        ("model.widths=[]", "model.widths"),
        ("model.widths=[0,4]", r"model.widths.0: Input should be greater"),
        ("optimiser.lr=Infinity", "optimiser.lr: Input should be a finite number"),
        ("seed=-1", "seed: Input should be greater"),
        ("recipe=other", "name another recipe"),
        ("loop.epochs=" + "9" * 5000, "loop.epochs"),
    ],
)
def test_what_cannot_be_set_is_one_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        with_settings(recipe("demo"), [setting])


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no recipe named 'best'; there are: resnet_tcn"):
        recipe("best")


def test_a_run_is_frozen() -> None:
    with pytest.raises(ValidationError):
        recipe("demo").seed = 3  # type: ignore[misc]


def test_a_batch_that_workers_cannot_share_is_refused() -> None:
    loop = LoopConfig(epochs=1, global_batch=5)
    assert loop.microbatch_for(1) == 5
    with pytest.raises(ConfigError, match="2 workers cannot share evenly"):
        loop.microbatch_for(2)
    with pytest.raises(ConfigError, match="does not divide"):
        LoopConfig(epochs=1, global_batch=8, microbatch=3).microbatch_for(2)


def test_the_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    optimiser = recipe("demo").optimiser.model_copy(update={"lr": 1.0, "lr_final": 0.1, "warmup_steps": 4})
    rates = [lr_at(optimiser, step, 24) for step in range(25)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[14] == pytest.approx(0.55)
    assert rates[24] == pytest.approx(0.1)
    assert lr_at(optimiser.model_copy(update={"schedule": "constant"}), 20, 24) == 1.0
