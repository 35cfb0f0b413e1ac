"""Run a model over a split and judge it. Letters: N samples, K levels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from data_shards.reading.loader import read_in_order
from data_shards.reading.reader import ShardSet
from training.metrics import Evaluation, evaluate_predictions
from training.models import EngagementModel
from training.world import World

__all__ = ["Predictions", "engagement_score", "evaluate", "fit_temperature", "predict", "probabilities"]

Floats = npt.NDArray[np.float64]


class Predictions(NamedTuple):
    """A split's logits_NK float64, labels_N int64, and who each sample shows, in the split's order."""

    logits_NK: Floats
    labels_N: npt.NDArray[np.int64]
    subjects_N: tuple[str, ...]


def predict(
    model: EngagementModel,
    shards: ShardSet,
    *,
    batch: int,
    device: torch.device,
    world: World | None = None,
    num_threads: int = 1,
) -> Predictions:
    """Logits of every sample of `shards`; the workers of `world` share the work and all get the whole."""
    world = world or World()
    rows: list[tuple[Floats, npt.NDArray[np.int64], tuple[str, ...]]] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for part in read_in_order(
            shards,
            inputs=model.inputs,
            optional=model.optional,
            batch=batch,
            rank=world.rank,
            world_size=world.size,
            num_threads=num_threads,
            pin=device.type == "cuda",
        ):
            logits = model(part.inputs.to(device)).logits_BK.double().cpu().numpy()
            rows.append((logits, part.labels_B.numpy(), part.subjects))
    model.train(was_training)
    return _interleave(world.gather(rows), len(shards), model.num_levels)


def _interleave(
    by_rank: list[list[tuple[Floats, npt.NDArray[np.int64], tuple[str, ...]]]], total: int, levels: int
) -> Predictions:
    """Put the ranks' samples r, r + W, r + 2W, ... back into the split's order."""
    logits, labels = np.empty((total, levels)), np.empty(total, dtype=np.int64)
    subjects = [""] * total
    for rank, rows in enumerate(by_rank):
        at = rank
        for part_logits, part_labels, part_subjects in rows:
            for row in range(len(part_labels)):
                logits[at], labels[at], subjects[at] = part_logits[row], part_labels[row], part_subjects[row]
                at += len(by_rank)
    return Predictions(logits, labels, tuple(subjects))


def evaluate(predictions: Predictions, *, split: str, majority_level: int) -> Evaluation:
    """The evaluation protocol on predictions; the predicted level is the most probable one."""
    return evaluate_predictions(
        split=split,
        labels_N=predictions.labels_N,
        levels_N=predictions.logits_NK.argmax(axis=1),
        subjects_N=predictions.subjects_N,
        num_levels=predictions.logits_NK.shape[1],
        majority_level=majority_level,
    )


def probabilities(logits_NK: Floats, temperature: float) -> Floats:
    """Softmax of logits / temperature, rows summing to 1."""
    scaled = logits_NK / temperature
    exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    chances_NK: Floats = exponents / exponents.sum(axis=1, keepdims=True)
    return chances_NK


def engagement_score(probabilities_NK: Floats, scores_K: Sequence[float]) -> Floats:
    """scores_N in [-1, 1]: the mean of the levels' places on the engagement scale, weighted by their probabilities.

    scores_K: those places, -1 for the least and 1 for the most engaged; evenly spaced where the levels are ordered.
    """
    scores_N: Floats = probabilities_NK @ np.asarray(scores_K, dtype=np.float64)
    return scores_N


def fit_temperature(predictions: Predictions) -> float:
    """Temperature scaling (Guo et al. 2017): the T in [0.05, 20] of least negative log-likelihood, by a grid of 1 % steps."""
    rows = np.arange(len(predictions.labels_N))
    grid = np.exp(np.arange(np.log(0.05), np.log(20.0), 0.01))
    losses = [
        -np.log(np.maximum(probabilities(predictions.logits_NK, t)[rows, predictions.labels_N], 1e-12)).mean() for t in grid
    ]
    return float(round(grid[int(np.argmin(losses))], 4))
