"""The losses equal their formulas written naively in numpy, and add up over workers."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from data_shards.errors import ConfigError
from training.losses import LOSSES, EngagementLoss, TrainingLevels
from training.losses.center import Centers
from training.losses.mocorank import MocoRank
from training.losses.momentum import Triplets
from training.models import MODELS, EngagementModel, ModelOutput
from training.models.mocorank import MocoRankSettings as ModelSettings
from training.world import World

COUNTS = (34, 213, 2617, 2494)  # DAiSEE's training set
SCORES = (-1.0, -1 / 3, 1 / 3, 1.0)
OF_SCORES = ("mse", "mse_rank", "mocorank")  # mse_triplet too, but for its gradient the embedding matters as well
MARGIN = {"mse_rank": {"margin": 0.3}}


def make(name: str, counts: tuple[int, ...] = COUNTS, scores: tuple[float, ...] = SCORES, **settings: object) -> EngagementLoss:
    """A loss in float64; MocoRank with a pool of 40 triplets made up."""
    kind = LOSSES[name]
    loss = kind(
        kind.settings_type.model_validate({"name": name, **MARGIN.get(name, {}), **settings}), TrainingLevels(counts, scores)
    )
    if isinstance(loss, MocoRank):
        rng = np.random.default_rng(7)
        units = rng.normal(size=(40, 5))
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        loss.pool.push(Triplets(*map(torch.tensor, (rng.integers(0, len(counts), 40), rng.uniform(-1, 1, 40), units))))
    return loss


def batch(size: int, seed: int = 0) -> tuple[ModelOutput, torch.Tensor]:
    rng = np.random.default_rng(seed)
    output = ModelOutput(*map(torch.tensor, (rng.normal(size=(size, 4)), rng.normal(size=(size, 5)), rng.uniform(-1, 1, size))))
    return output, torch.tensor(rng.integers(0, 4, size))


def cross_entropy(logits: np.ndarray, label: int) -> float:
    return float(-np.log(np.exp(logits[label]) / sum(np.exp(value) for value in logits)))


def naive(name: str, logits: np.ndarray, embeddings: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> float:
    """Each loss as its paper writes it, clip by clip."""
    clips = range(len(labels))
    squared = np.mean([(scores[i] - SCORES[labels[i]]) ** 2 for i in clips])
    if name == "cross_entropy":
        return np.mean([cross_entropy(logits[i], labels[i]) for i in clips])
    if name == "weighted_cross_entropy":
        return np.mean([sum(COUNTS) / (4 * COUNTS[labels[i]]) * cross_entropy(logits[i], labels[i]) for i in clips])
    if name == "cb_focal":
        inverse = [(1 - 0.999) / (1 - 0.999**n) for n in COUNTS]
        total = 0.0
        for i in clips:
            for k in range(4):
                p = 1 / (1 + np.exp(-logits[i][k] if k == labels[i] else logits[i][k]))
                total -= inverse[labels[i]] * 4 / sum(inverse) * (1 - p) ** 2 * np.log(p)
        return total / len(labels)
    if name == "ldam":
        lowered = logits.copy()
        for i in clips:
            lowered[i][labels[i]] -= 0.5 * (min(COUNTS) / COUNTS[labels[i]]) ** 0.25
        return np.mean([cross_entropy(lowered[i], labels[i]) for i in clips])
    if name == "mse":
        return squared
    if name == "mse_rank":
        pairs = [(i, j) for i in clips for j in clips if labels[i] > labels[j]]
        return squared + np.mean([max(0, 0.3 - (scores[i] - scores[j])) for i, j in pairs])
    if name == "mse_triplet":
        units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        losses = []
        for i in clips:
            own = [((units[i] - units[j]) ** 2).sum() for j in clips if labels[j] == labels[i] and j != i]
            others = [((units[i] - units[j]) ** 2).sum() for j in clips if labels[j] != labels[i]]
            if own and others:
                losses.append(max(0, max(own) - min(others) + 0.2))
        return squared + np.mean(losses)
    assert name == "mocorank"
    pool = make(name).pool
    return naive_mocorank(scores, labels, embeddings, *(rows.numpy() for rows in (pool.scores_P, pool.labels_P, pool.unit_PE)))


def naive_mocorank(
    s: np.ndarray, labels: np.ndarray, e: np.ndarray, s2: np.ndarray, labels2: np.ndarray, e2: np.ndarray
) -> float:
    """The double loop of Wu et al.'s formulas."""
    total = 0.0
    for i in range(len(s)):
        for p in range(len(s2)):
            cosine = e[i] @ e2[p] / (np.linalg.norm(e[i]) * np.linalg.norm(e2[p]))
            margin = 0.5 * (abs(int(labels[i]) - int(labels2[p])) - 1) + 0.5 * (cosine + 1) / 2
            if labels[i] == labels2[p]:
                f = abs(s[i] - s2[p])
            elif labels[i] > labels2[p]:
                f = margin - (s[i] - s2[p])
            else:
                f = margin - (s2[p] - s[i])
            total += max(f, 0)
    return total / (len(s) * len(s2))


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_equals_its_formula(name: str) -> None:
    output, labels = batch(12)
    expected = naive(name, *(part.numpy() for part in output), labels.numpy())  # type: ignore[union-attr]
    assert float(make(name)(output, labels)) == pytest.approx(expected, rel=1e-6 if "weighted" in name else 1e-12)
    single = ModelOutput(*(part.float() for part in output))  # type: ignore[union-attr]
    loss = make(name)
    if isinstance(loss, MocoRank):
        loss.pool.float()
    assert float(loss(single, labels)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_finite_differences(name: str) -> None:
    loss = make(name, (3, 1, 2, 5), **({"margin_gradient": True} if name == "mocorank" else {}))
    output, _ = batch(6, seed=3)
    labels = torch.tensor([0, 1, 2, 3, 1, 0])
    leaves = [part.requires_grad_() for part in output]  # type: ignore[union-attr]
    assert torch.autograd.gradcheck(lambda *parts: loss(ModelOutput(*parts), labels), leaves)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_and_a_batch_of_one_give_a_number(name: str) -> None:
    output, labels = batch(1)
    loss = make(name)
    if isinstance(loss, MocoRank):
        loss.pool.float()
    value = loss(ModelOutput(*(part.bfloat16() for part in output)), labels)  # type: ignore[union-attr]
    assert value.dtype in (torch.float32, torch.float64)
    assert torch.isfinite(value)


def _losses_of_a_worker(rank: int, size: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=size)
    try:
        torch.save({name: _share(name, rank, size) for name in LOSSES}, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def _share(name: str, rank: int, size: int) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """A worker's loss, and its gradient as DDP averages it: divided by the workers."""
    output, labels = batch(12)
    mine = slice(rank * 12 // size, (rank + 1) * 12 // size)
    leaves = [part[mine].clone().requires_grad_() for part in output]  # type: ignore[union-attr]
    loss = make(name)
    loss.world = World(rank, size)
    value = loss(ModelOutput(*leaves), labels[mine])
    value.backward()
    return value.detach(), [None if leaf.grad is None else leaf.grad / size for leaf in leaves]


def test_workers_means_average_to_the_global_batchs_loss_and_gradient(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_losses_of_a_worker, (2, port, str(tmp_path)), nprocs=2)
    of_workers = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in LOSSES:
        whole, gradients = _share(name, 0, 1)
        shares = [worker[name] for worker in of_workers]
        assert float(sum(value for value, _ in shares) / 2) == pytest.approx(float(whole), rel=1e-9), name
        for at, gradient in enumerate(gradients):
            if gradient is not None:
                assert torch.allclose(torch.cat([share[1][at] for share in shares]), gradient, rtol=1e-9, atol=1e-15), name


def test_a_class_without_samples_weighs_nothing() -> None:
    weights = make("weighted_cross_entropy", (10, 0, 30, 40)).weights_K
    assert weights[1] == 0
    assert float((weights * torch.tensor([10, 0, 30, 40])).sum() / 80) == pytest.approx(1.0)
    balanced = make("cb_focal", (10, 0, 30, 40)).weights_K
    assert (balanced[1], float(balanced.sum())) == (0, pytest.approx(3.0))
    assert make("ldam", (10, 0, 30, 40)).margins_K.tolist()[:2] == [0.5, 0]


def test_a_batch_of_one_level_has_no_pairs_and_no_triplets() -> None:
    output, _ = batch(4)
    labels = torch.full((4,), 2)
    expected = float(make("mse")(output, labels))
    assert [float(make(name)(output, labels)) for name in ("mse_rank", "mse_triplet")] == [expected, expected]


@pytest.mark.parametrize("name", [*OF_SCORES, "mse_triplet"])
def test_a_model_without_a_score_is_refused(name: str) -> None:
    output, labels = batch(3)
    with pytest.raises(ConfigError, match=rf"the loss {name} is of scores, .*choose a model with a score"):
        make(name)(output._replace(scores_B=None), labels)


@pytest.mark.parametrize("unit_length", [False, True])
def test_center_loss_pulls_to_centers_that_follow(unit_length: bool) -> None:
    output, labels = batch(10)
    centers = Centers(4, unit_length=unit_length)
    read = output.embedding_BE.numpy()
    read = read / np.linalg.norm(read, axis=1, keepdims=True) if unit_length else read
    expected = np.zeros((4, 5))
    for _ in range(3):
        of_clips = [0.5 * ((read[i] - expected[labels[i]]) ** 2).sum() for i in range(10)]
        assert float(centers(output.embedding_BE, labels)) == pytest.approx(np.mean(of_clips), rel=1e-12)
        for part in (slice(0, 4), slice(4, 10)):
            centers.observe(output.embedding_BE[part], labels[part])
        centers.after_step(World())
        for level in range(4):
            own = read[labels.numpy() == level]
            expected[level] += 0.5 * (own - expected[level]).sum(axis=0) / (1 + len(own))
        assert np.allclose(centers.centers_KE.numpy(), expected, rtol=1e-12)


def test_centers_are_summed_in_single_precision_under_autocast() -> None:
    output, labels = batch(10)
    plain, rough = Centers(4), Centers(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough.observe(output.embedding_BE.float(), labels)
    plain.observe(output.embedding_BE.float(), labels)
    for centers in (plain, rough):
        centers._centers(output.embedding_BE.float())
        centers.after_step(World())
    assert rough.centers_KE.dtype == torch.float32
    assert torch.equal(rough.centers_KE, plain.centers_KE)


@pytest.mark.parametrize(("head", "unit_length"), [("cosine", True), ("linear", False), ("ordinal", False)])
@pytest.mark.parametrize("name", ["cross_entropy", "mocorank"])
def test_center_loss_reads_embeddings_as_the_head_does(name: str, head: str, unit_length: bool) -> None:
    # by shrinking embeddings a cosine head's center loss could be lowered without any score changing
    output, labels = batch(10)
    loss, centers = make(name, center=0.2), Centers(4, unit_length=unit_length)
    without = float(make(name)(output, labels))
    loss.start(headed(head), World())
    for scale in (1.0, 0.1):
        scaled = output._replace(embedding_BE=output.embedding_BE * scale)
        expected = without + 0.2 * float(centers(scaled.embedding_BE, labels))
        assert float(loss(scaled, labels)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["mse", "mse_rank", "mse_triplet"])
def test_scores_are_drawn_to_where_the_head_reads_the_levels(name: str) -> None:
    output, labels = batch(8)
    for head, places in (("cosine", (-0.75, -0.25, 0.25, 0.75)), ("linear", SCORES), ("ordinal", SCORES)):
        loss = make(name, weight=0) if name != "mse" else make(name)
        loss.start(headed(head), World())
        at_place = output._replace(scores_B=torch.tensor(places, dtype=torch.float64)[labels])
        assert float(loss(at_place, labels)) == pytest.approx(0, abs=1e-30)
        assert float(loss(at_place._replace(scores_B=at_place.scores_B + 0.1), labels)) == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["mse", "mse_rank", "mse_triplet", "mocorank"])
def test_levels_without_an_order_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"the loss {name} goes by the order of levels, and .* have no order"):
        make(name, (1, 2, 3), (-1.0, -1.0, 1.0))


def headed(head: str) -> EngagementModel:
    settings = ModelSettings.model_validate({"hidden": 4, "levels": 1, "openface_width": 2, "i3d_width": 2, "head": head})
    return MODELS["mocorank"](settings, 4)


@pytest.mark.parametrize("name", ["cross_entropy", "mocorank"])
def test_center_is_a_term_with_a_weight_and_its_centers_are_state(name: str) -> None:
    output, labels = batch(10)
    loss, plain = make(name, center=0.2), make(name)
    assert loss.centers is not None
    expected = float(plain(output, labels)) + 0.2 * float(loss.centers(output.embedding_BE, labels))
    assert float(loss(output, labels)) == pytest.approx(expected, rel=1e-12)
    loss.centers.observe(output.embedding_BE, labels)
    loss.centers.after_step(World())
    other = make(name, center=0.2)
    other.load_state_dict(loss.state_dict())
    assert float(other(output, labels)) == float(loss(output, labels))
    assert not [key for key in plain.state_dict() if "centers" in key]
