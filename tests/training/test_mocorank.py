"""MocoRank: the formulas, the pool, the momentum encoder, and that neither workers nor microbatches nor a kill change them."""

from collections import deque
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from data_shards.errors import ConfigError
from data_shards.manifest import Manifest
from data_shards.reading.loader import ClipInputs
from data_shards.reading.order import DrawStream
from data_shards.storage.store import LocalStore
from tests.training.scored_model import ScoredTcn, ScoredTcnSettings, scored_worker
from tests.training.test_loop import ddp_events, losses, run_events
from tests.training.test_losses import naive_mocorank
from training.checkpoint import Checkpoints, read_state
from training.config import RunConfig, with_settings
from training.losses import TrainingLevels
from training.losses.mocorank import MocoRank, MocoRankSettings
from training.losses.momentum import MomentumEncoder, ScorePool, Triplets
from training.models import MODELS, ModelOutput
from training.recipes import recipe
from training.world import World

Shards = tuple[Path, Manifest]


def levels(count: int = 4) -> TrainingLevels:
    return TrainingLevels((10,) * count, tuple(np.linspace(-1, 1, count).tolist()))


def triplets(rng: np.random.Generator, count: int, num_levels: int = 4, width: int = 3) -> Triplets:
    units = rng.normal(size=(count, width))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return Triplets(*map(torch.tensor, (rng.integers(0, num_levels, count), rng.uniform(-1, 1, count), units)))


def filled(rng: np.random.Generator, num_levels: int = 4, pool: int = 30, **chosen: object) -> MocoRank:
    loss = MocoRank(MocoRankSettings.model_validate({"pool": pool, **chosen}), levels(num_levels))
    loss.pool.push(triplets(rng, pool, num_levels))
    return loss


def output(rng: np.random.Generator, count: int, width: int = 3) -> ModelOutput:
    scores, embedding = torch.tensor(rng.uniform(-1, 1, count)), torch.tensor(rng.normal(size=(count, width)))
    return ModelOutput(torch.zeros(count, 4), embedding, scores)


# ---- the formulas


@pytest.mark.parametrize("num_levels", [2, 4, 7])
def test_the_loss_is_the_double_loop_for_any_number_of_levels(num_levels: int) -> None:
    rng = np.random.default_rng(num_levels)
    loss, of = filled(rng, num_levels), output(rng, 16)
    labels = torch.tensor(rng.integers(0, num_levels, 16))
    assert of.scores_B is not None
    pool = [rows.numpy() for rows in (loss.pool.scores_P, loss.pool.labels_P, loss.pool.unit_PE)]
    expected = naive_mocorank(of.scores_B.numpy(), labels.numpy(), of.embedding_BE.numpy(), *pool)
    assert float(loss(of, labels)) == pytest.approx(expected, rel=1e-12)
    loss.pool.float()
    single = ModelOutput(of.logits_BK, of.embedding_BE.float(), of.scores_B.float())
    assert float(loss(single, labels)) == pytest.approx(expected, rel=1e-6)


def test_a_margin_without_gradient_leaves_the_loss_and_the_scores_gradient() -> None:
    gradients = {}
    for through in (False, True):
        rng = np.random.default_rng(5)
        loss, of = filled(rng, margin_gradient=through), output(rng, 8)
        assert of.scores_B is not None
        of.scores_B.requires_grad_()
        of.embedding_BE.requires_grad_()
        value = loss(of, torch.tensor(rng.integers(0, 4, 8)))
        value.backward()
        gradients[through] = (float(value.detach()), of.scores_B.grad, of.embedding_BE.grad)
    assert gradients[False][0] == gradients[True][0]
    assert torch.equal(gradients[False][1], gradients[True][1])  # type: ignore[arg-type]
    assert gradients[False][2] is None
    assert float(gradients[True][2].abs().max()) > 0  # type: ignore[union-attr]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_order_in_the_pool_does_not_matter(seed: int, num_levels: int) -> None:
    rng = np.random.default_rng(seed)
    loss, of = filled(rng, num_levels), output(rng, 6)
    labels, order = torch.tensor(rng.integers(0, num_levels, 6)), rng.permutation(30)
    before = float(loss(of, labels))
    loss.pool.push(Triplets(*(rows[order] for rows in (loss.pool.labels_P, loss.pool.scores_P, loss.pool.unit_PE))))
    assert float(loss(of, labels)) == pytest.approx(before, rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(0.5, 0.6))
