"""The weights that a run starts from, where it does not start afresh: those of an earlier run's bundle."""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from data_shards.errors import ConfigError, ModelError
from training.bundle import read_record
from training.config import RunConfig
from training.models import EngagementModel

__all__ = ["Start", "prepare", "start_from"]


class Start(NamedTuple):
    """fresh: the model's weights that the bundle has not, or not in that shape; unused: those of the bundle alone."""

    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def prepare(model: EngagementModel, run: RunConfig) -> Start:
    """Give `model` the weights that the run starts from, and freeze what the run freezes.

    ConfigError where that would freeze weights which nothing has trained: in no earlier run, nor in `model.weights`.
    """
    start = start_from(model, run.starts_from) if run.starts_from else Start()
    model.freeze(run.freeze)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    given = model.pretrained if getattr(run.model, "weights", "none") != "none" else ()
    fresh = set(start.fresh if run.starts_from else frozen)
    untrained = [name for name in frozen if name in fresh and not any(name.startswith(f"{part}.") for part in given)]
    if untrained:
        raise ConfigError(
            f"freeze: {untrained[0]} has its first, untrained weights; set starts_from to a bundle that has it, train the "
            "staged recipe, or set freeze=[]"
        )
    return start


def start_from(model: EngagementModel, bundle: str) -> Start:
    """Load a bundle's weights into `model` where names and shapes agree; what else it has stays as it was made.

    ModelError where `bundle` is no bundle's folder, its weights are damaged, or none of them fits.
    """
    folder = Path(bundle)
    record = read_record(folder)
    try:
        theirs = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"starts_from: {folder}: the weights cannot be read ({type(error).__name__}); copy them again, or train again"
        ) from None
    ours: dict[str, torch.Tensor] = model.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in ours and ours[name].shape == value.shape}
    if not fitting:
        raise ModelError(
            f"starts_from: {folder}: no weight of its {record.run.model.name} fits this {model.settings.name}; "
            "name a bundle of the same model"
        )
    model.load_state_dict(fitting, strict=False)
    return Start(tuple(sorted(ours.keys() - fitting.keys())), tuple(sorted(theirs.keys() - fitting.keys())))
