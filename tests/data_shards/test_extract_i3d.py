"""I3D: the public port's names and padding, windows that add up, and no features that only look like some."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data_shards.errors import ConfigError
from data_shards.extraction import EXTRACTORS
from data_shards.extraction.contract import ClipMaterial
from data_shards.extraction.extract import extract_features
from data_shards.extraction.flow import OpticalFlow
from data_shards.extraction.i3d import WEIGHTS_VARIABLE, I3d, I3dSettings
from data_shards.extraction.inception import InceptionI3d, SameMaxPool3d, Unit3d, same_padding
from data_shards.storage.store import file_sha256

SMALL = {"short_side_px": 40, "crop_px": 32, "clip_frames": 16, "random_init": True}
CLIP = ClipMaterial(name="made up")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """A state dict as the port saves it, its batch norms off their beginning, with a classifier."""
    torch.manual_seed(5)
    network = InceptionI3d()
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "bn.bias")):
            tensor.normal_(0, 0.1)
        elif name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.8, 1.2)
    return {
        **network.state_dict(),
        "logits.conv3d.weight": torch.zeros(400, 1024, 1, 1, 1),
        "logits.conv3d.bias": torch.zeros(400),
    }


@pytest.fixture(scope="module")
def small() -> I3d:
    return I3d(I3dSettings(**SMALL))


def frames_of(seed: int, num_frames: int, height_px: int = 48, width_px: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height_px, width_px, 3), dtype=np.uint8)


def read(extractor: I3d, frames: np.ndarray, portion: int = 16) -> np.ndarray | None:
    reading = extractor.read(CLIP, None)
    for begin in range(0, len(frames), portion):
        reading.see(frames[begin : begin + portion], np.arange(begin, min(begin + portion, len(frames))) / 25)
    return reading.finish()


def test_the_names_and_shapes_are_the_ports() -> None:
    """Written from pytorch_i3d.py of piergiaj/pytorch-i3d: each unit's name, inputs, outputs and kernel."""
    units = {"Conv3d_1a_7x7": (3, 64, 7), "Conv3d_2b_1x1": (64, 64, 1), "Conv3d_2c_3x3": (64, 192, 3)}
    inputs = 192
    for name, outputs in {
        "3b": [64, 96, 128, 16, 32, 32], "3c": [128, 128, 192, 32, 96, 64], "4b": [192, 96, 208, 16, 48, 64],
        "4c": [160, 112, 224, 24, 64, 64], "4d": [128, 128, 256, 24, 64, 64], "4e": [112, 144, 288, 32, 64, 64],
        "4f": [256, 160, 320, 32, 128, 128], "5b": [256, 160, 320, 32, 128, 128], "5c": [384, 192, 384, 48, 128, 128],
    }.items():  # fmt: skip
        sources = {"b0": (inputs, 1), "b1a": (inputs, 1), "b1b": (outputs[1], 3), "b2a": (inputs, 1), "b2b": (outputs[3], 3)}
        for (branch, (source, kernel)), width in zip({**sources, "b3b": (inputs, 1)}.items(), outputs, strict=True):
            units[f"Mixed_{name}.{branch}"] = (source, width, kernel)
        inputs = outputs[0] + outputs[2] + outputs[4] + outputs[5]
    expected: dict[str, tuple[int, ...]] = {}
    for name, (source, width, kernel) in units.items():
        expected[f"{name}.conv3d.weight"] = (width, source, kernel, kernel, kernel)
        expected |= {f"{name}.bn.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{name}.bn.num_batches_tracked"] = ()
    network = InceptionI3d()
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_287_264
    assert {(norm.eps, norm.momentum) for norm in network.modules() if isinstance(norm, torch.nn.BatchNorm3d)} == {(0.001, 0.01)}
    assert InceptionI3d(2).state_dict()["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 2, 7, 7, 7)


def test_the_shapes_between_are_the_papers() -> None:
    network = InceptionI3d().eval()
    seen = {}
    for name, layer in network.named_children():
        layer.register_forward_hook(lambda _layer, _given, out, name=name: seen.update({name: tuple(out.shape[1:])}))
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 16, 112, 96)).shape == (1, 1024)
    assert seen["Conv3d_1a_7x7"] == (64, 8, 56, 48)
    assert seen["MaxPool3d_3a_3x3"] == (192, 8, 14, 12)
    assert seen["MaxPool3d_4a_3x3"] == (480, 4, 7, 6)
    assert seen["Mixed_5c"] == (1024, 2, 4, 3)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 8, 15, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 2), (2, 2), (3, 1), (1, 1)])
