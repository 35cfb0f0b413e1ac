"""The engine over ZeRO by itself, one worker in this process: what it says, what it keeps, what it hands over."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from cluster.deepspeed_engine import DeepSpeedEngine
from data_shards.errors import ModelError
from data_shards.manifest import Manifest
from data_shards.reading.loader import ClipInputs
from tests.training.test_loop import losses, run_events
from training.config import RunConfig, Strategy, with_settings
from training.engine import Engine, TorchEngine
from training.events import Event
from training.host_copy import HostBuffers
from training.loop import train
from training.models import MODELS
from training.world import World

Shards = tuple[Path, Manifest]
STRATEGIES: tuple[Strategy, ...] = ("ddp", "deepspeed-zero1", "deepspeed-zero2", "deepspeed-zero3")
ZERO = STRATEGIES[1:]
CPU = torch.device("cpu")


def engine_of(run: RunConfig, strategy: str, *, levels: int = 4, seed: int = 0) -> Engine:
    torch.manual_seed(seed)
    run = with_settings(run, [f"loop.strategy={strategy}", "loop.microbatch=4"])
    model = MODELS[run.model.name](run.model, levels)
    model.freeze(run.freeze)
    if strategy == "ddp":
        return TorchEngine(model, run, world=World(), device=CPU)
    return DeepSpeedEngine(model, run, world=World(), device=CPU, kept_whole=0)


@pytest.fixture(autouse=True)
def no_group_left() -> Iterator[None]:
    yield
    assert not dist.is_initialized()


def inputs() -> ClipInputs:
    frames = torch.randint(0, 256, (4, 6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return ClipInputs(frames, torch.arange(4))


def steps(engine: Engine, count: int) -> list[float]:
    """The gradient's norms of `count` steps on one batch, in two microbatches."""
    engine.model.train()
    norms = []
    for _ in range(count):
        for part in range(2):
            loss = engine.forward(inputs()).logits_BK.square().mean() / 2
            engine.backward(loss, last_of_step=part == 1)
        norms.append(engine.step(1e-2))
    return norms


@pytest.mark.parametrize(("before", "after"), [*zip(STRATEGIES, STRATEGIES, strict=True), *pairwise([*STRATEGIES, "ddp"])])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_strategy_takes_over_its_own_state_and_anothers(
    tiny_run: RunConfig, before: Strategy, after: Strategy, optimiser: str
) -> None:
    run = with_settings(tiny_run, [f"optimiser.name={optimiser}", "model.dropout=0.3"])
    first = engine_of(run, before)
    steps(first, 2)
    state = HostBuffers().copy(first.state())
    went_on = steps(first, 2)
    first.close()
    second = engine_of(run, after, seed=1)
    second.load_state(state)
    again = second.state()
    assert again["model"].keys() == state["model"].keys()
    for name, tensor in state["model"].items():
        assert torch.equal(again["model"][name], tensor), name
    for name, tensors in state["optimiser"].items():
        assert tensors.keys() == again["optimiser"][name].keys()
        assert all(torch.equal(again["optimiser"][name][key], value) for key, value in tensors.items()), name
    assert steps(second, 2) == pytest.approx(went_on, rel=0 if before == after else 1e-3)
    second.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_copied_state_is_not_changed_by_later_steps_and_is_by_name(tiny_run: RunConfig, strategy: Strategy) -> None:
    engine = engine_of(tiny_run, strategy)
    before_any_step = engine.state()
    steps(engine, 1)
    state = HostBuffers().copy(engine.state())
    kept = {name: tensor.clone() for name, tensor in state["model"].items()}
    steps(engine, 1)
    newer = engine.state()
    engine.close()
    assert set(before_any_step["optimiser"]) == set(state["optimiser"])
    assert not any(before_any_step["optimiser"].values())
    assert all(torch.equal(state["model"][name], tensor) for name, tensor in kept.items())
    assert not any(torch.equal(newer["model"][name], state["model"][name]) for name in trained_weights(state))
    for tensors in state["optimiser"].values():
        assert set(tensors) == {"step", "exp_avg", "exp_avg_sq"}
        assert float(tensors["step"]) == 1


