"""A recipe fitted to arrays in memory: the steps of training/loop.py without files, for the many fits of a cross-validation.

The model, the loss, the optimiser, the first weights, the order of samples and the dropout are the loop's own, so that
`rapt train RECIPE --set ...` on the same clips ends in the same weights (a test holds the two together).
Letters: N clips, M clips with repetitions, B clips of a batch, K levels.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from data_shards.errors import ModelError
from data_shards.reading.loader import ClipInputs
from data_shards.reading.order import DrawStream
from training.config import RunConfig
from training.engine import DIVERGED, TorchEngine, lr_at
from training.evaluate import probabilities
from training.losses import LOSSES, TrainingLevels
from training.models import MODELS, EngagementModel
from training.reproduction.cross_validation import Fit, Ints, Predict
from training.reproduction.split_arrays import Features, SplitArrays, Values
from training.world import World

__all__ = ["expected_values", "fit_in_memory", "recipe_fit"]


def recipe_fit(run: RunConfig) -> Fit:
    """The recipe as a candidate: trained from the given seed, it predicts the expected official value."""

    def fit(train: SplitArrays, seed: int) -> Predict:
        model = fit_in_memory(run.model_copy(update={"seed": seed}), train)
        return lambda features: expected_values(model, features, train.value_of_level)

    return fit


def fit_in_memory(run: RunConfig, train: SplitArrays) -> EngagementModel:
    """The model of the last epoch, in evaluation mode. ModelError where the loss is no number."""
    num_levels, batch, world = len(train.value_of_level), run.loop.global_batch, World()
    stream = DrawStream(train.levels_N, run.seed, run.data.sampler, batch)
    torch.manual_seed(run.seed)
    model = MODELS[run.model.name](run.model, num_levels)
    engine = TorchEngine(model, run, world=world, device=torch.device("cpu"))
    counts_K = np.bincount(train.levels_N, minlength=num_levels)
    levels = TrainingLevels(tuple(counts_K.tolist()), tuple(np.linspace(-1.0, 1.0, num_levels).tolist()))
    loss_of = LOSSES[run.loss.name](run.loss, levels)
    loss_of.start(model, world)
    if loss_of.first_samples:
        loss_of.fill(_batches(train, model.inputs, stream.equal_shares(loss_of.first_samples), run.loop.eval_batch))
    total_steps = math.ceil(run.loop.epochs * stream.epoch_length / batch)
    model.train()
    for step in range(total_steps):
        rows_B, keys_B = stream.draws(step * batch, batch)
        inputs, labels_B = _inputs(train.features, model.inputs, rows_B, keys_B), torch.from_numpy(train.levels_N[rows_B])
        output = engine.forward(inputs)
        loss = loss_of(output, labels_B)
        if not math.isfinite(loss.item()):
            raise ModelError(f"step {step + 1}: the loss is {loss.item()}; {DIVERGED}")
        engine.backward(loss, last_of_step=True)
        loss_of.observe(inputs, output, labels_B)
        engine.step(lr_at(run.optimiser, step, total_steps))
        loss_of.after_step(model)
    return model.eval()


def expected_values(model: EngagementModel, features: Features, value_of_level: Sequence[float]) -> Values:
    """values_N in [0, 1]: the levels' official values, weighted by the model's probabilities of them."""
    rows_N = np.arange(len(next(iter(features.values()))))
    with torch.inference_mode():
        output = model(_inputs(features, model.inputs, rows_N, np.zeros_like(rows_N)))
    values_N: Values = probabilities(output.logits_BK.double().numpy(), 1.0) @ np.asarray(value_of_level)
    return values_N


def _batches(train: SplitArrays, names: Sequence[str], rows_M: Ints, batch: int) -> Iterator[tuple[ClipInputs, Tensor]]:
    """These clips in batches of one size, the first again at the end, as training/run_data.py reads a loss's first samples."""
    filled_M = np.resize(rows_M, -(-len(rows_M) // batch) * batch)
    for rows_B in filled_M.reshape(-1, batch):
        yield _inputs(train.features, names, rows_B, np.zeros_like(rows_B)), torch.from_numpy(train.levels_N[rows_B])


def _inputs(features: Features, names: Sequence[str], rows_B: Ints, keys_B: Ints) -> ClipInputs:
    taken = {name: torch.from_numpy(features[name][rows_B]) for name in names}
    lengths = {name: torch.full((len(rows_B),), values.shape[1]) for name, values in taken.items()}
    return ClipInputs(torch.empty(len(rows_B), 0, 3, 0, 0, dtype=torch.uint8), torch.from_numpy(keys_B), taken, lengths)
