"""The weights that a run starts from, where it does not start afresh: those of an earlier run's bundle."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data_shards.errors import ConfigError, ModelError
from training.bundle import read_record
from training.config import RunConfig
from training.models import EngagementModel

__all__ = ["Start", "prepare", "prepare_after"]


class Start(NamedTuple):
    """fresh: the model's weights that the bundle has not, or not in that shape; unused: those of the bundle alone."""

    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def prepare(model: EngagementModel, run: RunConfig) -> Start:
    """Give `model` the weights that the run starts from, and freeze what the run freezes.

    ConfigError where that would freeze weights which nothing has trained: in no earlier run, nor in `model.weights`.
    """
    start = _start_from(model, run.starts_from) if run.starts_from else Start()
    _freeze(model, run, start, has_earlier=bool(run.starts_from))
    return start


def prepare_after(earlier: EngagementModel, model: EngagementModel, run: RunConfig) -> None:
    """As `prepare`, with the weights of `earlier`, the model of the stage before, in place of a bundle's; errors alike."""
    start = _load_fitting(model, earlier.state_dict(), of=f"the stage before's {earlier.settings.name}")
    _freeze(model, run, start, has_earlier=True)


def _freeze(model: EngagementModel, run: RunConfig, start: Start, *, has_earlier: bool) -> None:
    model.freeze(run.freeze)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    given = model.pretrained if getattr(run.model, "weights", "none") != "none" else ()
    fresh = set(start.fresh if has_earlier else frozen)
    untrained = [name for name in frozen if name in fresh and not any(name.startswith(f"{part}.") for part in given)]
    if untrained:
        raise ConfigError(
            f"freeze: {untrained[0]} has its first, untrained weights; set starts_from to a bundle that has it, train the "
            "staged recipe, or set freeze=[]"
        )


def _start_from(model: EngagementModel, bundle: str) -> Start:
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
    return _load_fitting(model, theirs, of=f"{folder}'s {record.run.model.name}")


def _load_fitting(model: EngagementModel, theirs: Mapping[str, Tensor], *, of: str) -> Start:
    """Load what agrees in name and shape; ModelError where nothing does. of: whose weights they are, for the error."""
    ours: dict[str, Tensor] = model.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in ours and ours[name].shape == value.shape}
    if not fitting:
        raise ModelError(f"starts_from: no weight of {of} fits this {model.settings.name}; start from a bundle of the same model")
    model.load_state_dict(fitting, strict=False)
    fresh = tuple(sorted(ours.keys() - fitting.keys()))
    model.begin_parts(fresh)
    return Start(fresh, tuple(sorted(theirs.keys() - fitting.keys())))
