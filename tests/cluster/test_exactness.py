"""A run that is killed goes on as if nothing had been: bit for bit by as many workers, to rounding by others."""

from pathlib import Path

import pytest

from data_shards.manifest import Manifest
from data_shards.reading.order import DrawStream
from data_shards.reading.reader import ShardSet
from tests.cluster.crew import Kill, Trained, crew_trains, draws_of, events_of, losses_of
from tests.cluster.test_strategies import TOLERANCE
from training.config import RunConfig, Strategy, with_settings
from training.events import RunStarted

pytestmark = pytest.mark.slow
STRATEGIES: tuple[Strategy, ...] = ("ddp", "deepspeed-zero1", "deepspeed-zero2", "deepspeed-zero3")
STEPS = 10  # two epochs of five; a checkpoint after every second step and at each epoch's end
KILLS = (
    Kill("evaluate", 5, rank=1, checkpoint=4),  # an epoch's last edge: its last step is done, and in no checkpoint
    Kill("data", 6, rank=0, checkpoint=5),  # the next one's first edge: nothing since the checkpoint
    Kill("backward", 8, rank=1, checkpoint=6),  # in its middle, and in the middle of a step
)
STARTS = [0, 4, 5, 6]  # the steps it is started after, then


def run_of(tiny_run: RunConfig, strategy: Strategy, workers: int) -> RunConfig:
    """AdamW, whose state is moments and a count of steps; batch statistics of four clips for any number of workers."""
    settings = ["loop.epochs=2", "model.dropout=0.3", "optimiser.clip_norm=0.5", "loop.checkpoint_every_steps=2"]
    return with_settings(tiny_run, [*settings, f"loop.strategy={strategy}", f"loop.microbatch={4 // workers}"])


@pytest.fixture(scope="module")
def unbroken(tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders STRATEGY of runs by two workers that nobody killed."""
    folder = tmp_path_factory.mktemp("unbroken")
    crew_trains([Trained(run_of(tiny_run, name, 2), simulated_shards[0], folder / name) for name in STRATEGIES], 2)
    return folder


@pytest.fixture(scope="module")
def order(tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest]) -> dict[int, list[int]]:
    """By step, the keys of the draws that the pure order says it is of, sorted."""
    shards = ShardSet(simulated_shards[0], splits=("train",), target=tiny_run.training_target)
    batch = tiny_run.loop.global_batch
    stream = DrawStream(shards.view.levels_N, tiny_run.seed, tiny_run.data.sampler, batch, shards.shard_starts, 64)
    return {step + 1: sorted(stream.draws(step * batch, batch)[1].tolist()) for step in range(STEPS)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_killed_run_goes_on_bit_for_bit(
    tiny_run: RunConfig,
    simulated_shards: tuple[Path, Manifest],
    unbroken: Path,
    order: dict[int, list[int]],
    tmp_path: Path,
    strategy: Strategy,
) -> None:
    job = Trained(run_of(tiny_run, strategy, 2), simulated_shards[0], tmp_path / "killed")
    for kill in (*KILLS, None):
        crew_trains([job], 2, kill=kill)
    told, expected = losses_of(job.folder), losses_of(unbroken / strategy)
    assert starts_of(job.folder) == STARTS
    assert len(expected) == STEPS
    assert set(told) == set(expected)  # steps that were done twice had the same loss both times
    assert draws_of(job.folder) == draws_of(unbroken / strategy) == order
    one, other = (folder / "bundle" / "model.safetensors" for folder in (job.folder, unbroken / strategy))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("before", "after", "workers"),
    [
        ("ddp", "ddp", 4),
        ("deepspeed-zero2", "deepspeed-zero2", 1),
        ("deepspeed-zero3", "deepspeed-zero3", 4),
        ("deepspeed-zero3", "ddp", 2),
        ("deepspeed-zero1", "ddp", 1),
        ("ddp", "deepspeed-zero3", 2),
    ],
)
def test_a_killed_run_goes_on_by_other_workers_and_under_another_strategy(
    tiny_run: RunConfig,
    simulated_shards: tuple[Path, Manifest],
    unbroken: Path,
    order: dict[int, list[int]],
    tmp_path: Path,
    before: Strategy,
    after: Strategy,
    workers: int,
) -> None:
    folder = tmp_path / "moved"
    crew_trains([Trained(run_of(tiny_run, before, 2), simulated_shards[0], folder)], 2, kill=KILLS[2])
    crew_trains([Trained(run_of(tiny_run, after, workers), simulated_shards[0], folder)], workers)
    assert starts_of(folder) == [0, 6]
    assert draws_of(folder) == order
    assert dict(losses_of(folder)) == pytest.approx(dict(losses_of(unbroken / "ddp")), rel=TOLERANCE)


def starts_of(folder: Path) -> list[int]:
    return [event.start_step for event in events_of(folder) if isinstance(event, RunStarted)]
