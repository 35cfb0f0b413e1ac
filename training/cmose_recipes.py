"""The recipes of CMOSE's system (Wu et al. 2023): the visual part, then the audio part on top of it."""

from training.config import DataConfig, LoopConfig, OptimiserConfig, RunConfig
from training.losses.mocorank import MocoRankSettings as MocoRankLossSettings
from training.models.mocorank import ACOUSTICS, SPEECH, MocoRankSettings

__all__ = ["cmose_audio", "cmose_short_audio", "cmose_short_visual", "cmose_visual"]


def cmose_visual() -> RunConfig:
    """CMOSE's visual part as published: OpenFace's chunks and I3D, AdamW, batches of 256, 1200 epochs, MocoRank.

    With the center loss at 0.2, the row of best accuracy in Table 2 (78.14, average 55.74); `--set loss.center=0` is the
    row of best average accuracy (77.48, average 60.94). [choice] the paper names neither gradient clipping nor a rule by
    which an epoch is chosen: no clipping, and the balanced accuracy on the validation split as in every recipe.
    """
    return RunConfig(
        recipe="cmose_visual",
        data=DataConfig(),
        model=MocoRankSettings(openface_width=0, i3d_width=0),
        loss=MocoRankLossSettings(center=0.2),
        optimiser=OptimiserConfig(name="adamw", lr=5e-4, lr_final=5e-7, schedule="cosine", weight_decay=1e-3),
        loop=LoopConfig(epochs=1200, global_batch=256, eval_batch=256),
    )


def cmose_audio() -> RunConfig:
    """CMOSE's audio part on a frozen visual part: trained on clips with speech, evaluated on all of them.

    A stage of `cmose`, which says what it starts from. [choice] the paper names no settings of this stage: the visual one's.
    """
    return _audio_after(cmose_visual(), "cmose_audio")


def cmose_short_visual() -> RunConfig:
    """`cmose_visual` made short and small, for two CPU cores: minutes on all of CMOSE, seconds on some hundred clips."""
    base = cmose_visual()
    return base.model_copy(
        update={
            "recipe": "cmose_short_visual",
            "model": base.model.model_copy(update={"hidden": 32}),
            "optimiser": base.optimiser.model_copy(update={"lr": 2e-3, "lr_final": 1e-5}),
            "loop": LoopConfig(epochs=20, global_batch=32, eval_batch=64),
        }
    )


def cmose_short_audio() -> RunConfig:
    """`cmose_audio` made short and small likewise."""
    return _audio_after(cmose_short_visual(), "cmose_short_audio")


def _audio_after(visual: RunConfig, name: str) -> RunConfig:
    """The same model with the audio part (eqs. 5 to 8), of which that part alone trains, on the clips that have speech."""
    return visual.model_copy(
        update={
            "recipe": name,
            "model": visual.model.model_copy(update={"speech": True}),
            "data": visual.data.model_copy(update={"only_with": (SPEECH, ACOUSTICS)}),
            "freeze": ("visual",),
        }
    )
