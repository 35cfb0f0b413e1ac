"""What MLflow's page shows of a model: MLmodel with its signature, and the versions of the packages that made it.

They lie beside the bundle in MLflow, in one folder with it, and are no part of it: a bundle is what scoring needs, and it
loads without MLflow. There is no `python_function` flavour: MLflow would load that by unpickling or by importing code.

Letters: B clips, T frames, C channels, H height, W width, K levels.
"""

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np

from data_shards.sample import FRAMES
from training.bundle import BundleRecord
from training.models import MODELS
from training.tracking.client import load_mlflow

__all__ = ["write_model_files"]

_DISTRIBUTION = "rapt-engagement"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def write_model_files(folder: Path, record: BundleRecord, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write MLmodel and requirements.txt into `folder`. shapes: of each feature in the data, 0 where a length varies."""
    load_mlflow()
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    inputs = [TensorSpec(np.dtype(kind), shape, name) for name, kind, shape in _inputs(record, shapes)]
    outputs = [
        TensorSpec(np.dtype("float32"), (-1, len(record.level_names)), "probabilities"),
        TensorSpec(np.dtype("float32"), (-1,), "score"),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    model = Model(
        artifact_path="bundle",
        signature=ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs)),
        metadata={"levels": list(record.level_names), "run": record.run_id, "data_digest": record.data_digest},
        flavors={
            "rapt": {"bundle_version": record.schema_version, "model": record.run.model.name, "requirements": "requirements.txt"}
        },
    )
    model.save(str(folder / "MLmodel"))
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in pinned_requirements()))


def _inputs(record: BundleRecord, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of all that the model reads; -1 is the batch, and a length that is not the same in all clips."""
    model = MODELS[record.run.model.name]
    found = []
    for name in (*model.inputs_of(record.run.model), *model.optional_of(record.run.model)):
        if name != FRAMES:
            found.append((name, "float32", (-1, *(length or -1 for length in shapes.get(name, (0,))))))
        elif record.preprocess is not None:
            size = record.preprocess.size_px
            found.append((FRAMES, "uint8", (-1, record.preprocess.num_frames, 3, size, size)))  # frames_BTCHW
    return found


def pinned_requirements() -> list[str]:
    """NAME==VERSION of Rapt's own requirements, as they are installed here; without extras for development."""
    try:
        named = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # a copy of the packages that was never installed
        named = ["torch", "numpy", "pydantic", "safetensors", "pillow"]
    pinned = []
    for requirement in named:
        match = _NAME.match(requirement)
        if match is None or "extra ==" in requirement:
            continue
        try:
            pinned.append(f"{match.group()}=={metadata.version(match.group())}")
        except metadata.PackageNotFoundError:
            continue  # this machine trained without it
    return sorted(pinned, key=str.lower)