def test_levels_as_far_apart_as_any_margin_asks_have_no_loss_and_nearer_ones_have(seed: int, gap: float) -> None:
    rng = np.random.default_rng(seed)
    of_level = torch.tensor([-1.5, -0.5, 0.5, 1.5], dtype=torch.float64) * gap
    loss = filled(rng)
    loss.pool.scores_P = of_level[loss.pool.labels_P]
    labels = torch.arange(4)
    embedding = torch.tensor(rng.normal(size=(4, 3)))
    assert float(loss(ModelOutput(torch.zeros(4, 4), embedding, of_level), labels)) <= 1e-15
    assert float(loss(ModelOutput(torch.zeros(4, 4), embedding, 0.1 * of_level), labels)) > 0


# ---- the pool and the momentum encoder


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 12), st.lists(st.integers(1, 15), min_size=1, max_size=8), st.integers(0, 1000))
def test_the_pool_is_first_in_first_out(length: int, sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool, expected = ScorePool(length), deque[float](maxlen=length)
    for size in sizes:
        new = triplets(rng, size)
        pool.push(new)
        expected.extend(new.scores_N.tolist())
        assert pool.scores_P.tolist() == list(expected)
        assert len(pool.labels_P) == len(pool.unit_PE) == len(expected) <= length
        assert set(pool.labels_P.tolist()) <= set(range(4))


def test_the_pool_comes_back_from_its_state_with_its_size_and_type() -> None:
    pool, other = ScorePool(9), ScorePool(9)
    pool.push(triplets(np.random.default_rng(0), 9))
    other.load_state_dict(pool.state_dict())
    assert other.unit_PE.dtype == torch.float64
    assert all(torch.equal(one, two) for one, two in zip(pool.buffers(), other.buffers(), strict=True))


def inputs(rng: np.random.Generator, count: int) -> ClipInputs:
    features = {"openface_15": torch.tensor(rng.normal(size=(count, 15, 6)), dtype=torch.float32)}
    return ClipInputs(torch.empty(count, 0, 3, 0, 0, dtype=torch.uint8), torch.arange(count), features)


def small_model() -> ScoredTcn:
    torch.manual_seed(0)
    return ScoredTcn(ScoredTcnSettings(width=6, hidden=8, levels=1, dropout=0.5), 4)


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 1), st.integers(0, 100))
def test_momentum_weights_lie_between_the_old_copy_and_the_model(momentum: float, seed: int) -> None:
    model = small_model()
    encoder = MomentumEncoder(model, momentum)
    before = [p.clone() for p in encoder.copy.parameters()]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator))
        model.norm.norm.running_mean.add_(3.0)
    encoder.follow(model)
    for own, old, new in zip(encoder.copy.parameters(), before, model.parameters(), strict=True):
        assert torch.allclose(own, momentum * old + (1 - momentum) * new, atol=1e-6)
        assert bool(((own >= torch.minimum(old, new) - 1e-6) & (own <= torch.maximum(old, new) + 1e-6)).all())
    assert torch.equal(encoder.copy.norm.norm.running_mean, model.norm.norm.running_mean)


