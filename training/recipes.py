"""The recipes: functions that return a whole RunConfig. `--set path.to.field=value` derives a variant."""

from collections.abc import Callable

from data_shards.errors import ConfigError
from training.augment import AugmentConfig
from training.cmose_recipes import cmose_audio, cmose_short_audio, cmose_short_visual, cmose_visual
from training.config import DataConfig, LoopConfig, OptimiserConfig, RunConfig
from training.losses.cross_entropy import CrossEntropySettings, WeightedCrossEntropySettings
from training.losses.mocorank import MocoRankSettings
from training.models.mocorank import MocoRankSettings as MocoRankModelSettings
from training.models.resnet_mean import ResNetMeanSettings
from training.models.resnet_tcn import ResNetTcnSettings

__all__ = ["RECIPES", "STAGED", "recipe", "stages"]


def resnet_tcn() -> RunConfig:
    """ResNet+TCN as published (Abedi and Khan 2021, section III): ResNet-18, TCN 8 x 128, SGD at 0.001, batches of 5.

    [choice] the paper names no number of epochs (20 here), no momentum (0.9) and no first weights (from scratch;
    `--set model.weights=hf://timm/resnet18.tv_in1k` starts from ImageNet). It trains on train + validation without
    a selection set, which Rapt does not repeat: `--set data.train_splits=train,validation --set data.validation_split=none`
    does, and keeps the last epoch.
    """
    return RunConfig(
        recipe="resnet_tcn",
        data=DataConfig(),
        model=ResNetTcnSettings(),
        loss=CrossEntropySettings(),
        optimiser=OptimiserConfig(name="sgd", lr=1e-3),
        loop=LoopConfig(epochs=20, global_batch=5, eval_batch=2),
    )


def resnet_tcn_weighted() -> RunConfig:
    """The published variant for rare classes: weighted cross entropy and every class in every batch (section III)."""
    base = resnet_tcn()
    return base.model_copy(
        update={
            "recipe": "resnet_tcn_weighted",
            "data": base.data.model_copy(update={"sampler": "class_complete"}),
            "loss": WeightedCrossEntropySettings(),
        }
    )


def demo() -> RunConfig:
    """ResNet+TCN made small enough to train on two CPU cores in minutes, for the simulated clips."""
    return RunConfig(
        recipe="demo",
        data=DataConfig(sampler="class_complete", augment=AugmentConfig(flip=True, brightness=0.2), num_threads=1),
        model=ResNetTcnSettings(widths=(16, 32, 64), blocks=1, levels=4, hidden=64, kernel=5, dropout=0.1),
        loss=WeightedCrossEntropySettings(),
        optimiser=OptimiserConfig(name="adamw", lr=2e-3, lr_final=1e-5, schedule="cosine", warmup_steps=10, clip_norm=1.0),
        loop=LoopConfig(epochs=20, global_batch=8, eval_batch=8),
    )


def demo_frames() -> RunConfig:
    """`demo` without the TCN: the mean of the frames' features, blind to their order. The baseline a temporal model must beat."""
    base = demo()
    model = ResNetMeanSettings(widths=(16, 32, 64), blocks=1)
    return base.model_copy(update={"recipe": "demo_frames", "model": model})


def engagewild() -> RunConfig:
    """A small TCN on EngageWild's OpenFace statistics of 15 segments a video, with MocoRank; no video is needed.

    The official validation split is the test split here: nothing is chosen on it. Epochs, sizes and the use of values
    uncompressed come from cross-validation inside the training split (docs/experiments.md), and the last epoch is kept.
    The loss's pool and momentum are smaller than the paper's 2048 and 0.999: a run has a hundred steps.
    `--set loss.name=mse --set model.head=linear` trains a baseline, and another array is read with
    `--set model.openface=vggface2_21 --set model.openface_width=128`.
    """
    return RunConfig(
        recipe="engagewild",
        data=DataConfig(validation_split=None, test_split="validation"),
        model=MocoRankModelSettings(
            openface="openface_15",
            openface_width=60,
            chunks=0,
            min_rows=0,
            compress=False,
            i3d="none",
            fusion="openface",
            hidden=16,
            levels=2,
        ),
        loss=MocoRankSettings(momentum=0.99, pool=512),
        optimiser=OptimiserConfig(name="adamw", lr=2e-3, lr_final=2e-5, schedule="cosine", weight_decay=1e-2, clip_norm=1.0),
        loop=LoopConfig(epochs=20, global_batch=32, eval_batch=64),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "resnet_tcn": resnet_tcn,
    "resnet_tcn_weighted": resnet_tcn_weighted,
    "demo": demo,
    "demo_frames": demo_frames,
    "engagewild": engagewild,
    "cmose_visual": cmose_visual,
    "cmose_audio": cmose_audio,
    "cmose_short_visual": cmose_short_visual,
    "cmose_short_audio": cmose_short_audio,
}

# trained one after the other, each from the best weights of the one before
STAGED: dict[str, tuple[str, ...]] = {
    "cmose": ("cmose_visual", "cmose_audio"),
    "cmose_short": ("cmose_short_visual", "cmose_short_audio"),
}


def recipe(name: str) -> RunConfig:
    """The recipe of that name; ConfigError where there is none, or it has several stages."""
    if name in STAGED:
        raise ConfigError(f"recipe '{name}' has stages; name one of them here: {', '.join(STAGED[name])}")
    if name not in RECIPES:
        raise ConfigError(f"no recipe named '{name}'; there are: {', '.join((*RECIPES, *STAGED))}")
    return RECIPES[name]()


def stages(name: str) -> tuple[RunConfig, ...]:
    """The stages of a staged recipe in their order, or the one recipe of that name; ConfigError where there is none."""
    return tuple(recipe(stage) for stage in STAGED.get(name, (name,)))
