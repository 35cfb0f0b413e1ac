"""A bundle: all that crosses from training to serving, as a folder of safetensors and JSON. Loading never unpickles.

model.safetensors   the weights
run.json            how they were made and what they do: RunConfig, levels, preprocessing, metrics, data digest, commit
README.md           the model card
"""

import json
from pathlib import Path

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from data_shards.atomic import whole_file, write_whole
from data_shards.errors import ModelError
from data_shards.extraction.recorded import runs_on_video
from data_shards.listing import Extractors
from data_shards.preprocess import PreprocessConfig
from data_shards.reading.label_views import infers_emotion
from data_shards.sample import FRAMES
from data_shards.schema import Stored, first_problem
from training.calibration import Calibration, CoverageReport
from training.config import RunConfig
from training.metrics import Evaluation
from training.model_card import model_card
from training.models import MODELS, EngagementModel

__all__ = ["BUNDLE_VERSION", "BundleRecord", "load_bundle", "load_weights_into", "read_record", "save_bundle", "save_weights"]

BUNDLE_VERSION = 3


class BundleRecord(Stored):
    """`run.json`. level_scores: each level's place on the engagement scale [-1, 1]. temperature divides the logits before
    softmax (1 where there was no validation split to fit it on). calibration: of the intervals, None where there was no such
    split, or fewer clips than that takes, or the bundle was made before; coverage: its report on the test split.

    preprocess and extractors: how the training clips became frames and features, so that a scored clip goes the same way.
    with_optional: of each evaluated split, how many clips have each input that the model reads only where it is there.
    simulated and notice come from the data's manifest: a model trained on simulated people says so for ever.
    """

    schema_version: int
    run_id: str
    run: RunConfig
    label: str
    level_names: tuple[str, ...]
    level_scores: tuple[float, ...]
    temperature: float = Field(gt=0)
    preprocess: PreprocessConfig | None
    extractors: Extractors = Field(default_factory=dict)
    dataset: str
    simulated: bool
    notice: str
    data_digest: str
    commit: str
    best_epoch: int
    validation: Evaluation | None
    test: Evaluation | None
    with_optional: dict[str, dict[str, int]] = Field(default_factory=dict)
    calibration: Calibration | None = None
    coverage: CoverageReport | None = None

    @property
    def reads_video(self) -> bool:
        """Whether the model can score a video: what it cannot do without are frames, or features that can be made of any."""
        needed = MODELS[self.run.model.name].inputs_of(self.run.model)
        return all(name == FRAMES or runs_on_video(self.extractors.get(name, {})) for name in needed)

    @property
    def infers_emotion(self) -> bool:
        """Whether an answer would name an emotion: such a model is served only where an operator says so."""
        return infers_emotion(self.run.data.label, self.run.data.view)


def save_bundle(folder: Path, record: BundleRecord, model: EngagementModel) -> None:
    """Write the bundle; run.json last, so a folder with it is whole."""
    save_weights(folder / "model.safetensors", model)
    write_whole(folder / "README.md", model_card(record).encode())
    write_whole(folder / "run.json", json.dumps(record.model_dump(mode="json"), indent=2).encode() + b"\n")


def save_weights(path: Path, model: EngagementModel) -> None:
    """Write the model's weights as safetensors, whole or not at all. ModelError where the disk does not take them."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        with whole_file(path) as beside:
            save_file(weights, beside)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: the weights cannot be written ({str(error)[:120]}); make room, then resume the run") from None


def load_weights_into(model: EngagementModel, path: Path) -> None:
    """Load weights that `save_weights` wrote. ModelError where they are missing, damaged or do not fit."""
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path}: the weights cannot be read ({type(error).__name__}); copy them again, or train again"
        ) from None


def read_record(folder: Path) -> BundleRecord:
    """The record alone. ModelError where `folder` is no bundle, or one of another version."""
    path = folder / "run.json"
    try:
        content = path.read_bytes()
    except OSError:
        raise ModelError(
            f"{folder}: no bundle there (run.json is missing); name a run's bundle folder or models:/NAME@alias"
        ) from None
    try:
        record = BundleRecord.model_validate_json(content)
    except ValidationError as error:
        raise ModelError(f"{path}: not a bundle this Rapt reads ({first_problem(error)})") from None
    if record.schema_version != BUNDLE_VERSION:
        raise ModelError(f"{path}: bundle version {record.schema_version}, this Rapt reads {BUNDLE_VERSION}; train it again")
    return record


def load_bundle(folder: Path, device: torch.device | None = None) -> tuple[BundleRecord, EngagementModel]:
    """(record, model in evaluation mode). ModelError where the weights are missing, damaged or do not fit."""
    record = read_record(folder)
    # pretrained weights were only where training started: the bundle holds all of its own
    settings = record.run.model
    if "weights" in type(settings).model_fields:
        settings = settings.model_copy(update={"weights": "none"})
    model = MODELS[settings.name](settings, len(record.level_names))
    load_weights_into(model, folder / "model.safetensors")
    return record, model.to(device or torch.device("cpu")).eval()
