"""Runs that start from an earlier one's weights, and parts that do not train."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data_shards.errors import ConfigError, ModelError
from data_shards.manifest import Manifest
from tests.training.cmose_like import TINY_CMOSE, cmose_like_shards
from tests.training.test_loop import ddp_events, losses, run_events
from tests.training.test_models import inputs, small
from training.ablations import ABLATIONS, ablation_stages
from training.config import RunConfig, with_settings
from training.events import Event, RunStarted
from training.loop import train
from training.models import MODELS
from training.models.resnet import ResNet
from training.models.resnet_tcn import ResNetTcnSettings
from training.recipes import recipe
from training.starting import prepare

Shards = tuple[Path, Manifest]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("cmose-like")
    return folder, cmose_like_shards(folder)


@pytest.fixture(scope="module")
def visual() -> RunConfig:
    return with_settings(recipe("cmose_short_visual"), [*TINY_CMOSE, "loop.epochs=1"])


@pytest.fixture(scope="module")
def visual_bundle(visual: RunConfig, shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = train(visual, shards[0], tmp_path_factory.mktemp("visual"), run_id="visual")
    assert bundle is not None
    return bundle


def audio_from(bundle: Path, *settings: str) -> RunConfig:
    return with_settings(recipe("cmose_short_audio"), [*TINY_CMOSE, f"starts_from={bundle}", *settings])


def test_frozen_parts_stay_in_evaluation_and_have_no_gradient() -> None:
    model = small("mocorank speech")
    model.freeze(("visual",))
    model.train()
    assert not any(module.training for module in model.visual.modules())
    assert model.audio.training
    model(inputs(4)).logits_BK.sum().backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"audio"}
    model.freeze(())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_cannot_be_frozen_is_one_sentence() -> None:
    model = small("mocorank speech")
    with pytest.raises(ConfigError, match="no part 'visua'; it has: visual, audio"):
        model.freeze(("visua",))
    with pytest.raises(ConfigError, match="are the whole model"):
        model.freeze(("visual", "audio"))


def test_weights_that_nothing_trained_are_not_frozen(shards: Shards, visual_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"freeze: visual\..* has its first, untrained weights; set starts_from"):
        train(audio_from(Path("x"), "starts_from="), shards[0], tmp_path / "a", run_id="a")
    with pytest.raises(ConfigError, match=r"freeze: audio\..* has its first, untrained weights"):
        train(audio_from(visual_bundle, "freeze=audio"), shards[0], tmp_path / "b", run_id="b")


def test_published_weights_are_those_of_the_frame_encoder_alone(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"widths": (4, 8), "blocks": 1, "levels": 1, "hidden": 4}
    torch.save(ResNet((4, 8), 1).state_dict(), tmp_path / "weights.pth")
    for weights, part, refused in (
        (tmp_path / "weights.pth", "resnet", ""),
        (tmp_path / "weights.pth", "tcn", "tcn"),
        ("none", "resnet", "resnet"),
    ):
        settings = ResNetTcnSettings(weights=str(weights), **sizes)
        run = recipe("demo").model_copy(update={"model": settings, "freeze": (part,)})
        with pytest.raises(ConfigError, match=rf"freeze: {refused}\..* has its first") if refused else nullcontext():
            prepare(MODELS["resnet_tcn"](settings, 4), run)


def test_a_start_that_is_not_there_or_does_not_fit_is_one_sentence(
    shards: Shards, tiny_bundle: Path, visual_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no bundle there"):
        train(audio_from(tmp_path / "nothing"), shards[0], tmp_path / "a", run_id="a")
    with pytest.raises(ModelError, match=r"no weight of .*/bundle's resnet_tcn fits this mocorank"):
        train(audio_from(tiny_bundle), shards[0], tmp_path / "b", run_id="b")


def test_what_agrees_is_loaded_and_what_does_not_is_named(
    visual: RunConfig, visual_bundle: Path, shards: Shards, tmp_path: Path
) -> None:
    other = with_settings(visual, [f"starts_from={visual_bundle}", "model.head=linear", "model.chunks=8"])
    events = run_events(other, shards, tmp_path, stop_after_step=1)
    started = next(event for event in events if isinstance(event, RunStarted))
    assert started.fresh == ("visual.head.linear.bias", "visual.head.linear.weight")
    assert started.unused == ("visual.head.weight",)
    assert started.num_frozen == 0


def test_two_workers_have_the_losses_of_one_though_their_clips_differ(
    shards: Shards, visual_bundle: Path, tmp_path: Path
) -> None:
    # workers hold different numbers of clips with speech and of chunks with a face; a part of the visual part is frozen
    run = audio_from(visual_bundle, "loop.precision=fp64", 'freeze=["visual.mlp2"]', "data.only_with=[]")
    alone = run_events(run, shards, tmp_path / "alone")
    together = ddp_events(run, shards, tmp_path / "together", 2)
    assert len(losses(alone)) == 10
    assert losses(together) == pytest.approx(losses(alone), rel=1e-7)
    one, two = (load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("alone", "together"))
    before = load_file(visual_bundle / "model.safetensors")
    for name, value in before.items():
        assert torch.equal(two[name].to(value.dtype), value) == name.startswith("visual.mlp2.")
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_a_resumed_run_does_without_what_it_started_from(shards: Shards, visual_bundle: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(visual_bundle, start)
    whole = run_events(audio_from(start), shards, tmp_path / "whole")
    stopped = run_events(audio_from(start), shards, tmp_path / "stopped", stop_after_step=1)
    shutil.rmtree(start)
    rest = run_events(audio_from(start), shards, tmp_path / "stopped")
    assert losses(stopped) + losses(rest) == losses(whole)
    before, after = _started(whole), _started(rest)
    assert (after.start_step, after.num_frozen, after.fresh, after.unused) == (1, before.num_frozen, (), ())
    assert before.fresh


def _started(events: list[Event]) -> RunStarted:
    return next(event for event in events if isinstance(event, RunStarted))


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_published_row_is_a_model(name: str) -> None:
    rows = ablation_stages(name, "cmose_short")
    assert len(rows) == (2 if name == "audio" else 1)
    for run in rows:
        model = run.fitted_to({"openface": (0, 31), "i3d": (1024,)}).model
        MODELS[model.name](model, 4)
        assert RunConfig.model_validate_json(run.model_dump_json()) == run
    assert 40 < ABLATIONS[name].average_accuracy < ABLATIONS[name].accuracy < 80


def test_cmose_is_as_published() -> None:
    run = recipe("cmose_visual")
    assert (run.optimiser.name, run.optimiser.weight_decay, run.optimiser.schedule) == ("adamw", 1e-3, "cosine")
    assert (run.optimiser.lr, run.optimiser.lr_final) == (5e-4, 5e-7)
    assert (run.loop.epochs, run.loop.global_batch) == (1200, 256)
    assert (run.loss.name, run.loss.model_dump()["center"], run.loss.model_dump()["pool"]) == ("mocorank", 0.2, 2048)
    audio = recipe("cmose_audio")
    assert (audio.freeze, audio.data.only_with) == (("visual",), ("speech", "acoustics"))
