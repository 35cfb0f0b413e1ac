"""Versions of a registered model for tests: real bundles whose answers differ."""

from pathlib import Path

import torch

from training.bundle import load_bundle, save_bundle
from training.registry import MODEL_NAME
from training.tracking.client import experiment_id, mlflow_client
from training.tracking.registration import register

__all__ = ["holds", "register_version"]


def register_version(uri: str, bundle: Path, folder: Path, run_id: str, *, seed: int, damaged: bool = False) -> str:
    """Registers `bundle` as run `run_id`, its last layer drawn anew from `seed`; returns the version's number."""
    record, model = load_bundle(bundle)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in list(model.parameters())[-2:]:
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    made = folder / run_id / "bundle"
    save_bundle(made, record.model_copy(update={"run_id": run_id}), model)
    if damaged:
        (made / "model.safetensors").write_bytes(b"no weights")
    client = mlflow_client(uri)
    run = client.create_run(experiment_id(client, uri), run_name=run_id).info.run_id
    client.log_artifacts(run, str(made), "bundle")
    return register(client, run, made)


def holds(uri: str, alias: str, version: str) -> None:
    """Give the alias to the version."""
    mlflow_client(uri).set_registered_model_alias(MODEL_NAME, alias, version)
