"""CMOSE's model against its paper (Wu et al. 2023): equations 1 to 8 by hand, chunk statistics against plain numpy."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from data_shards.errors import ConfigError
from data_shards.reading.loader import ClipInputs
from tests.training.test_models import inputs, small
from training.models.chunk_statistics import chunk_statistics
from training.models.mocorank import MocoRank, MocoRankSettings
from training.models.row_norm import RowNorm
from training.models.score_head import SCORE_HEADS, CosineHead, OrdinalHead


def naive_statistics(rows: np.ndarray, chunks: int, min_rows: int) -> tuple[np.ndarray, list[bool]]:
    """Chunk by chunk, as the paper says it: repeat, cut, minimum, maximum, variance."""
    repeated = rows
    while len(repeated) < max(min_rows, chunks):
        repeated = np.concatenate([repeated, rows])
    edges = [i * len(repeated) // chunks for i in range(chunks + 1)]
    statistics, seen = [], []
    for start, end in pairwise(edges):
        part = repeated[start:end]
        part = part[~np.isnan(part).all(axis=1)].astype(np.float64)
        seen.append(len(part) > 0)
        numbers = [part.min(axis=0), part.max(axis=0), part.var(axis=0)] if seen[-1] else [np.zeros(rows.shape[1])] * 3
        statistics.append(np.concatenate(numbers))
    return np.array(statistics), seen


@pytest.mark.parametrize(("chunks", "min_rows"), [(1, 0), (4, 0), (7, 0), (16, 251), (5, 40)])
def test_chunk_statistics_are_those_of_plain_numpy(chunks: int, min_rows: int) -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(length, 5)).astype(np.float32) * np.logspace(0, 3, 5) for length in (300, 251, 250, 17, 3, 1)]
    clips[0][40:75] = np.nan
    clips[3][0] = np.nan
    clips[5][0] = np.nan  # nobody in the whole clip
    padded = np.zeros((len(clips), 300, 5), dtype=np.float64)
    for row, clip in enumerate(clips):
        padded[row, : len(clip)] = clip
    lengths_B = torch.tensor([len(clip) for clip in clips])
    ps_BTF, seen_BT = chunk_statistics(torch.from_numpy(padded), lengths_B, chunks=chunks, min_rows=min_rows)
    for row, clip in enumerate(clips):
        expected, seen = naive_statistics(clip, chunks, min_rows)
        np.testing.assert_allclose(ps_BTF[row].numpy(), expected, rtol=1e-9, atol=1e-9)
        assert seen_BT[row].tolist() == seen
    assert not seen_BT[5].any()


def test_a_clip_is_repeated_until_it_has_more_than_250_frames() -> None:
    # 100 rows three times are 300, in 3 chunks the clip itself each; 251 rows are not repeated
    ramp = torch.arange(251.0).view(1, -1, 1)
    short, _ = chunk_statistics(ramp[:, :100], torch.tensor([100]), chunks=3, min_rows=251)
    assert short[0, :, 0].tolist() == [0, 0, 0]
    assert short[0, :, 1].tolist() == [99, 99, 99]
    whole, _ = chunk_statistics(ramp, torch.tensor([251]), chunks=1, min_rows=251)
    assert whole[0, 0].tolist() == pytest.approx([0, 250, np.arange(251).var()])


def test_equations_1_to_4_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MocoRankSettings(hidden=2, i3d_width=2, openface_width=1, levels=1, dropout=0.0)
    model = MocoRank(settings, 4).eval()
    x_tcn_BCT = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]]])  # X_TCN, C = 2, T = 3
    real_BT = torch.ones(1, 3, dtype=torch.bool)
    monkeypatch.setattr(model.visual, "_over_time", lambda inputs: (x_tcn_BCT, real_BT))
    assert model.visual.mlp1 is not None
    assert isinstance(model.visual.mlp2, torch.nn.Sequential)
    assert isinstance(model.visual.head, CosineHead)
    identity, zero = torch.eye(2), torch.zeros(2)
    for layer in (model.visual.mlp1.first, model.visual.mlp1.last, model.visual.mlp2[0], model.visual.mlp2[2]):
        layer.weight.data, layer.bias.data = identity.clone(), zero.clone()
    model.visual.head.weight.data = torch.tensor([3.0, 0.0, 0.0, 4.0])
    i3d = torch.tensor([[0.5, 1.0]])  # MLP1 and MLP2 leave it as it is
    output = model(ClipInputs(torch.empty(1, 0, 3, 0, 0), torch.zeros(1, dtype=torch.int64), {"i3d": i3d}))
    # (1) the product with each of the three steps is 0.5, 3 and 2
    attention = np.exp([0.5, 3.0, 2.0]) / np.exp([0.5, 3.0, 2.0]).sum()
    # (2) and (3)
    x = np.array([0.5, 1.0, attention[0] + 2 * attention[2], 3 * attention[1] + attention[2]])
    assert output.embedding_BE[0].tolist() == pytest.approx(x.tolist(), rel=1e-6)
    # (4) the cosine with (3, 0, 0, 4)
    s = (3 * x[0] + 4 * x[3]) / (5 * np.linalg.norm(x))
    assert output.scores_B is not None
    assert output.scores_B.item() == pytest.approx(s, rel=1e-6)


def test_equations_5_to_8_for_clips_with_speech_and_the_visual_score_for_others() -> None:
    model = small("mocorank speech").eval()
    batch = inputs(4)  # clips 0 and 2 speak
    output = model(batch)
    visual_BE = model.visual(batch)
    _, visual_scores_B = model.visual.head(visual_BE)
    speech = torch.nn.functional.linear(batch.features["speech"], model.audio.fc.weight, model.audio.fc.bias)
    acoustics = batch.features["acoustics"][:, :7] / (1 + 1e-5) ** 0.5  # untrained: mean 0, variance 1
    joint_BE = torch.cat([visual_BE, speech, acoustics], dim=1)
    expected = torch.cosine_similarity(joint_BE, model.audio.head.weight.expand_as(joint_BE))
    assert output.scores_B is not None
    assert torch.allclose(output.scores_B[::2], expected[::2], atol=1e-6)
    assert torch.equal(output.scores_B[1::2], visual_scores_B[1::2])
    assert output.embedding_BE.shape == (4, 2 * 8 + 768 + 7)
    assert torch.equal(output.embedding_BE[1::2, 16:], torch.zeros(2, 775))
    assert torch.allclose(output.embedding_BE[::2], joint_BE[::2], atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_in_which_nobody_speaks_has_an_answer_and_gradients(training: bool) -> None:
    model = small("mocorank speech").train(training)
    batch = inputs(4)
    nobody = {"speech": torch.zeros(4, 0), "acoustics": torch.zeros(4, 0)}
    none_B = torch.zeros(4, dtype=torch.int64)
    silent = batch._replace(
        features={**batch.features, **nobody}, lengths={**batch.lengths, "speech": none_B, "acoustics": none_B}
    )
    output = model(silent)
    assert torch.isfinite(output.logits_BK).all()
    assert not output.embedding_BE[:, 16:].any()
    output.logits_BK.sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert torch.isfinite(model.audio.norm.norm.running_var).all()
    one = batch._replace(lengths={**batch.lengths, "speech": torch.tensor([768, 0, 0, 0])})
    model(one)  # one clip alone has no variance: it does not move the statistics
    assert model.audio.norm.norm.running_var.tolist() == [1.0] * 7


def test_what_was_not_measured_moves_no_batch_statistic() -> None:
    norm, plain = RowNorm(3).train(), torch.nn.BatchNorm1d(3).train()
    x = torch.randn(4, 5, 3) * 10
    measured = torch.rand(4, 5) > 0.3
    x[~measured] = 1e6
    out = norm(x, measured)
    assert torch.equal(out[measured], plain(x[measured]))
    assert not out[~measured].any()
    assert torch.equal(norm.norm.running_mean, plain.running_mean)


def test_cosine_levels_are_the_papers_thresholds_at_any_temperature() -> None:
    head = CosineHead(2, 4)
    head.weight.data = torch.tensor([1.0, 0.0])
    scores = torch.tensor([-1.0, -0.51, -0.49, -0.01, 0.01, 0.49, 0.51, 1.0])
    embedding_BE = torch.stack([scores, (1 - scores**2).sqrt()], dim=1) * 17.0
    logits_BK, scores_B = head(embedding_BE)
    assert torch.allclose(scores_B, scores, atol=1e-6)
    expected = torch.bucketize(scores, torch.tensor([-0.5, 0.0, 0.5]))
    for temperature in (0.05, 1.0, 20.0):
        assert torch.equal((logits_BK / temperature).argmax(dim=1), expected)
    # sigma is 1 / K: one level's width from the centre is two deviations
    assert (logits_BK[0, 0] - logits_BK[0, 1]).item() == pytest.approx((0.75**2 - 0.25**2) * 16 / 2)


def test_the_ordinal_head_is_mccullaghs_and_safe_far_out() -> None:
    head = OrdinalHead(1, 4).double()
    head.weight.data = torch.ones(1, dtype=torch.float64)
    thresholds = np.log(np.array([0.25, 0.5, 0.75]) / np.array([0.75, 0.5, 0.25]))
    places = torch.tensor([[-2.0], [0.0], [0.7], [800.0], [-800.0]], dtype=torch.float64, requires_grad=True)
    logits_BK, scores_B = head(places)
    cumulative = 1 / (1 + np.exp(-(thresholds - places.detach().numpy()[:3])))
    expected = np.diff(np.concatenate([np.zeros((3, 1)), cumulative, np.ones((3, 1))], axis=1), axis=1)
    np.testing.assert_allclose(logits_BK[:3].exp().detach().numpy(), expected, rtol=1e-6)
    assert logits_BK[1].exp().tolist() == pytest.approx([0.25] * 4)
    assert torch.isfinite(logits_BK).all()
    assert logits_BK[3, 0].item() == pytest.approx(-800, rel=0.01)
    assert (scores_B[3].item(), scores_B[4].item()) == pytest.approx((1.0, -1.0))
    logits_BK.sum().backward()
    assert places.grad is not None
    assert torch.isfinite(places.grad).all()


@pytest.mark.parametrize("head", SCORE_HEADS)
@pytest.mark.parametrize("num_levels", [2, 3, 4])
def test_every_head_scores_in_range_and_in_order(head: str, num_levels: int) -> None:
    torch.manual_seed(0)
    logits_BK, scores_B = SCORE_HEADS[head](6, num_levels)(torch.randn(50, 6))
    assert logits_BK.shape == (50, num_levels)
    assert scores_B.min() >= -1
    assert scores_B.max() <= 1
    if head != "linear":  # one number decides: a higher score never means a lower level
        levels = logits_BK.argmax(dim=1)[scores_B.argsort()]
        assert (levels.diff() >= 0).all()


@pytest.mark.parametrize("case", ["mocorank speech", "mocorank bilstm", "mocorank transformer", "mocorank attention"])
def test_bfloat16_autocast_gives_nearly_the_same(case: str) -> None:
    model = small(case).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(inputs(4))
    assert torch.isfinite(rough.logits_BK).all()
    assert torch.allclose(rough.scores_B.float(), model(inputs(4)).scores_B, atol=0.03)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(inputs(4)).logits_BK.float().sum().backward()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"openface": "none"}, "fusion 'i3d' is for openface 'none'"),
        ({"i3d": "none"}, "fusion 'openface' is for i3d 'none'"),
        ({"fusion": "openface"}, "fusion 'openface' is for i3d 'none'"),
        ({"openface": "none", "i3d": "none", "fusion": "i3d"}, "fusion 'openface' is for i3d 'none'"),
        ({"temporal": "bilstm", "hidden": 7}, "even number"),
        ({"temporal": "transformer", "hidden": 10}, "multiple of heads"),
        ({"temporal": "bilstm", "kernel": 5}, "kernel has no effect here: the temporal part is a bilstm"),
        ({"temporal": "tcn", "heads": 8}, "heads has no effect here: the temporal part is a tcn"),
        ({"chunks": 0, "min_rows": 100}, "min_rows has no effect here: chunks is 0"),
        ({"openface": "none", "fusion": "i3d", "levels": 4}, "levels has no effect here: the fusion is i3d"),
        ({"openface": "none", "fusion": "i3d", "chunks": 8}, "chunks has no effect here: the fusion is i3d"),
    ],
)
def test_what_cannot_apply_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        MocoRankSettings.model_validate(settings)


def test_features_of_other_widths_are_refused() -> None:
    batch, model = inputs(2), small("mocorank speech").eval()
    for name, shape, sentence in (
        ("openface", (2, 30, 48), "'openface' is 30x48 a clip in the data, and model.openface_width is 49"),
        ("i3d", (2, 400), "'i3d' is 400 a clip in the data, and model.i3d_width is 1024"),
        ("speech", (2, 1024), "'speech' is 1024 a clip in the data, the model reads 768"),
        ("acoustics", (2, 5), "'acoustics' is 5 a clip in the data, the model reads 7"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            model(batch._replace(features={**batch.features, name: torch.zeros(shape)}))


def test_inputs_follow_from_the_settings() -> None:
    assert MocoRank.inputs_of(MocoRankSettings()) == ("openface", "i3d")
    assert MocoRank.optional_of(MocoRankSettings()) == ()
    assert MocoRank.optional_of(MocoRankSettings(speech=True)) == ("speech", "acoustics")
    assert MocoRank.inputs_of(MocoRankSettings(openface="none", fusion="i3d")) == ("i3d",)


@pytest.mark.parametrize("head", ["cosine", "linear", "ordinal"])
def test_an_added_audio_part_begins_as_the_visual_score(head: str) -> None:
    torch.manual_seed(0)
    settings = MocoRankSettings(hidden=8, chunks=4, head=head)
    visual, whole = MocoRank(settings, 4), MocoRank(settings.model_copy(update={"speech": True}), 4)
    fresh = [name for name, _ in whole.named_parameters() if name.startswith("audio.")]
    whole.load_state_dict(visual.state_dict(), strict=False)
    features = {"openface": torch.randn(6, 30, 49), "i3d": torch.randn(6, 1024)}
    spoken = features | {"speech": torch.randn(6, 768), "acoustics": torch.randn(6, 8)}
    batch = ClipInputs(torch.empty(6, 0, 3, 0, 0, dtype=torch.uint8), torch.arange(6), spoken)
    before = whole.eval()(batch)
    whole.begin_parts(fresh)
    after, alone = whole(batch), visual.eval()(batch._replace(features=features))
    assert (before.scores_B - alone.scores_B).abs().max() > 0.01
    torch.testing.assert_close(after.scores_B, alone.scores_B, atol=2e-3, rtol=0)
    whole.train()(batch).scores_B.sum().backward()
    assert whole.audio.fc.weight.grad.abs().sum() > 0  # what begins as nothing is trained all the same
    assert whole.audio.norm.norm.weight.grad.abs().sum() > 0
