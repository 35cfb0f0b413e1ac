"""Pretrained encoders: the features are those of transformers itself, from safetensors alone, and never half loaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from data_shards.decode import decode_clip
from data_shards.decode_stream import StreamInfo
from data_shards.errors import ConfigError
from data_shards.extraction import EXTRACTORS
from data_shards.extraction.contract import ClipMaterial
from data_shards.extraction.encoder import VideoEncoder, VideoEncoderSettings
from data_shards.extraction.extract import extract_features
from data_shards.extraction.hugging_face import ENCODERS_VARIABLE, load_encoder, load_tokenizer
from data_shards.extraction.pictures import PictureTransform
from data_shards.storage.store import file_sha256

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PATCHES = {"image_size": 32, "patch_size": 8}
NORMALISED = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CROPPED = {"do_resize": True, "size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
PREPARED = {**NORMALISED, **CROPPED, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
CLIP = ClipMaterial(name="made up")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model at random of each family, saved by transformers as its authors save theirs: with their heads."""
    import transformers as hf

    hf.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("encoders")
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    videomae = hf.VideoMAEConfig(num_frames=4, decoder_intermediate_size=16, **decoder, **PATCHES, **SMALL)
    words = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, **SMALL}
    torch.manual_seed(0)
    made = {
        "lab/videomae": hf.VideoMAEForPreTraining(videomae),
        "lab/vivit": hf.VivitForVideoClassification(hf.VivitConfig(image_size=32, tubelet_size=[2, 8, 8], num_frames=4, **SMALL)),
        "lab/dinov2": hf.Dinov2Model(hf.Dinov2Config(**PATCHES, **SMALL)),
        "lab/clip": hf.CLIPModel(hf.CLIPConfig(vision_config={**PATCHES, **SMALL}, text_config=words)),
        "lab/vit": hf.ViTModel(hf.ViTConfig(**PATCHES, **SMALL)),
        "bert": hf.BertModel(hf.BertConfig(vocab_size=7, **SMALL)),
    }
    for name, model in made.items():
        model.save_pretrained(folder / name)
        (folder / name / "preprocessor_config.json").write_text(json.dumps(PREPARED))
    (folder / "bert" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]))
    return folder


