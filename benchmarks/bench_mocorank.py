"""What does MocoRank cost? A training step with it against one with cross entropy, its formula against a loop, its memory.

Aims: a step at most 1.3 times that of cross entropy on the same model; under 200 MB. Batch 256, pool 2048, features of CMOSE's
sizes. A step of any momentum method runs a second model forward without gradient; the parts are timed apart.

    python -m benchmarks.bench_mocorank
"""

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import psutil
import torch
from rich.table import Table

from benchmarks.measure import compare, console, machine, save
from data_shards.reading.loader import ClipInputs
from training.losses import LOSSES, EngagementLoss, TrainingLevels
from training.models import EngagementModel, ModelOutput
from training.models.mocorank import MocoRank, MocoRankSettings
from training.world import World

BATCH, POOL, NAIVE_BATCH = 256, 2048, 4
ROWS, COLUMNS, I3D = 343, 49, 1024  # 13.72 s at 25 frames a second; gaze, pose, action units
LEVELS = TrainingLevels((240, 1500, 5900, 800), (-1.0, -1 / 3, 1 / 3, 1.0))


def main() -> None:
    torch.manual_seed(0)
    results = [
        compare(
            f"Training steps of {BATCH} clips, pool {POOL}, the mocorank model: MocoRank against cross entropy",
            ("mocorank", _step("mocorank")),
            ("cross entropy", _step("cross_entropy")),
            unit="steps",
        ),
        _against_the_loop(),
        _parts(),
        _memory(),
    ]
    save("mocorank", results)


def _model() -> EngagementModel:
    return MocoRank(MocoRankSettings(), len(LEVELS.counts_K))


def _inputs(count: int = BATCH) -> tuple[ClipInputs, torch.Tensor]:
    features = {"openface": torch.randn(count, ROWS, COLUMNS), "i3d": torch.randn(count, I3D)}
    lengths = {"openface": torch.full((count,), ROWS), "i3d": torch.full((count,), I3D)}
    return ClipInputs(torch.empty(count, 0, 3, 0, 0, dtype=torch.uint8), torch.arange(count), features, lengths), torch.arange(
        count
    ) % 4


def _loss(name: str, model: EngagementModel) -> EngagementLoss:
    kind = LOSSES[name]
    loss = kind(kind.settings_type.model_validate({"name": name}), LEVELS)
    loss.start(model, World())
    if loss.first_samples:
        loss.fill([_inputs(BATCH) for _ in range(-(-loss.first_samples // BATCH))])
    return loss


def _step(name: str) -> Callable[[], int]:
    model = _model()
    loss, (inputs, labels) = _loss(name, model), _inputs()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=1e-3)

    def step() -> int:
        ready = model.prepared(inputs)  # as the loop does
        output = model(ready)
        loss(output, labels).backward()
        loss.observe(ready, output, labels)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        loss.after_step(model)
        return 1

    return step


def _loss_alone() -> tuple[EngagementLoss, ModelOutput, torch.Tensor]:
    """The loss with a full pool, and a batch's output to score; no model's forward pass is in what is timed."""
    model = _model()
    loss, (inputs, labels) = _loss("mocorank", model), _inputs()
    with torch.no_grad():
        output = model(inputs)
    assert output.scores_B is not None
    return loss, output._replace(scores_B=output.scores_B.clone().requires_grad_()), labels


def _against_the_loop() -> dict[str, object]:
    loss, output, labels = _loss_alone()
    pool = loss.pool
    few = ModelOutput(*(None if part is None else part[:NAIVE_BATCH] for part in output))  # type: ignore[arg-type]

    def ours() -> int:
        loss(output, labels).backward()
        return BATCH

    def naive() -> int:
        total = torch.zeros(())
        assert few.scores_B is not None
        for i in range(NAIVE_BATCH):
            for p in range(POOL):
                s = few.scores_B[i] - pool.scores_P[p]
                gap = int(labels[i]) - int(pool.labels_P[p])
                cosine = torch.nn.functional.cosine_similarity(few.embedding_BE[i], pool.unit_PE[p], dim=0)
                margin = 0.5 * (abs(gap) - 1) + 0.25 * (cosine + 1)
                f = s.abs() if gap == 0 else margin - s if gap > 0 else margin + s
                total = total + f.clamp(min=0)
        (total / (NAIVE_BATCH * POOL)).backward()
        return NAIVE_BATCH

    return compare(
        f"The loss alone, forward and backward, against a pool of {POOL}",
        ("vectorised", ours),
        ("loop in Python", naive),
        unit="clips",
        rounds=3,
    )


def _parts() -> dict[str, object]:
    """Where a step's time goes, in milliseconds."""
    model = _model()
    loss, (inputs, labels) = _loss("mocorank", model), _inputs()
    ready = model.prepared(inputs)
    with torch.no_grad():
        output = model(ready)
    scored = output._replace(scores_B=torch.zeros(BATCH, requires_grad=True))
    parts: dict[str, Callable[[], object]] = {
        "chunk statistics, for the model and its copy": lambda: model.prepared(inputs),
        "model, forward and backward": lambda: model(ready).logits_BK.sum().backward(),
        "loss against the pool, forward and backward": lambda: loss(scored, labels).backward(),
        "momentum encoder, forward": lambda: loss.observe(ready, output, labels),
        "momentum update and enqueue": lambda: loss.after_step(model),
    }
    seen: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(7):
        for name, work in parts.items():
            begun_s = time.perf_counter()
            work()
            seen[name].append(1000 * (time.perf_counter() - begun_s))
    table = Table(title="Parts of a step with MocoRank", caption=f"7 rounds in turn; {machine()}")
    table.add_column("")
    table.add_column("median, ms", justify="right")
    for name, values in seen.items():
        table.add_row(name, f"{statistics.median(values):,.1f}")
    console.print(table)
    return {"title": "parts of a step, ms", "parts": seen}


def _memory() -> dict[str, object]:
    """By torch's profiler, and the growth of the resident set of a fresh process while it computes the loss alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        allocated_mib, held_mib, grown_mib = pool.submit(_measure_memory).result()
    console.print(
        f"memory of the loss, forward and backward: {allocated_mib:.1f} MiB allocated and {grown_mib:.1f} MiB of resident set at "
        f"the peak; beside it the pool and the momentum encoder hold {held_mib:.1f} MiB"
    )
    return {"title": "memory, MiB", "allocated at the peak": allocated_mib, "resident at the peak": grown_mib, "held": held_mib}


def _measure_memory() -> tuple[float, float, float]:
    loss, output, labels = _loss_alone()
    state_mib = sum(values.numel() * values.element_size() for values in loss.state_dict().values()) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loss(output, labels).backward()
    held, peak = 0, 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    process, stop, largest = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.0005):
            largest[0] = max(largest[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        loss(output, labels).backward()
    stop.set()
    watcher.join()
    return peak / 2**20, state_mib, max(0, largest[0] - before) / 2**20


if __name__ == "__main__":
    main()
