"""RunConfig: everything a run follows from, whole and frozen. Recipes return one; `--set` derives another from it."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from data_shards.errors import ConfigError
from data_shards.listing import SPLITS
from data_shards.reading.label_views import LABEL_VIEWS
from data_shards.reading.order import Sampler
from data_shards.reading.reader import Target
from data_shards.schema import Stored, first_problem
from training.augment import AugmentConfig
from training.losses import LOSSES
from training.models import MODELS
from training.settings import Settings

__all__ = [
    "DataConfig",
    "LoopConfig",
    "OptimiserConfig",
    "RunConfig",
    "Strategy",
    "first_difference",
    "same_training",
    "stages_with_settings",
    "with_settings",
]

# of `loop`: by whom, in what portions and how fast, which leaves the training what it is
_CARRIED_OUT = {
    "channels_last", "checkpoint_every_steps", "checkpoints_kept", "compile", "eval_batch", "microbatch", "offload", "strategy",
}  # fmt: skip
Strategy = Literal["ddp", "deepspeed-zero1", "deepspeed-zero2", "deepspeed-zero3"]


class DataConfig(Stored):
    """Which samples: label is the manifest's label to learn, view one of LABEL_VIEWS on it; validation_split None means no
    selection, the last epoch is kept. window_shards: how many shards the sampler `windowed` mixes at a time. only_with:
    features without which a clip is not trained on; every clip that the model can read is evaluated."""

    label: str = "engagement"
    view: str = "levels"
    train_splits: tuple[str, ...] = ("train",)
    validation_split: str | None = "validation"
    test_split: str | None = "test"
    sampler: Sampler = "shuffled"
    window_shards: int = Field(default=64, ge=1)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    only_with: tuple[str, ...] = ()
    num_threads: int = Field(default=2, ge=1, le=64)

    @model_validator(mode="after")
    def _keeps_splits_apart(self) -> "DataConfig":
        if self.view not in LABEL_VIEWS:
            raise ValueError(f"no view '{self.view}' of a label; there are: {', '.join(LABEL_VIEWS)}")
        held_out = [split for split in (self.validation_split, self.test_split) if split]
        unknown = [split for split in (*self.train_splits, *held_out) if split not in SPLITS]
        if unknown:
            raise ValueError(f"no split '{unknown[0]}'; there are: {', '.join(SPLITS)}")
        if set(held_out) & set(self.train_splits) or len(set(held_out)) < len(held_out) or not self.train_splits:
            raise ValueError(
                "train_splits, validation_split and test_split must not share a split: a figure would be of training data"
            )
        return self


class OptimiserConfig(Stored):
    """SGD or AdamW. schedule: "cosine" falls from lr to lr_final over the run, "constant" stays at lr. clip_norm 0: none."""

    name: Literal["sgd", "adamw"]
    lr: float = Field(gt=0)
    lr_final: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _applies(self) -> "OptimiserConfig":
        if self.name == "adamw" and "momentum" in self.model_fields_set and self.momentum != 0.9:
            raise ValueError("momentum is SGD's; AdamW has none to set")
        return self


class LoopConfig(Stored):
    """How long and in what portions. global_batch: clips an optimiser step, over all workers and accumulated microbatches.

    microbatch: clips a worker puts through the model at once, 0 for its whole share. checkpoint_every_steps 0: at
    the end of each epoch only. precision "bf16" computes the forward pass in bfloat16; "fp64" is for proofs that two
    ways of running are the same arithmetic.

    strategy: what the workers share. "ddp": the batch alone. DeepSpeed's ZeRO (Rajbhandari et al. 2020): 1 the optimiser's
    state too, 2 also gradients, 3 also weights. offload: what ZeRO keeps in the host's memory instead of the GPU's,
    "optimiser" its state and step, "all" the weights too. All of them are the same training, to rounding.
    """

    epochs: int = Field(ge=1, le=100_000)
    global_batch: int = Field(ge=1, le=1_000_000)
    microbatch: int = Field(default=0, ge=0)
    eval_batch: int = Field(default=8, ge=1)
    checkpoint_every_steps: int = Field(default=0, ge=0)
    checkpoints_kept: int = Field(default=2, ge=1)
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    strategy: Strategy = "ddp"
    offload: Literal["none", "optimiser", "all"] = "none"

    @model_validator(mode="after")
    def _can_run(self) -> "LoopConfig":
        if self.strategy == "ddp":
            if self.offload != "none":
                raise ValueError("offload is DeepSpeed's; set loop.strategy=deepspeed-zero2, or loop.offload=none")
            return self
        if self.precision == "fp64":
            raise ValueError("DeepSpeed keeps its weights in float32; set loop.precision=fp32, or loop.strategy=ddp")
        if self.offload == "all" and self.strategy != "deepspeed-zero3":
            raise ValueError("weights can be offloaded by deepspeed-zero3 alone; set loop.offload=optimiser, or that strategy")
        if self.compile and self.strategy == "deepspeed-zero3":
            raise ValueError("torch.compile needs whole weights; set loop.compile=false, or loop.strategy=deepspeed-zero2")
        return self

    def microbatch_for(self, world_size: int) -> int:
        """Clips a worker puts through the model at once; ConfigError where the global batch cannot be shared."""
        share, rest = divmod(self.global_batch, world_size)
        if rest or share == 0:
            raise ConfigError(
                f"loop.global_batch is {self.global_batch}, which {world_size} workers cannot share evenly; "
                f"set loop.global_batch to a multiple of {world_size}, or change --workers"
            )
        if self.microbatch and share % self.microbatch:
            raise ConfigError(
                f"loop.microbatch is {self.microbatch}, which does not divide a worker's {share} clips a step; "
                "set one that does, or 0"
            )
        return self.microbatch or share


def _parse_named(value: Any, registry: dict[str, Any], kind: str) -> Any:
    """Settings of the registry's entry that `value["name"]` names; a ready Settings object passes."""
    if isinstance(value, Settings):
        return value
    name = value.get("name") if isinstance(value, dict) else None
    if name not in registry:
        raise ValueError(f"no {kind} named '{name}'; there are: {', '.join(registry)}")
    return registry[name].settings_type.model_validate(value)