def trained_weights(state: dict[str, Any]) -> list[str]:
    """Names of the weights that a step cannot leave as they are."""
    return [name for name in state["optimiser"] if name.endswith("weight")]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_gradient_that_is_no_number_is_one_sentence_and_changes_nothing(tiny_run: RunConfig, strategy: Strategy) -> None:
    engine = engine_of(tiny_run, strategy)
    steps(engine, 1)
    before = HostBuffers().copy(engine.state()["model"])
    engine.backward(engine.forward(inputs()).logits_BK.sum() * float("inf"), last_of_step=True)
    with pytest.raises(ModelError, match=r"the gradient's norm is (inf|nan); the run has diverged: start a new one"):
        engine.step(1e-2)
    after = engine.state()["model"]
    engine.close()
    assert all(
        torch.equal(before[name], tensor) for name, tensor in after.items() if "running" not in name and "num_" not in name
    )


def test_a_state_of_another_model_is_refused(tiny_run: RunConfig) -> None:
    engine = engine_of(tiny_run, "ddp")
    steps(engine, 2)
    other = {**engine.state(), "optimiser": {"another.weight": {}}}
    for strategy in STRATEGIES:
        newer = engine_of(tiny_run, strategy, seed=1)
        with pytest.raises(ModelError, match="the checkpoint is of another model than this run's"):
            newer.load_state(other)
        newer.close()


@pytest.mark.parametrize("strategy", ZERO)
def test_it_is_quiet_and_listens_nowhere(tiny_run: RunConfig, strategy: Strategy, capfd: pytest.CaptureFixture[str]) -> None:
    before = {c.laddr for c in psutil.Process().net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}
    engine = engine_of(tiny_run, strategy)
    steps(engine, 1)
    during = {c.laddr for c in psutil.Process().net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}
    engine.close()
    assert [address for address in during - before if address.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("strategy", "offload"), [("deepspeed-zero2", "optimiser"), ("deepspeed-zero3", "all")])
def test_offload_is_the_same_arithmetic(tiny_run: RunConfig, strategy: Strategy, offload: str) -> None:
    plain = engine_of(tiny_run, strategy)
    expected = steps(plain, 3)
    plain.close()
    offloaded = engine_of(with_settings(tiny_run, [f"loop.strategy={strategy}", f"loop.offload={offload}"]), strategy)
    seen = steps(offloaded, 3)
    offloaded.close()
    assert seen == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_one_that_is_not(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    settings = ["model.dropout=0.3", "loop.strategy=deepspeed-zero2"]
    seen = []
    for name in ("false", "true"):
        run = with_settings(tiny_run, [*settings, f"loop.compile={name}"])
        events: list[Event] = []
        told, make = [events.append], DeepSpeedEngine
        train(run, simulated_shards[0], tmp_path / name, run_id="a", stop_after_step=2, make_engine=make, listeners=told)
        seen.append(losses(events))
    assert seen[1] == pytest.approx(seen[0], rel=1e-4)


def _on_gpu(rank: int, run_json: str, data: str, folder: str) -> None:
    from training.events import EventLog

    run, device = RunConfig.model_validate_json(run_json), torch.device("cuda", 0)
    log = EventLog(Path(folder) / "events.jsonl")
    train(run, data, Path(folder), run_id="gpu", device=device, listeners=[log], make_engine=DeepSpeedEngine)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_zero_2_in_bfloat16_on_a_gpu_has_the_losses_of_the_cpu(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    from tests.cluster.crew import losses_of

    on_cpu = losses(run_events(tiny_run, simulated_shards, tmp_path / "cpu"))
    run = with_settings(tiny_run, ["loop.strategy=deepspeed-zero2", "loop.precision=bf16"])
    (tmp_path / "gpu").mkdir()
    arguments = (run.model_dump_json(), str(simulated_shards[0]), str(tmp_path / "gpu"))
    torch.multiprocessing.spawn(_on_gpu, arguments, nprocs=1)  # NCCL by itself, which meets nobody
    assert [loss for _, loss in losses_of(tmp_path / "gpu")][:2] == pytest.approx(on_cpu[:2], rel=3e-2)
