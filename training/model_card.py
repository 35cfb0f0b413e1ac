"""The model card written into every bundle: what the model is, what it was measured on, and what it is not."""

from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.extraction.recorded import untrained_weights
from data_shards.listing import Extractors
from data_shards.sample import FRAMES
from training.metrics import Evaluation
from training.models import MODELS

if TYPE_CHECKING:
    from training.bundle import BundleRecord

__all__ = ["limits_of", "model_card", "notice_of"]

_WHAT = (
    "The score is an estimate of how {what} observers would judge the person in the clip to be, from visible behaviour alone. "
    "It is not a measure of attention, learning, ability or emotion. {emotion} It must not decide anything about a person. "
    "How well it works for people, cameras, rooms and cultures that its data does not hold is unknown."
)
_NO_EMOTION = "No emotion is inferred (the EU AI Act, Art. 5(1)(f), bans that in education outside medical and safety use)."
_EMOTION = (
    "It names an emotion all the same: the EU AI Act, Art. 5(1)(f), bans that in education outside medical and safety use, so it "
    "is served only where an operator has turned it on."
)


def limits_of(record: "BundleRecord") -> str:
    """What the model's score is and is not; on the card, on the page and in every answer's model."""
    if record.infers_emotion:
        what = "engaged or bored" if record.label == "engagement" else f"marked by {record.label}"
        return _WHAT.format(what=what, emotion=_EMOTION)
    return _WHAT.format(what="engaged", emotion=_NO_EMOTION)


def notice_of(data_notice: str, extractors: Extractors) -> str:
    """What a reader must know first: of the data, and of features that were made without trained weights."""
    said = {name: untrained_weights(maker) for name, maker in extractors.items()}
    untrained = [f"{name} with weights that are {weights}" for name, weights in said.items() if weights]
    return "; ".join(([data_notice] if data_notice else []) + untrained)


def model_card(record: "BundleRecord") -> str:
    """Markdown text of the card."""
    banner = f"> **{record.notice}**\n\n" if record.notice else ""
    return f"""# {record.run.recipe}: an engagement model

{banner}Made by Rapt, run `{record.run_id}`.

| | |
| --- | --- |
| model | {record.run.model.name}, recipe `{record.run.recipe}`, seed {record.run.seed} |
| input | {_input(record)} |
{_start(record)}| answer | {record.label}: {", ".join(record.level_names)}; probabilities at temperature {record.temperature} |
| data | {record.dataset}, digest `{record.data_digest[:16]}` |
| code | commit `{record.commit}` |
| weights of | epoch {record.best_epoch} |

## Measured

{_table(record, record.validation)}
{_table(record, record.test)}
{_chosen_by(record)} Intervals are 95 % bootstrap intervals over people.

{_intervals(record)}

## What the score is not

{limits_of(record)}
"""


def _input(record: "BundleRecord") -> str:
    model, pre, parts = MODELS[record.run.model.name], record.preprocess, []
    inputs, optional = model.inputs_of(record.run.model), model.optional_of(record.run.model)
    if FRAMES in inputs and pre is not None:
        parts.append(f"{pre.num_frames} frames spread over a clip, {pre.size_px}x{pre.size_px}, resize rule `{pre.resize}`")
    if features := [name for name in inputs if name != FRAMES]:
        parts.append(f"features computed beforehand: {', '.join(features)}")
    if optional:
        parts.append(f"where a clip has them: {', '.join(optional)}")
    return "; ".join(parts)


def _start(record: "BundleRecord") -> str:
    """What of the model was trained before this run, as a row of the table."""
    run = record.run
    if not run.starts_from:
        return ""
    start = "/".join(Path(run.starts_from).parts[-3:])  # RUN/STAGE/bundle: where that lay is nobody else's concern
    frozen = f"; unchanged since: {', '.join(run.freeze)}" if run.freeze else ""
    return f"| starts from | the weights of `{start}`{frozen} |\n"


def _chosen_by(record: "BundleRecord") -> str:
    """What chose the epoch and the temperature, and which split the figures are of."""
    if record.validation:
        chosen = f"The split `{record.validation.split}` chose the epoch and the temperature"
    else:
        chosen = "No split chose anything: the last epoch is kept, the temperature is 1"
    return f"{chosen}; the split `{record.test.split}` was read once." if record.test else f"{chosen}; no split was tested."


def _intervals(record: "BundleRecord") -> str:
    """What an answer's interval of levels promises, what it rests on, and how it did on the test split."""
    calibration, report = record.calibration, record.coverage
    if calibration is None:
        return "Answers have no interval of levels: it takes a validation split of at least 9 clips."
    text = (
        f"An answer's interval holds the level that observers gave for {calibration.coverage:.0%} of clips like the "
        f"{calibration.num_clips} of the split `{calibration.split}` (split conformal prediction). That split also chose the "
        "epoch and the temperature, and clips of one person are like each other, so the promise is weaker than it looks; "
        "it is none for other people, cameras and rooms."
    )
    if report is None:
        return text
    return (
        f"{text} On the split `{report.split}` it held it for {report.coverage:.1%} of {report.num_clips} clips, with "
        f"{report.mean_levels:.2f} levels on average; {report.unsure_share:.1%} were left wholly open."
    )


def _table(record: "BundleRecord", evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return ""
    ours, base = evaluation.metrics, evaluation.majority_baseline
    interval = evaluation.balanced_accuracy_interval
    rows = [
        ("accuracy", ours.accuracy, base.accuracy),
        ("balanced accuracy", ours.balanced_accuracy, base.balanced_accuracy),
        ("macro-F1", ours.macro_f1, base.macro_f1),
        ("quadratic weighted kappa", ours.qwk, base.qwk),
        ("mean absolute error (levels)", ours.mae, base.mae),
    ]
    had = "".join(f", {count} with {name}" for name, count in record.with_optional.get(evaluation.split, {}).items())
    lines = [
        f"### {evaluation.split}: {evaluation.num_samples} clips of {interval.num_subjects} people{had}",
        "",
        "| | model | majority class |",
        "| --- | --- | --- |",
        *(f"| {name} | {value:.3f} | {baseline:.3f} |" for name, value, baseline in rows),
        "",
        f"Balanced accuracy lies in [{interval.low:.3f}, {interval.high:.3f}].",
        "",
    ]
    return "\n".join(lines)