def test_a_clips_triplet_does_not_depend_on_its_batch() -> None:
    rng = np.random.default_rng(0)
    loss = MocoRank(MocoRankSettings(), levels())
    loss.start(small_model(), World())
    loss.train()
    assert not any(module.training for module in loss.momentum.modules())
    clips, labels = inputs(rng, 8), torch.arange(8) % 4
    whole = loss.momentum.triplets(clips, labels, "mocorank")
    alone = loss.momentum.triplets(
        inputs(np.random.default_rng(0), 8)._replace(draw_keys_B=torch.arange(8) + 99), labels, "mocorank"
    )
    one = ClipInputs(clips.frames_BTCHW[:1], clips.draw_keys_B[:1], {n: v[:1] for n, v in clips.features.items()})
    assert torch.equal(whole.scores_N, alone.scores_N)
    assert float(loss.momentum.triplets(one, labels[:1], "mocorank").scores_N) == pytest.approx(
        float(whole.scores_N[0]), abs=1e-6
    )


def test_the_copy_of_a_half_precision_model_still_moves() -> None:
    model = small_model().bfloat16()
    encoder = MomentumEncoder(model, 0.999)
    with torch.no_grad():
        model.head.weight.fill_(1.0)
    before = encoder.copy.head.weight.clone()
    encoder.follow(model)
    assert encoder.copy.head.weight.dtype == torch.float32
    assert bool((encoder.copy.head.weight != before).all())


def test_a_step_scores_against_the_old_pool_then_updates_then_enqueues_with_the_older_weights() -> None:
    rng = np.random.default_rng(0)
    model = small_model()
    loss = MocoRank(MocoRankSettings(pool=6, momentum=0.5), levels())
    loss.start(model, World())
    loss.fill([(inputs(rng, 8), torch.arange(8) % 4)])
    first = loss.pool.scores_P.clone()
    assert len(first) == 6
    clips, labels = inputs(rng, 4), torch.arange(4)
    with torch.no_grad():
        model.head.weight.normal_()
    expected = loss.momentum.triplets(clips, labels, "mocorank").scores_N
    loss.observe(clips, model(clips), labels)
    assert torch.equal(loss.pool.scores_P, first)
    loss.after_step(model)
    assert torch.equal(loss.pool.scores_P, torch.cat([first[-2:], expected]))
    assert not torch.equal(loss.momentum.triplets(clips, labels, "mocorank").scores_N, expected)


# ---- the first fill


