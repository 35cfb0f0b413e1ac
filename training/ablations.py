"""The ablations of CMOSE's system: what Tables 3 and 4 of Wu et al. 2023 compare, with the figures they print."""

from dataclasses import dataclass
from typing import Any

from training.config import RunConfig
from training.recipes import stages

__all__ = ["ABLATIONS", "Ablation", "ablation_stages"]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A published row. model: what differs from the recipe's model; with_audio: whether the audio stage follows.

    accuracy, average_accuracy: in %, on all test clips; speech_accuracy, speech_average: on those with speech, where the
    paper prints them.
    """

    table: int
    model: dict[str, Any]
    with_audio: bool = False
    accuracy: float
    average_accuracy: float
    speech_accuracy: float | None = None
    speech_average: float | None = None


# Table 4's "+ audio" is printed beside the whole visual part's 78.14: [choice] it is read as audio on top of that, not on
# top of I3D alone. The paper does not say which of its rows the 71.42 / 60.23 without audio on the speech subset belongs
# to; [choice] the same visual part, before its audio stage.
ABLATIONS: dict[str, Ablation] = {
    "openface": Ablation(table=3, model={"fusion": "openface", "i3d": "none"}, accuracy=70.44, average_accuracy=46.76),
    "attention": Ablation(table=3, model={"fusion": "attention"}, accuracy=74.09, average_accuracy=50.32),
    "concat": Ablation(table=3, model={"fusion": "concat"}, accuracy=76.98, average_accuracy=52.50),
    "both": Ablation(table=3, model={}, accuracy=78.14, average_accuracy=55.74, speech_accuracy=71.42, speech_average=60.23),
    "i3d": Ablation(table=4, model={"fusion": "i3d", "openface": "none"}, accuracy=72.43, average_accuracy=58.76),
    "audio": Ablation(
        table=4,
        model={},
        with_audio=True,
        accuracy=78.55,
        average_accuracy=56.85,
        speech_accuracy=74.60,
        speech_average=63.70,
    ),
}


def ablation_stages(name: str, recipe: str = "cmose") -> tuple[RunConfig, ...]:
    """The stages of one of ABLATIONS, from a recipe with a visual and an audio stage: "cmose", or "cmose_short"."""
    row, (visual, audio) = ABLATIONS[name], stages(recipe)
    chosen = (visual, audio) if row.with_audio else (visual,)
    return tuple(
        stage.model_copy(update={"model": type(stage.model).model_validate({**stage.model.model_dump(), **row.model})})
        for stage in chosen
    )