class RunConfig(Stored):
    """A run as data, model, loss, optimiser and loop; stored as run.json in bundles and as params in MLflow.

    starts_from: the folder of a bundle whose weights are loaded where names and shapes agree, "" for none. freeze: names of
    the model's modules or parameters, such as "visual", below which nothing trains.
    """

    recipe: str
    seed: int = Field(default=0, ge=0, lt=2**63)
    data: DataConfig
    model: Annotated[SerializeAsAny[Settings], BeforeValidator(lambda value: _parse_named(value, MODELS, "model"))]
    loss: Annotated[SerializeAsAny[Settings], BeforeValidator(lambda value: _parse_named(value, LOSSES, "loss"))]
    optimiser: OptimiserConfig
    loop: LoopConfig
    starts_from: str = ""
    freeze: tuple[str, ...] = ()

    def fitted_to(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """The same run, with what its model leaves to the data (feature to shape) filled in."""
        return self.model_copy(update={"model": MODELS[self.model.name].fitted(self.model, shapes)})

    @property
    def target(self) -> Target:
        """What is evaluated: all samples that have what the model cannot do without."""
        return Target(self.data.label, self.data.view, MODELS[self.model.name].inputs_of(self.model))

    @property
    def training_target(self) -> Target:
        """What is trained on: those of them that have data.only_with too."""
        needs = dict.fromkeys((*self.target.needs, *self.data.only_with))
        return Target(self.data.label, self.data.view, tuple(needs))


def with_settings(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """A RunConfig with `path.to.field=value` applied, in order. ConfigError on an unknown path or an unfit value.

    Values are read as JSON where they parse (numbers, true, null, lists), as text otherwise; "a,b" makes a list
    where the field is one.
    """
    content = config.model_dump(mode="json")
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {setting}: not of the form path.to.field=value, e.g. --set loop.epochs=1")
        _set(content, path, text, setting)
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"--set {' '.join(settings)}: {first_problem(error)}") from None


def stages_with_settings(stages: Sequence[RunConfig], settings: Sequence[str]) -> tuple[RunConfig, ...]:
    """The stages with each setting applied to those that have its path. ConfigError where none has, and as with_settings.

    starts_from is for the first stage alone: each later one starts from the one before.
    """
    applied = [[setting for setting in settings if _has(stage, setting, settings)] for stage in stages]
    applied[1:] = [[setting for setting in theirs if setting.partition("=")[0] != "starts_from"] for theirs in applied[1:]]
    for setting in settings:
        if not any(setting in theirs for theirs in applied):
            with_settings(stages[-1], [setting])  # says what is wrong with it
    return tuple(with_settings(stage, theirs) for stage, theirs in zip(stages, applied, strict=True))


def _has(stage: RunConfig, setting: str, settings: Sequence[str]) -> bool:
    """Whether a stage has the path that is set, once another model or loss among `settings` is there."""
    place: Any = stage.model_dump(mode="json")
    for other in settings:
        path, _, text = other.partition("=")
        if path in ("model.name", "loss.name"):
            _set(place, path, text, other)
    for name in setting.partition("=")[0].split("."):
        if not isinstance(place, dict) or name not in place:
            return False
        place = place[name]
    return True


def _set(content: dict[str, Any], path: str, text: str, setting: str) -> None:
    *parents, last = path.split(".")
    place: Any = content
    for name in parents:
        place = place.get(name) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        known = place if isinstance(place, dict) else content
        raise ConfigError(f"--set {setting}: no setting '{path}'; there are here: {', '.join(sorted(known))}")
    if isinstance(place[last], dict):
        raise ConfigError(f"--set {setting}: '{path}' is a group; set one of: {', '.join(sorted(place[last]))}")
    if path == "recipe":
        raise ConfigError(f"--set {setting}: a recipe's name says where it comes from; name another recipe instead")
    if path in ("model.name", "loss.name") and text != place[last]:
        registry: dict[str, Any] = MODELS if parents[0] == "model" else LOSSES
        if text in registry:  # another model or loss brings its own settings, at their defaults
            content[parents[0]] = registry[text].settings_type(name=text).model_dump(mode="json")
        else:
            place[last] = text  # refused with the known names when the whole is validated
        return
    value = _value(text)
    place[last] = (
        [part.strip() for part in text.split(",")] if isinstance(place[last], list) and isinstance(value, str) else value
    )


def _value(text: str) -> Any:
    if text.lower() in ("none", "null"):
        return None
    try:
        return json.loads(text)
    except ValueError:  # no JSON, or a number of more digits than any setting has
        return text


def same_training(run: RunConfig) -> dict[str, Any]:
    """What of a run, as JSON, makes it the same training: all but how it is carried out, by how many, and kept."""
    content = run.model_dump(mode="json", exclude={"starts_from"})  # a path; what started the run is in its weights
    return content | {"loop": {name: value for name, value in content["loop"].items() if name not in _CARRIED_OUT}}


def first_difference(old: Any, new: Any, path: str = "") -> str:
    """`PATH=OLD, not NEW` of the first setting in which two runs, as JSON, differ; "" where there is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old | new:
            if found := first_difference(old.get(name), new.get(name), f"{path}.{name}" if path else str(name)):
                return found
        return ""
    return "" if old == new else f"{path}={old}, not {new}"