def test_same_padding_is_the_ports(size: int, kernel: int, stride: int) -> None:
    total = max(kernel - (stride if size % stride == 0 else size % stride), 0)  # compute_pad of the port
    assert same_padding([size], [kernel], [stride]) == [(total // 2, total - total // 2)]
    assert (size + total - kernel) // stride + 1 == math.ceil(size / stride)


@pytest.mark.parametrize("sizes", [(4, 6, 5), (5, 7, 8)])
def test_units_pad_as_tensorflow_does(sizes: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    x = torch.rand(1, 2, *sizes)
    unit = Unit3d(2, 3, (3, 3, 3), (2, 2, 2)).eval()
    pool = SameMaxPool3d((3, 3, 3), (2, 2, 2))
    spans = [[max((math.ceil(n / 2) - 1) * 2 + 3 - n, 0) // 2] for n in sizes]
    steps = [range(math.ceil(n / 2)) for n in sizes]
    convolved, largest = torch.zeros(3, *map(len, steps)), torch.zeros(2, *map(len, steps))
    for at in np.ndindex(*map(len, steps)):
        box = torch.zeros(2, 3, 3, 3)
        for offset in np.ndindex(3, 3, 3):
            t, h, w = (2 * a + o - before[0] for a, o, before in zip(at, offset, spans, strict=True))
            if 0 <= t < sizes[0] and 0 <= h < sizes[1] and 0 <= w < sizes[2]:
                box[(slice(None), *offset)] = x[0, :, t, h, w]
        convolved[(slice(None), *at)] = (unit.conv3d.weight * box).sum(dim=(1, 2, 3, 4))
        largest[(slice(None), *at)] = box.amax(dim=(1, 2, 3))
    with torch.inference_mode():
        assert torch.allclose(unit(x)[0], (convolved / math.sqrt(1 + 0.001)).relu(), atol=1e-5)
        assert torch.equal(pool(x)[0], largest)


def test_the_features_are_the_ports_average_of_averages() -> None:
    network = InceptionI3d().eval()
    last = {}
    network.Mixed_5c.register_forward_hook(lambda _layer, _given, out: last.update(out=out))
    with torch.inference_mode():
        features = network(torch.rand(1, 3, 24, 32, 32) * 2 - 1)
    steps = last["out"][0].mean(dim=(2, 3))  # 1024 x 3: the pool over pairs of steps counts the middle one twice
    assert steps.shape == (1024, 3)
    assert torch.allclose(features[0], (steps[:, 0] + 2 * steps[:, 1] + steps[:, 2]) / 4, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("file", ["rgb_imagenet.pt", "old.pt", "rgb.safetensors"])
def test_weights_go_through_a_file(
    file: str, weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / file
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:  # the port's files of 2017 have the old format, and batch norms without a count
        old = {name: tensor for name, tensor in weights.items() if file != "old.pt" or "num_batches" not in name}
        torch.save(old, path, _use_new_zipfile_serialization=file != "old.pt")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(path))
    extractor = I3d(I3dSettings(**{**SMALL, "random_init": False}))
    assert extractor.about["weights_sha256"] == file_sha256(path)
    plain = InceptionI3d().eval()
    plain.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("logits.")})
    frames = frames_of(0, 16, 32, 32)
    with torch.inference_mode():
        expected = plain(torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1)[0].numpy()
    found = extractor.features(torch.from_numpy(frames).permute(0, 3, 1, 2)[None])[0]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()  # batch norms are folded: float32 rounds otherwise


def test_weights_of_something_else_are_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unsafe:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("unpickled",)

    torch.save(InceptionI3d(2).state_dict(), tmp_path / "flow.pt")
    torch.save({name: tensor for name, tensor in weights.items() if "5c.b3b" not in name}, tmp_path / "part.pt")
    torch.save(Unsafe(), tmp_path / "unsafe.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    faults = {
        "none.pt": "no file", "flow.pt": "does not fit an I3D of 3 channels", "part.pt": "does not fit",
        "unsafe.pt": "cannot be read", "list.pt": "cannot be read", "torn.safetensors": "cannot be read",
    }  # fmt: skip
    for file, fault in faults.items():
        monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / file))
        with pytest.raises(ConfigError, match=fault):
            I3d(I3dSettings())


def test_without_weights_it_refuses_to_pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=r"RAPT_I3D_WEIGHTS.*random_init=true"):
        EXTRACTORS["i3d"](I3dSettings())
    with pytest.raises(ValueError, match="lower crop_px"):
        I3dSettings(crop_px=256, short_side_px=224)


def test_random_weights_follow_from_the_seed_and_say_so(small: I3d) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again, other = I3d(I3dSettings(**SMALL)), I3d(I3dSettings(**SMALL, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    frames = frames_of(0, 16)
    assert np.array_equal(read(small, frames), read(again, frames))
    assert not np.allclose(read(small, frames), read(other, frames))
    assert small.about["weights"] == "random, seed 0: features without meaning"
    assert "weights_sha256" not in small.about


def test_windows_are_averaged_by_their_lengths() -> None:
    extractor = I3d(I3dSettings(**{**SMALL, "clip_frames": 20}))
    frames = frames_of(1, 20 + 20 + 17, 48, 40)  # 40 on the shorter side already: the centre is cut out, nothing scaled
    middle = torch.from_numpy(frames[:, 8:40, 4:36]).permute(0, 3, 1, 2)
    first, second, rest = (extractor.features(middle[begin:end][None])[0] for begin, end in ((0, 20), (20, 40), (40, 57)))
    found = read(extractor, frames, portion=13)
    assert np.allclose(found, (20 * first + 20 * second + 17 * rest) / 57, rtol=1e-5, atol=1e-5)
    assert np.allclose(read(extractor, frames[:55]), (first + second) / 2, rtol=1e-5, atol=1e-5)  # 15 frames are left out


def test_windows_at_once_are_as_windows_one_by_one(small: I3d) -> None:
    frames = frames_of(2, 3 * 16 + 3)
    one = read(small, frames)
    found = read(I3d(I3dSettings(**SMALL, batch_windows=2)), frames)
    assert np.abs(found - one).max() < 1e-5 * np.abs(one).max()  # a batch is summed in another order


def test_a_short_clip_is_repeated(small: I3d) -> None:
    frames = frames_of(3, 5)
    expected = read(small, np.concatenate([frames] * 4)[:16])
    assert np.array_equal(read(small, frames), expected)
    nothing = small.read(CLIP, None)
    assert (nothing.finish(), nothing.lacking) == (None, "no frame")


def test_memory_is_of_a_window_however_long_the_clip(small: I3d) -> None:
    reading = small.read(CLIP, None)
    for _ in range(3):
        reading.see(frames_of(4, 17), np.zeros(16))
        assert 0 < len(reading._pictures_CHW) < 16
        assert all(picture.untyped_storage().nbytes() == 3 * 32 * 32 for picture in reading._pictures_CHW)


def test_bfloat16_is_near(small: I3d) -> None:
    frames = frames_of(5, 16)
    exact, rough = read(small, frames), read(I3d(I3dSettings(**SMALL, precision="bfloat16")), frames)
    assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()


def texture(seed: int, height_px: int, width_px: int) -> np.ndarray:
    """A picture smooth enough to be followed."""
    noise = torch.rand(1, 1, height_px // 4, width_px // 4, generator=torch.Generator().manual_seed(seed))
    grey = torch.nn.functional.interpolate(noise, size=(height_px, width_px), mode="bicubic")[0, 0].clamp(0, 1)
    return np.repeat((grey * 255).to(torch.uint8).numpy()[..., None], 3, axis=-1)


@pytest.mark.parametrize("method", ["tvl1", "dis"])
def test_flow_points_where_the_picture_goes(method: str) -> None:
    flow = OpticalFlow(method)
    before = texture(0, 64, 80)
    assert flow.next(before) is None
    right_and_up = flow.next(np.roll(before, (-1, 2), axis=(0, 1)))
    assert right_and_up.shape == (64, 80, 2)
    assert np.allclose(np.median(right_and_up, axis=(0, 1)), (2, -1), atol=0.2)


def test_the_flow_stream_sees_flow() -> None:
    extractor = I3d(I3dSettings(**{**SMALL, "stream": "flow", "flow": "dis"}))
    still, picture = frames_of(6, 1), texture(1, 48, 64)
    moving = np.stack([np.roll(picture, step, axis=1) for step in range(17)])
    features = read(extractor, moving)
    assert features.shape == (1024,)
    assert np.isfinite(features).all()
    # what moves on for ever to the right gives the same flow in every frame, wherever the portions end
    assert np.array_equal(features, read(extractor, moving, portion=5))
    assert not np.allclose(features, read(extractor, moving[::-1].copy()))
    nothing = extractor.read(CLIP, None)
    nothing.see(still, np.zeros(1))
    assert (nothing.finish(), nothing.lacking) == (None, "a single frame, which has no flow")


def test_flow_is_cut_and_scaled(small: I3d) -> None:
    extractor = I3d(I3dSettings(**{**SMALL, "stream": "flow"}))
    seen = []
    extractor.network.register_forward_pre_hook(lambda _network, given: seen.append(given[0]))
    flow = torch.zeros(1, 16, 2, 32, 32)
    flow[0, 3, 0], flow[0, 3, 1] = 5.0, -300.0
    extractor.features(flow)
    assert seen[0].shape == (1, 2, 16, 32, 32)
    assert (seen[0][0, 0, 3] == 0.25).all()
    assert (seen[0][0, 1, 3] == -1).all()
    assert flow.min() == -300  # the caller's own is left alone


def test_a_real_clip_gives_1024_numbers(real_data: Path) -> None:
    clip = ClipMaterial(name="bbaf2n", video=real_data / "videos" / "bbaf2n.mpg")
    extractor = I3d(I3dSettings(fps=12.5, clip_frames=32, short_side_px=128, crop_px=112, random_init=True))
    found = extract_features(clip, {"i3d": extractor})
    assert found.lacking == {}
    assert found.features["i3d"].shape == (1024,)
    assert np.isfinite(found.features["i3d"]).all()
    assert found.features["i3d"].std() > 0.1
