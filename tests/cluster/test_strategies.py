"""All strategies are one arithmetic: local, DDP and ZeRO have the losses of the same global batch."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_shards.manifest import Manifest
from tests.cluster.crew import Trained, crew_trains, draws_of, events_of, losses_of
from tests.training.cmose_like import TINY_CMOSE, cmose_like_shards
from training.config import RunConfig, Strategy, with_settings
from training.events import EpochDone, RunStarted, StepDone
from training.recipes import recipe

pytestmark = pytest.mark.slow
ZERO: tuple[Strategy, ...] = ("deepspeed-zero1", "deepspeed-zero2", "deepspeed-zero3")
# float32 sums in another order, which Adam enlarges where gradients are near nothing: one process on two torch threads instead of
# one had losses of `adamw` that differed by 2e-7 of their size up to the seventh step, and by 3e-5 at the tenth
EARLY, TOLERANCE = 1e-5, 1e-4  # of the first five steps, where a rate 0.1 % too high would be seen, and of all
# how a step is cut: batch statistics are those of four clips, for any number of workers
CREWS: tuple[tuple[int, tuple[Strategy, ...]], ...] = ((1, ("ddp", *ZERO)), (2, ("ddp", *ZERO)), (4, ("ddp", "deepspeed-zero3")))


@pytest.fixture(scope="module")
def cmose_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cmose")
    cmose_like_shards(folder)
    return folder


@pytest.fixture(scope="module")
def trained(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], cmose_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folders RUN-STRATEGY-WORKERS of every run, trained by every crew."""
    folder = tmp_path_factory.mktemp("trained")
    hard = ["loop.epochs=2", "model.dropout=0.3", "optimiser.clip_norm=0.5"]
    frames = with_settings(tiny_run, hard)
    settings = [*TINY_CMOSE, "loop.eval_batch=8", "model.speech=true", "optimiser.clip_norm=0.5"]
    mocorank = with_settings(recipe("cmose_visual"), settings)
    on_frozen = ["freeze=visual", f"starts_from={folder / 'mocorank-ddp-1' / 'bundle'}"]
    runs = {
        "adamw": (frames, simulated_shards[0]),
        "sgd": (with_settings(frames, ["optimiser.name=sgd", "optimiser.lr=0.05"]), simulated_shards[0]),
        "mocorank": (mocorank, cmose_shards),
        "frozen": (with_settings(mocorank, on_frozen), cmose_shards),
    }
    for workers, strategies in CREWS:
        jobs = []
        for name, (run, data) in runs.items():
            for strategy in strategies:
                set_to = with_settings(run, [f"loop.strategy={strategy}", f"loop.microbatch={4 // workers}"])
                jobs.append(Trained(set_to, data, folder / f"{name}-{strategy}-{workers}"))
        crew_trains(jobs, workers)
    return folder


EVERY = [(strategy, workers) for workers, strategies in CREWS for strategy in strategies if (strategy, workers) != ("ddp", 1)]


@pytest.mark.parametrize("run", ["adamw", "sgd", "mocorank", "frozen"])
@pytest.mark.parametrize(("strategy", "workers"), EVERY)
def test_every_strategy_has_the_losses_of_one_process(trained: Path, run: str, strategy: str, workers: int) -> None:
    alone, together = trained / f"{run}-ddp-1", trained / f"{run}-{strategy}-{workers}"
    expected, seen = dict(losses_of(alone)), dict(losses_of(together))
    assert len(expected) == 10
    for step in range(1, 6):
        assert seen[step] == pytest.approx(expected[step], rel=EARLY)
    assert seen == pytest.approx(expected, rel=TOLERANCE)
    assert norms_of(together) == pytest.approx(norms_of(alone), rel=1e-3)
    assert draws_of(together) == draws_of(alone)
    for ours, theirs in zip(epochs_of(together), epochs_of(alone), strict=True):  # evaluated with whole weights
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=TOLERANCE)
        assert ours.validation is not None
        assert theirs.validation is not None
        assert ours.validation.confusion == theirs.validation.confusion
    weights = [load_file(folder / "bundle" / "model.safetensors") for folder in (alone, together)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4, msg=lambda said, name=name: f"{name}: {said}")


def test_what_is_frozen_stays_and_what_is_counted_is_the_whole_model(trained: Path) -> None:
    start = load_file(trained / "mocorank-ddp-1" / "bundle" / "model.safetensors")
    counted = {
        (e.num_parameters, e.num_frozen)
        for path in trained.glob("frozen-*")
        for e in events_of(path)
        if isinstance(e, RunStarted)
    }
    assert len(counted) == 1
    assert all(total > frozen > 0 for total, frozen in counted)
    for path in trained.glob("frozen-*"):
        end = load_file(path / "bundle" / "model.safetensors")
        assert all(torch.equal(end[name], value) for name, value in start.items() if name.startswith("visual."))
        assert not torch.equal(end["audio.head.weight"], start["audio.head.weight"])


def norms_of(folder: Path) -> list[float]:
    return [event.grad_norm for event in events_of(folder) if isinstance(event, StepDone)]


def epochs_of(folder: Path) -> list[EpochDone]:
    return [event for event in events_of(folder) if isinstance(event, EpochDone)]
