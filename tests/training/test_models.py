"""Every model of the registry keeps the contract; the parts equal what the papers say, by hand."""

from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from data_shards.errors import ModelError
from data_shards.reading.loader import ClipInputs
from training.models import MODELS
from training.models.dropout import KeyedDropout
from training.models.frames import normalise
from training.models.resnet import ResNet, load_weights
from training.models.resnet_tcn import ResNetTcnSettings
from training.models.tcn import CausalConv, TemporalConvNet

SMALL: dict[str, object] = {"widths": (4, 8), "blocks": 1}
_MOCORANK: dict[str, object] = {"hidden": 8, "levels": 2, "chunks": 4, "min_rows": 21}
_SEQUENCE = {**_MOCORANK, "openface": "segments", "openface_width": 60, "chunks": 0, "min_rows": 0}
# models by name, and the variants of mocorank that go other ways through its code
CASES: dict[str, dict[str, object]] = {
    **{name: {"name": name} for name in MODELS},
    "feature_tcn segments": {"name": "feature_tcn", "feature": "segments"},
    "mocorank": {"name": "mocorank", **_MOCORANK},
    "mocorank speech": {"name": "mocorank", **_MOCORANK, "speech": True},
    "mocorank attention": {"name": "mocorank", **_MOCORANK, "fusion": "attention", "head": "ordinal", "speech": True},
    "mocorank concat": {"name": "mocorank", **_MOCORANK, "fusion": "concat", "head": "linear", "speech": True},
    "mocorank openface": {"name": "mocorank", **_MOCORANK, "fusion": "openface", "i3d": "none"},
    "mocorank i3d": {"name": "mocorank", "hidden": 8, "fusion": "i3d", "openface": "none", "speech": True},
    "mocorank bilstm": {"name": "mocorank", **_SEQUENCE, "temporal": "bilstm"},
    "mocorank transformer": {"name": "mocorank", **_SEQUENCE, "temporal": "transformer", "heads": 2},
    "mocorank sequence": {"name": "mocorank", **_SEQUENCE, "fusion": "openface", "i3d": "none", "head": "linear"},
}
NO_FACE = ((0, 0), (1, 2), (1, 3))  # clip and row; clip 3 has no face at all


