"""Random weights under the names of the real ones: no machine of the tests reaches the hub, everything else is real."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from data_shards.extraction.inception import InceptionI3d
from tests.data_shards.tiny_bert import save_tiny_bert

__all__ = ["save_encoders", "save_i3d"]


def save_i3d(path: Path) -> Path:
    """A state dict with the PyTorch port's names."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(InceptionI3d().state_dict(), path)
    return path


def save_encoders(folder: Path) -> Path:
    """`bert-base-uncased` and `MCG-NJU/videomae-base`, as wide as these and with fewer and smaller layers."""
    from transformers import VideoMAEConfig, VideoMAEModel

    save_tiny_bert(folder, name="bert-base-uncased", hidden=768)
    config = VideoMAEConfig(
        hidden_size=768, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=64, patch_size=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VideoMAEModel(config)
    model.save_pretrained(folder / "MCG-NJU" / "videomae-base")
    (folder / "MCG-NJU" / "videomae-base" / "preprocessor_config.json").write_text(
        '{"do_resize": true, "size": {"shortest_edge": 64}, "do_center_crop": true, "crop_size": {"height": 64, "width": 64},'
        ' "do_rescale": true, "rescale_factor": 0.00392156862745098, "do_normalize": true, "resample": 2,'
        ' "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}'
    )
    return folder