@pytest.mark.parametrize("sampler", ["shuffled", "class_complete", "windowed"])
@pytest.mark.parametrize("count", [8, 50, 333])
def test_the_first_samples_have_all_levels_in_equal_shares(sampler: str, count: int) -> None:
    labels = np.repeat([0, 1, 2, 3], [3, 20, 100, 40])
    starts = np.array([0, 50, 100, 163])
    drawn = [DrawStream(labels, seed, sampler, 8, starts, 1).equal_shares(count) for seed in (1, 1, 2**63 - 1)]  # type: ignore[arg-type]
    for numbers in drawn:
        counts = np.bincount(labels[numbers], minlength=4)
        assert len(numbers) == count
        assert counts.max() - counts.min() <= 1
        assert np.bincount(numbers[labels[numbers] == 2]).max() <= -(-count // 4 // 100) + 1
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    if sampler == "windowed":
        of_samples = np.searchsorted(starts, drawn[0], side="right")
        assert sum(a != b for a, b in pairwise(of_samples)) == len(np.unique(of_samples)) - 1  # each shard once


# ---- runs


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setitem(MODELS, "scored_tcn", ScoredTcn)
    chosen = ("loop.epochs=1", "loop.global_batch=16", "loop.precision=fp64", "model.name=scored_tcn", "model.hidden=8")
    return with_settings(
        recipe("engagewild"),
        [
            *chosen,
            "model.levels=2",
            "model.dropout=0.2",
            "loss.name=mocorank",
            "loss.pool=37",
            "loss.momentum=0.9",
            "loss.center=0.2",
        ],
    )


def state_of_loss(folder: Path) -> dict[str, torch.Tensor]:
    found = Checkpoints(LocalStore(folder / "checkpoints"), kept=2, scratch=folder / "scratch").find()
    assert found.state is not None
    state: dict[str, torch.Tensor] = read_state(found.state)["loss"]
    return state


def assert_same_state(one: Path, other: Path, tolerance: float) -> None:
    states = [state_of_loss(one), state_of_loss(other)]
    assert states[0].keys() == states[1].keys()
    for name, values in states[0].items():
        assert torch.allclose(values, states[1][name], rtol=tolerance, atol=tolerance), name
    assert len(states[0]["pool.labels_P"]) == 37


@pytest.mark.parametrize("stop", [1, 4])
def test_a_killed_run_goes_on_bit_for_bit(run: RunConfig, feature_shards: Shards, tmp_path: Path, stop: int) -> None:
    run = with_settings(run, ["loop.precision=fp32"])
    whole = run_events(run, feature_shards, tmp_path / "whole")
    first = run_events(run, feature_shards, tmp_path / "stopped", stop_after_step=stop)
    rest = run_events(run, feature_shards, tmp_path / "stopped")
    assert losses(first) + losses(rest) == losses(whole)
    assert_same_state(tmp_path / "whole", tmp_path / "stopped", 0)
    bundles = [load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("whole", "stopped")]
    assert all(torch.equal(values, bundles[1][name]) for name, values in bundles[0].items())
    assert not [name for name in bundles[0] if "momentum" in name or "pool" in name or "centers" in name]


@pytest.mark.parametrize("microbatch", [0, 4])
def test_two_workers_have_the_losses_and_the_pool_of_one(
    run: RunConfig,
    feature_shards: Shards,
    tmp_path: Path,
    microbatch: int,
) -> None:
    together = with_settings(run, [f"loop.microbatch={microbatch}"])
    alone = with_settings(run, [f"loop.microbatch={2 * microbatch}"])  # a global microbatch of the same clips
    one = losses(run_events(alone, feature_shards, tmp_path / "one"))
    two = losses(ddp_events(together, feature_shards, tmp_path / "two", 2, worker=scored_worker))
    assert len(one) == 6
    assert two == pytest.approx(one, rel=1e-9)
    assert_same_state(tmp_path / "one", tmp_path / "two", 1e-9)


def test_microbatches_have_the_losses_and_the_pool_of_the_whole_batch(
    run: RunConfig,
    feature_shards: Shards,
    tmp_path: Path,
) -> None:
    run = with_settings(run, ["model.batch_norm=false"])
    one = losses(run_events(run, feature_shards, tmp_path / "whole"))
    parts = losses(run_events(with_settings(run, ["loop.microbatch=2"]), feature_shards, tmp_path / "parts"))
    assert parts == pytest.approx(one, rel=1e-9)
    assert_same_state(tmp_path / "whole", tmp_path / "parts", 1e-9)


def test_mocorank_learns_to_tell_the_levels_apart(run: RunConfig, feature_shards: Shards, tmp_path: Path) -> None:
    run = with_settings(run, ["loop.epochs=12", "loop.precision=fp32", "optimiser.lr=0.01", "model.dropout=0", "loss.center=0"])
    seen = losses(run_events(run, feature_shards, tmp_path))
    assert sum(seen[-5:]) < 0.7 * sum(seen[:5])


def test_a_compiled_model_is_followed_by_a_bare_copy() -> None:
    model = small_model()
    compiled = torch.compile(model, backend="eager")
    compiled(inputs(np.random.default_rng(0), 2))
    encoder = MomentumEncoder(model, 0.5)
    assert [name for name, _ in encoder.copy.named_parameters()] == [name for name, _ in model.named_parameters()]
    encoder.follow(model)


# ---- what cannot be


def test_a_pool_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss.pool is 3, too small for one clip of each of 4 levels"):
        MocoRank(MocoRankSettings(pool=3), levels())


def test_a_model_without_a_score_is_refused_before_the_first_step(run: RunConfig, feature_shards: Shards, tmp_path: Path) -> None:
    run = with_settings(run, ["model.name=feature_tcn"])
    with pytest.raises(ConfigError, match="the loss mocorank is of scores, and the model gives levels alone"):
        run_events(run, feature_shards, tmp_path)