@pytest.fixture(autouse=True)
def nowhere_else(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models here and an empty cache; the hub is never asked, as HF_HUB_OFFLINE says to it when it is imported."""
    import huggingface_hub

    monkeypatch.setenv(ENCODERS_VARIABLE, str(models))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def encoder(name: str, **settings: Any) -> VideoEncoder:
    return VideoEncoder(VideoEncoderSettings(model=f"lab/{name}", **settings))


def pictures(num_frames: int) -> torch.Tensor:
    return torch.rand(num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 4 - 2


def test_features_are_those_of_the_library(models: Path) -> None:
    import transformers as hf

    with torch.inference_mode():
        video, images = pictures(4), pictures(16)
        mae = hf.VideoMAEModel.from_pretrained(models / "lab/videomae").eval()(pixel_values=video[None])
        assert np.allclose(encoder("videomae").features(video), mae.last_hidden_state[0].mean(0).numpy(), atol=1e-6)
        vivit = hf.VivitModel.from_pretrained(models / "lab/vivit").eval()(pixel_values=video[None])
        assert np.allclose(encoder("vivit").features(video), vivit.last_hidden_state[0, 0].numpy(), atol=1e-6)
        dino = hf.Dinov2Model.from_pretrained(models / "lab/dinov2").eval()(pixel_values=images)
        assert np.allclose(encoder("dinov2").features(images), dino.pooler_output.mean(0).numpy(), atol=1e-6)
        clip = hf.CLIPModel.from_pretrained(models / "lab/clip").eval().vision_model(pixel_values=images)
        assert np.allclose(encoder("clip").features(images), clip.pooler_output.mean(0).numpy(), atol=1e-6)
        half = encoder("dinov2", precision="bfloat16").features(images)
        assert 0 < np.abs(half - dino.pooler_output.mean(0).numpy()).max() < 0.05


def test_what_the_manifest_says(models: Path) -> None:
    for name, pooling, num_frames in [("videomae", "mean_of_tokens", 4), ("vivit", "first_token", 4), ("clip", "pooled", 16)]:
        about = encoder(name).about
        assert about["weights_sha256"] == file_sha256(models / "lab" / name / "model.safetensors")
        assert (about["features"], about["pooling"], about["num_frames"]) == (32, pooling, num_frames)
        assert str(models) not in json.dumps(about)
    assert not any(parameter.requires_grad for parameter in encoder("vivit").network.parameters())


def test_a_clip_is_seen_at_the_centres_of_equal_parts() -> None:
    shown = StreamInfo(fps=10, duration_s=2.0, num_frames=20, width_px=40, height_px=40)
    frames = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
    extractor = encoder("videomae")
    expected = extractor.features(torch.stack([extractor.prepare(frames[number]) for number in (2, 7, 12, 17)]))
    for portion in (1, 7, 20):
        reading = extractor.read(CLIP, shown)
        for begin in range(0, 20, portion):
            reading.see(frames[begin : begin + portion], (np.arange(begin, min(20, begin + portion)) + 0.5) / 10)
        assert np.array_equal(reading.finish(), expected), portion
    alone = extractor.read(CLIP, StreamInfo(fps=10, duration_s=0.1, num_frames=1, width_px=40, height_px=40))
    alone.see(frames[:1], np.full(1, 0.05))
    assert np.array_equal(alone.finish(), extractor.features(torch.stack([extractor.prepare(frames[0])] * 4)))
    nothing = extractor.read(CLIP, shown)
    assert (nothing.finish(), nothing.lacking) == (None, "no frame")


def test_a_real_clip(real_data: Path) -> None:
    clip = ClipMaterial(name="bbaf2n", video=real_data / "videos" / "bbaf2n.mpg")
    extractor = encoder("vivit", fps=25.0)
    features = extract_features(clip, {"videomae": extractor}).features["videomae"]
    decoded = decode_clip(clip.video, num_frames=4, frame_size=lambda width_px, height_px: (width_px, height_px))
    expected = extractor.features(torch.stack([extractor.prepare(frame) for frame in decoded.frames_THWC]))
    assert np.array_equal(features, expected)


@pytest.mark.parametrize("size", [(64, 48), (37, 59), (59, 37)])
def test_pictures_are_prepared_as_by_transformers(size: tuple[int, int], tmp_path: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    from transformers.models.vivit.image_processing_vivit import VivitImageProcessor

    frame = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    made = [
        CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
        ViTImageProcessorPil(size={"height": 30, "width": 34}),
        VideoMAEImageProcessorPil(size={"shortest_edge": 33}, crop_size={"height": 32, "width": 32}),
        VivitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
    ]
    for processor in made:
        processor.save_pretrained(tmp_path)
        said = json.loads((tmp_path / "preprocessor_config.json").read_text())
        assert said["image_mean"]
        expected = torch.as_tensor(np.array(processor(Image.fromarray(frame), return_tensors="np")["pixel_values"])).squeeze()
        found = PictureTransform.from_folder(tmp_path, "lab/any")(frame)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-5, type(processor).__name__


def test_numbers_alone_for_sizes_and_no_word_at_all(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**PREPARED, "size": 36, "crop_size": 32}))  # as OpenAI's CLIP has it
    frame = np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    old = PictureTransform.from_folder(tmp_path, "lab/any")(frame)
    file.write_text(json.dumps(PREPARED))
    assert torch.equal(old, PictureTransform.from_folder(tmp_path, "lab/any")(frame))
    for wrong in ("{}", "torn", "[]"):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=r"lab/any: its preprocessor_config\.json does not say"):
            PictureTransform.from_folder(tmp_path, "lab/any")


def test_what_is_not_here_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"no/such: not in the cache.*go online once.*RAPT_ENCODERS"):
        EXTRACTORS["videomae"](VideoEncoderSettings(model="no/such"))
    for path in ("/tmp/model", "../model", "a/b/c", "a/..", ""):
        with pytest.raises(ConfigError, match="not a name like OWNER/NAME"):
            load_encoder(path)


def test_a_cached_model_needs_no_network(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "cache" / "models--lab--videomae"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(models / "lab" / "videomae")
    monkeypatch.delenv(ENCODERS_VARIABLE)
    assert encoder("videomae").about["features"] == 32
    with pytest.raises(ConfigError, match="lab/vivit: not in the cache"):
        encoder("vivit")


def test_a_file_that_lacks_weights_is_refused(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = load_file(models / "lab/vivit/model.safetensors")
    whole = tmp_path / "lab" / "vivit"
    whole.mkdir(parents=True)
    for file in ("config.json", "preprocessor_config.json"):
        (whole / file).write_bytes((models / "lab/vivit" / file).read_bytes())
    monkeypatch.setenv(ENCODERS_VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=r"none of model\.safetensors"):
        encoder("vivit")
    torch.save(weights, whole / "pytorch_model.bin")  # pickled weights are as good as none
    with pytest.raises(ConfigError, match=r"none of model\.safetensors"):
        encoder("vivit")
    gone = next(name for name in weights if "layers.1" in name or "layer.1" in name)
    save_file({name: tensor for name, tensor in weights.items() if name != gone}, whole / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="lacks 1 of the encoder's weights"):
        encoder("vivit")
    (whole / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"lab/vivit: .* cannot be loaded"):
        encoder("vivit")


def test_settings_that_cannot_apply_are_refused() -> None:
    with pytest.raises(ConfigError, match="looks at 4 frames, not at 8"):
        encoder("videomae", num_frames=8)
    with pytest.raises(ConfigError, match="how a vit is pooled is not known"):
        encoder("vit")
    assert encoder("vit", pooling="first_token", num_frames=3).features(pictures(3)).shape == (32,)
    with pytest.raises(ConfigError, match="takes no pictures of"):
        encoder("videomae").features(torch.zeros(4, 3, 40, 32))


def test_a_tokenizer_comes_by_name() -> None:
    assert load_tokenizer("bert")("hello world")["input_ids"] == [2, 5, 6, 3]
    assert load_encoder("bert").model.config.hidden_size == 32
    with pytest.raises(ConfigError, match=r"none of tokenizer\.json"):
        load_tokenizer("lab/vit")
