"""A paper plan: clips a second, GPU-hours and cost of a DAiSEE and a CMOSE run on 1, 8 and 64 GPUs. **Computed, not run.**

Counted here: operations of a step (torch's own counter) and weights. Measured: bytes of a clip in its shard and clips
that a core decodes. What is assumed is an option, with its source, and is printed with the result.

    python -m benchmarks.scale_plan [--utilisation 0.3] [--peak-tflops 989] [--price 3.0] [--network-gb-per-s 50]

The step is bounded below by the longest of arithmetic and all-reduce (they overlap) and above by their sum; the upper bound is
what the table uses. All-reduce: a ring, each GPU sends and receives 2 (N - 1) / N times the weights' bytes, in float32.
"""

from typing import NamedTuple

import click
import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import console, machine, save
from data_shards.extraction.inception import InceptionI3d
from data_shards.reading.loader import ClipInputs
from training.models import MODELS, EngagementModel
from training.models.mocorank import MocoRank, MocoRankSettings
from training.recipes import recipe

# DAiSEE (Gupta et al. 2016): 5,358 clips in its training split. CMOSE (Wu et al. 2023): 12,193 clips of 13.72 s at 25 a second.
DAISEE_TRAIN, DAISEE_VALIDATION, DAISEE_EPOCHS = 5358, 1429, 20
CMOSE_CLIPS, CMOSE_WINDOWS = 12_193, 13.72 * 25 / 64
CLIP_BYTES, DECODED_PER_S = 511_000, 89.2  # of DAiSEE's clips, a core of this machine: bench_loader in RESULTS.md
GPUS = (1, 8, 64)


class Assumed(NamedTuple):
    """peak: operations a second of a GPU in bf16; utilisation: the share of it that a step reaches; network: bytes a second."""

    peak: float
    utilisation: float
    network: float
    price: float


@click.command()
@click.option("--peak-tflops", default=989.0, help="Of a GPU in bf16, dense. [989: NVIDIA's data sheet of the H100 SXM]")
@click.option("--utilisation", default=0.3, help="Share of the peak that a step reaches: a guess until it is measured.")
@click.option("--network-gb-per-s", default=50.0, help="Between GPUs, each way. [50: a 400 Gb/s port a GPU]")
@click.option("--price", default=3.0, help="US dollars a GPU-hour: a guess, put in your own.")
def main(peak_tflops: float, utilisation: float, network_gb_per_s: float, price: float) -> None:
    """Print the plan's tables."""
    assumed = Assumed(peak_tflops * 1e12, utilisation, network_gb_per_s * 1e9, price)
    model = MODELS["resnet_tcn"](recipe("resnet_tcn").model, 4)
    operations, parameters = _training_operations(model, _frames()), sum(p.numel() for p in model.parameters())
    windows = _forward_operations_of_i3d()
    counted = {
        "resnet_tcn: operations of a clip, forward and backward": operations,
        "resnet_tcn: weights": parameters,
        "bytes of a clip of 50 frames of 224x224 in its shard": CLIP_BYTES,
        "clips of it that a core decodes in a second": DECODED_PER_S,
        "i3d: operations of a window of 64 frames, forward": windows,
        "mocorank: operations of a clip, forward and backward": _training_operations(_mocorank(), _features()),
    }
    table = Table(title="Counted here", caption=machine())
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in counted.items():
        table.add_row(name, f"{value:,.1f}" if value < 1000 else f"{value:,.0f}")
    console.print(table)
    rows = [_daisee(gpus, operations, parameters, assumed) for gpus in GPUS]
    _print_plan(f"resnet_tcn on DAiSEE, {DAISEE_EPOCHS} epochs, 5 clips a GPU and step: computed, not run", rows, assumed)
    num_windows = CMOSE_CLIPS * CMOSE_WINDOWS
    hours = num_windows * windows / (assumed.peak * assumed.utilisation) / 3600
    console.print(f"CMOSE's I3D features, once: {num_windows:,.0f} windows, {hours:.2f} GPU-hours, {hours * price:.2f} dollars")
    save("scale_plan", [{"title": "computed, not run", "assumed": assumed._asdict(), "counted": counted, "daisee": rows}])


def _frames() -> ClipInputs:
    return ClipInputs(torch.zeros(1, 50, 3, 224, 224, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), {}, {})


def _features() -> ClipInputs:
    features = {"openface": torch.randn(1, 343, 49), "i3d": torch.randn(1, 1024)}
    lengths = {"openface": torch.tensor([343]), "i3d": torch.tensor([1024])}
    return ClipInputs(torch.empty(1, 0, 3, 0, 0, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), features, lengths)


def _mocorank() -> EngagementModel:
    return MocoRank(MocoRankSettings(), 4)


def _training_operations(model: EngagementModel, inputs: ClipInputs) -> float:
    """Floating-point operations of one clip, forward and backward, a multiplication and an addition counted as two."""
    model.eval()  # a batch of one has no batch statistics; the operations are the same
    with FlopCounterMode(display=False) as counter:
        output = model(model.prepared(inputs))
        output.logits_BK.sum().backward()
    return float(counter.get_total_flops())


def _forward_operations_of_i3d() -> float:
    """Of one window of 64 frames of 224x224."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        InceptionI3d(3).eval()(torch.zeros(1, 3, 64, 224, 224))
    return float(counter.get_total_flops())


def _daisee(gpus: int, operations: float, parameters: int, assumed: Assumed) -> dict[str, float]:
    compute_s = 5 * operations / (assumed.peak * assumed.utilisation)
    reduce_s = 2 * (gpus - 1) / gpus * 4 * parameters / assumed.network
    rate = 5 * gpus / (compute_s + reduce_s)
    clips = DAISEE_EPOCHS * (DAISEE_TRAIN + DAISEE_VALIDATION / 3)  # a forward pass is a third of a step
    hours = clips / rate / 3600
    return {
        "GPUs": gpus,
        "clips a step": 5 * gpus,
        "step, ms": 1000 * (compute_s + reduce_s),
        "of it all-reduce at most, ms": 1000 * reduce_s,
        "clips/s": rate,
        "minutes": 60 * hours,
        "GPU-hours": gpus * hours,
        "dollars": gpus * hours * assumed.price,
        "read, GB/s": rate * CLIP_BYTES / 1e9,
        "cores that decode": rate / DECODED_PER_S,
    }


def _print_plan(title: str, rows: list[dict[str, float]], assumed: Assumed) -> None:
    said = (
        f"assumed: {assumed.peak / 1e12:.0f} TFLOP/s, {assumed.utilisation:.0%} of it reached, {assumed.network / 1e9:.0f} GB/s, "
        f"{assumed.price:.2f} dollars a GPU-hour"
    )
    table = Table(title=title, caption=said)
    for heading in rows[0]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.2f}" for value in row.values()))
    console.print(table)


if __name__ == "__main__":
    main()