def inputs(clips: int, frames: int = 5, size: int = 32, seed: int = 0) -> ClipInputs:
    """Clips of everything that models read: sequences of different lengths, frames without a face, speech in every other."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (clips, frames, 3, size, size), dtype=torch.uint8, generator=generator)
    features = {
        "openface_15": torch.randn(clips, 15, 60, generator=generator) * 1000,
        "segments": torch.randn(clips, 15, 60, generator=generator) * 1000,
        "openface": torch.randn(clips, 30, 49, generator=generator) * 100,
        "i3d": torch.rand(clips, 1024, generator=generator),
        "speech": torch.randn(clips, 768, generator=generator),
        "acoustics": torch.randn(clips, 9, generator=generator) * 10,
    }
    rows_B = torch.tensor([[30, 9, 17, 24, 3][clip % 5] for clip in range(clips)])
    steps_B = torch.tensor([[15, 4, 11, 7, 1][clip % 5] for clip in range(clips)])
    speaks_B = torch.arange(clips) % 2 == 0
    lengths = {
        "openface_15": torch.full((clips,), 15),
        "segments": steps_B,
        "openface": rows_B,
        "i3d": torch.full((clips,), 1024),
        "speech": speaks_B * 768,
        "acoustics": speaks_B * 9,
    }
    for clip, row_number in NO_FACE:
        if clip < clips:
            features["openface"][clip, row_number] = torch.nan
    features["openface"][3:4] = torch.nan
    for name, lengths_B in lengths.items():
        values = features[name]
        for clip in range(clips):  # as the loader does: what a clip lacks is zeros
            values[clip, int(lengths_B[clip]) :] = 0
        features[name] = values[:, : int(lengths_B.max())]
    return ClipInputs(pixels, torch.arange(clips) * 7919 + 13, features, lengths)


def row(inputs: ClipInputs, clip: int) -> ClipInputs:
    """A clip alone, as the loader would batch it: filled up to its own length only."""
    here = slice(clip, clip + 1)
    lengths = {name: values[here] for name, values in inputs.lengths.items()}
    features = {name: values[here, : int(lengths[name])] for name, values in inputs.features.items()}
    return ClipInputs(inputs.frames_BTCHW[here], inputs.draw_keys_B[here], features, lengths)


def small(case: str):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    settings_type = MODELS[str(CASES[case]["name"])].settings_type
    small = {field: value for field, value in SMALL.items() if field in settings_type.model_fields}
    return MODELS[str(CASES[case]["name"])](settings_type.model_validate({**CASES[case], **small}), 4)


@pytest.mark.parametrize("name", CASES)
class TestEveryModel:
    def test_shapes_range_and_a_batch_of_one(self, name: str) -> None:
        model = small(name).eval()
        for clips in (1, 3):
            output = model(inputs(clips))
            assert output.logits_BK.shape == (clips, 4)
            assert output.embedding_BE.shape[0] == clips
            assert torch.isfinite(output.logits_BK).all()

    def test_every_parameter_gets_a_gradient(self, name: str) -> None:
        model = small(name).train()
        model(inputs(3)).logits_BK.square().sum().backward()
        missing = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
        assert missing == []

    def test_weights_survive_saving(self, name: str, tmp_path: Path) -> None:
        model, again = small(name).eval(), small(name).eval()
        torch.manual_seed(1)
        for parameter in again.parameters():
            torch.nn.init.normal_(parameter)
        again.load_state_dict(model.state_dict())
        assert torch.equal(model(inputs(2)).logits_BK, again(inputs(2)).logits_BK)

    def test_a_clips_answer_does_not_depend_on_its_batch(self, name: str) -> None:
        model = small(name).eval()
        together = model(inputs(4)).logits_BK
        alone = torch.cat([model(row(inputs(4), i)).logits_BK for i in range(4)])
        assert torch.allclose(together, alone, atol=1e-5)

    def test_other_frames_give_another_answer(self, name: str) -> None:
        model = small(name).eval()
        assert not torch.allclose(model(inputs(1, seed=0)).logits_BK, model(inputs(1, seed=1)).logits_BK)


def test_the_frame_baseline_is_blind_to_order_and_the_tcn_is_not() -> None:
    forward = inputs(2)
    backward = forward._replace(frames_BTCHW=forward.frames_BTCHW.flip(1))
    blind, temporal = small("resnet_mean").eval(), small("resnet_tcn").eval()
    assert torch.allclose(blind(forward).logits_BK, blind(backward).logits_BK, atol=1e-5)
    assert not torch.allclose(temporal(forward).logits_BK, temporal(backward).logits_BK, atol=1e-5)


def test_a_segment_without_a_face_and_padding_say_nothing() -> None:
    model, whole = small("feature_tcn segments").train(), inputs(4)
    lost = whole.features["segments"].clone()
    lost[0, 3] = torch.nan
    lost[1, 4:] = 1e6  # behind the clip's own four segments
    output = model(whole._replace(features={**whole.features, "segments": lost}))
    assert torch.isfinite(output.logits_BK).all()
    measured = torch.cat([whole.features["segments"][clip, :own] for clip, own in enumerate((15, 4, 11, 7))])
    measured = torch.cat([measured[:3], measured[4:]])
    compressed = measured.sign() * measured.abs().log1p()
    assert torch.allclose(model.norm.norm.running_mean, 0.1 * compressed.mean(dim=0), atol=1e-5)


def test_the_published_size() -> None:
    model = MODELS["resnet_tcn"](ResNetTcnSettings(), 4)
    # torchvision's resnet18 has 11,689,512 parameters, 513,000 of them in the layer left out
    assert sum(p.numel() for p in model.resnet.parameters()) == 11_689_512 - 513_000
    assert len(model.tcn.blocks) == 8
    assert [block.conv1.conv.dilation for block in model.tcn.blocks] == [(2**i,) for i in range(8)]
    assert {block.conv1.conv.kernel_size for block in model.tcn.blocks} == {(7,)}
    assert {block.dropout1.p for block in model.tcn.blocks} == {0.25}


def test_resnet_has_torchvisions_names() -> None:
    names = set(ResNet((64, 128, 256, 512), 2).state_dict())
    expected = {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight"}
    expected |= {"layer2.0.downsample.1.running_var", "layer4.1.bn2.bias", "layer3.1.conv2.weight"}
    assert expected <= names
    assert len(names) == 120  # torchvision's 122 without fc.weight and fc.bias


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_published_weights_load_without_unpickling(tmp_path: Path, suffix: str) -> None:
    source = ResNet((4, 8), 1)
    weights: dict[str, Tensor] = {**source.state_dict(), "fc.weight": torch.zeros(1000, 8), "fc.bias": torch.zeros(1000)}
    path = tmp_path / f"weights{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    target = ResNet((4, 8), 1)
    load_weights(target, str(path))
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True))


def test_weights_that_cannot_be_had_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resnet = ResNet((4, 8), 1)
    with pytest.raises(ModelError, match="no file"):
        load_weights(resnet, str(tmp_path / "none.pth"))
    (tmp_path / "bad.pth").write_bytes(b"junk")
    with pytest.raises(ModelError, match="cannot be read as a state dict"):
        load_weights(resnet, str(tmp_path / "bad.pth"))
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="does not fit"):
        load_weights(resnet, str(tmp_path / "other.pth"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # its variable is read when it is imported
    with pytest.raises(ModelError, match=r"hf://timm/resnet18\.tv_in1k cannot be fetched .* go online once"):
        load_weights(resnet, "hf://timm/resnet18.tv_in1k")


class TestTcn:
    def test_a_convolution_by_hand(self) -> None:
        conv = CausalConv(1, 1, kernel=3, dilation=2)
        with torch.no_grad():
            conv.conv.parametrizations.weight.original0.fill_(1.0)  # the norm g
            conv.conv.parametrizations.weight.original1.copy_(torch.tensor([[[0.0, 3.0, 4.0]]]))  # the direction v
            conv.conv.bias.fill_(0.5)
        x = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
        # weight = g v / |v| = (0, 0.6, 0.8): y_t = 0.6 x_(t-2) + 0.8 x_t + 0.5, zeros before the start
        expected = [0.8 + 0.5, 1.6 + 0.5, 0.6 + 2.4 + 0.5, 1.2 + 3.2 + 0.5, 1.8 + 4.0 + 0.5]
        assert conv(x)[0, 0].tolist() == pytest.approx(expected)

    def test_no_step_sees_the_future_and_the_last_sees_all_within_reach(self) -> None:
        torch.manual_seed(0)
        tcn = TemporalConvNet(2, 4, levels=3, kernel=3, dropout=0.0).eval()
        for block in tcn.blocks:  # larger weights than the authors' 0.01, so that an influence can be seen
            for conv in (block.conv1, block.conv2):
                conv.conv.parametrizations.weight.original0.data.fill_(2.0)
        x = torch.randn(1, 2, 40, requires_grad=True)
        keys = torch.zeros(1, dtype=torch.int64)
        (gradient,) = torch.autograd.grad(tcn(x, keys)[0, :, 30].sum(), x)
        reached = gradient[0].abs().sum(0).nonzero().flatten().tolist()
        receptive = 1 + 2 * (3 - 1) * (1 + 2 + 4)
        assert max(reached) == 30
        assert min(reached) >= 30 - receptive + 1
        assert min(reached) < 30 - receptive // 2


class TestKeyedDropout:
    def test_rate_and_scale(self) -> None:
        dropout = KeyedDropout(0.25, salt=3).train()
        out = dropout(torch.ones(64, 32, 50), torch.arange(64))
        assert float((out == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
        assert float(out.mean()) == pytest.approx(1.0, abs=0.02)
        assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])

    def test_a_mask_follows_its_key_not_its_place(self) -> None:
        dropout = KeyedDropout(0.5, salt=1).train()
        features, keys = torch.ones(6, 8, 10), torch.tensor([5, 9, 2, 77, 1, 3])
        whole = dropout(features, keys)
        assert torch.equal(whole[3:], dropout(features[3:], keys[3:]))
        assert torch.equal(whole.flip(0), dropout(features, keys.flip(0)))
        assert not torch.equal(whole[0], whole[1])

    def test_layers_do_not_share_masks(self) -> None:
        masks = [KeyedDropout(0.5, salt).train()(torch.ones(1, 8, 50), torch.tensor([42])) for salt in range(4)]
        agreements = [float((masks[i] == masks[j]).float().mean()) for i in range(4) for j in range(i)]
        assert all(0.4 < agreement < 0.6 for agreement in agreements)

    def test_nothing_is_dropped_in_evaluation(self) -> None:
        features = torch.randn(2, 3, 4)
        assert torch.equal(KeyedDropout(0.9, 0).eval()(features, torch.tensor([1, 2])), features)

    def test_the_mask_is_splitmix64s(self) -> None:
        from data_shards.hashing import mix64

        # the torch arithmetic on signed words equals numpy's on unsigned ones
        from training.models.dropout import _mix

        words = np.array([0, 1, -1, 2**62, -(2**63)], dtype=np.int64)
        seeds = words.view(np.uint64)
        ours = _mix(torch.from_numpy(words)).numpy().view(np.uint64)
        expected = [int(mix64((int(seed) - 0x9E3779B97F4A7C15) % 2**64, np.zeros(1, np.int64))[0]) for seed in seeds]
        assert ours.tolist() == expected


class TestFrames:
    def test_normalised_by_imagenets_statistics(self) -> None:
        white = torch.full((1, 1, 3, 2, 2), 255, dtype=torch.uint8)
        values = normalise(white, torch.float32)[0, 0, :, 0, 0]
        assert values.tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rel=1e-5)
