"""How long does a checkpoint stall training: a copy and a writer beside it, against torch.save and fsync in the loop?

Aim: under 5 % of the peer's stall. The state is the recipe's model with its optimiser's, after a step: `demo` on 64 clips'
levels, and `resnet_tcn`, 12 million parameters with SGD's momentum. What is compared is how long the training thread stands
still for a checkpoint; before the next one the writer is left to finish, as it is in a run whose checkpoints are minutes apart.
Beside it, the ways of copying: clone(), copy_ into buffers of before, and ours into them.

    python -m benchmarks.bench_checkpoint
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.measure import console, machine, save
from data_shards.storage.store import LocalStore
from training.checkpoint import CheckpointRecord, Checkpoints
from training.checkpoint_writer import CheckpointWriter
from training.config import with_settings
from training.engine import make_optimiser
from training.events import CheckpointSaved
from training.host_copy import HostBuffers
from training.models import MODELS
from training.recipes import recipe

ROUNDS = 21
RECIPES = {"demo": ["optimiser.lr=1e-3"], "resnet_tcn": ['model.weights="none"']}


def main() -> None:
    results = []
    for name, settings in RECIPES.items():
        state = _state_of(name, settings)
        tensors: list[Tensor] = []
        _gather(state, tensors)
        size_mb = sum(t.nbytes for t in tensors) / 1e6
        with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch:
            stalls_ms, took_ms = _stalls(state, Path(scratch))
        copies_ms = _copies(state, tensors)
        ratio = statistics.median(a / b for a, b in zip(stalls_ms["asynchronous"], stalls_ms["torch.save, fsync"], strict=True))
        table = Table(
            title=f"{name}: {size_mb:.1f} MB in {len(tensors)} tensors", caption=f"{ROUNDS} rounds in turn; {machine()}"
        )
        for heading in ("ms", "median", "min", "max"):
            table.add_column(heading, justify="left" if heading == "ms" else "right")
        rows = {f"training stalled, {what}": values for what, values in stalls_ms.items()}
        rows |= {"until it is there, asynchronous": took_ms} | {f"copy, {what}": values for what, values in copies_ms.items()}
        for what, values in rows.items():
            table.add_row(what, *(f"{f(values):,.2f}" for f in (statistics.median, min, max)))
        table.add_row("stall against torch.save, fsync", f"{ratio:.1%}", "", "", style="bold")
        console.print(table)
        results.append({"title": name, "size_mb": size_mb, "num_tensors": len(tensors), "ratio": ratio, "ms": rows})
    save("checkpoint", results)


def _state_of(name: str, settings: list[str]) -> dict[str, Any]:
    """Model and optimiser after one step of gradients drawn at random."""
    run = with_settings(recipe(name), settings)
    torch.manual_seed(0)
    model = MODELS[run.model.name](run.model, 4)
    if run.loop.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = make_optimiser(model, run.optimiser)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    return {"engine": {"model": model.state_dict(), "optimiser": optimiser.state_dict()}, "torch_rng": torch.get_rng_state()}


def _stalls(state: dict[str, Any], folder: Path) -> tuple[dict[str, list[float]], list[float]]:
    """(milliseconds that training stood still, by way of saving; milliseconds until the asynchronous one was there)."""
    writer = CheckpointWriter(Checkpoints(LocalStore(folder / "ours"), kept=2, scratch=folder / "scratch"))
    stalls_ms: dict[str, list[float]] = {"asynchronous": [], "torch.save, fsync": []}
    took_ms = []
    for number in range(1, ROUNDS + 3):
        begun_s = time.perf_counter()
        writer.submit(_record(number), state, {}, due_s=begun_s)
        stalled_s = time.perf_counter() - begun_s
        while not (news := writer.news()):
            time.sleep(0.001)
        assert isinstance(news[0], CheckpointSaved), news
        begun_s = time.perf_counter()
        with (folder / "peer.pt").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        peer_s = time.perf_counter() - begun_s
        if number > 2:  # the first ones make the buffers
            stalls_ms["asynchronous"].append(stalled_s * 1e3)
            stalls_ms["torch.save, fsync"].append(peer_s * 1e3)
            took_ms.append(news[0].took_s * 1e3)
    writer.drain(retry=False)
    return stalls_ms, took_ms


def _copies(state: dict[str, Any], tensors: list[Tensor]) -> dict[str, list[float]]:
    """Milliseconds of each way to copy the state's tensors."""
    buffers, held = HostBuffers(), [torch.empty_like(t) for t in tensors]

    def into_held() -> None:
        for target, source in zip(held, tensors, strict=True):
            target.copy_(source)

    ways: dict[str, Callable[[], object]] = {
        "clone()": lambda: [t.clone() for t in tensors],
        "copy_ into buffers": into_held,
        "ours": lambda: buffers.copy(state),
    }
    took_ms: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, work in ways.items():
            begun_s = time.perf_counter()
            work()
            if number:
                took_ms[way].append((time.perf_counter() - begun_s) * 1e3)
    return took_ms


def _gather(value: Any, tensors: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        tensors.append(value)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _gather(item, tensors)


def _record(step: int) -> CheckpointRecord:
    return CheckpointRecord(
        step=step, position=step, data_digest="", run={}, best_epoch=0, best_metric=None, loss_sum=0.0, loss_count=0
    )


if __name__ == "__main__":
    main()
