"""The bundle: what was trained comes back, nothing is unpickled, damage is one sentence."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from data_shards.errors import ModelError
from data_shards.manifest import Manifest
from data_shards.reading.reader import ShardSet, Target
from training.bundle import load_bundle, read_record
from training.evaluate import evaluate, predict


def test_a_loaded_bundle_evaluates_as_it_was_measured(tiny_bundle: Path, simulated_shards: tuple[Path, Manifest]) -> None:
    record, model = load_bundle(tiny_bundle)
    test = ShardSet(simulated_shards[0], splits=("test",), target=Target("engagement"))
    again = evaluate(predict(model, test, batch=3, device=torch.device("cpu")), split="test", majority_level=0)
    assert record.test is not None
    assert again.confusion == record.test.confusion


def test_record_and_card_say_simulated_and_where_it_came_from(tiny_bundle: Path, simulated_shards: tuple[Path, Manifest]) -> None:
    record = read_record(tiny_bundle)
    card = (tiny_bundle / "README.md").read_text()
    assert record.simulated
    assert record.data_digest == simulated_shards[1].digest
    assert record.preprocess == simulated_shards[1].preprocess
    assert "simulated" in card
    assert "The split `validation` chose the epoch and the temperature; the split `test` was read once." in card
    assert "majority class" in card
    assert "No emotion is inferred" in card
    assert f"{record.test.metrics.balanced_accuracy:.3f}" in card if record.test else False


def test_no_file_of_a_bundle_is_a_pickle(tiny_bundle: Path) -> None:
    for path in tiny_bundle.iterdir():
        with pytest.raises(Exception):  # noqa: B017, PT011  # pickle raises errors of many kinds
            pickle.loads(path.read_bytes())
        assert path.suffix in (".safetensors", ".json", ".md")


@pytest.mark.parametrize("damage", ["cut", "missing", "other model", "junk record", "unknown key", "version"])
def test_damage_is_one_sentence(tiny_bundle: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    weights, record = folder / "model.safetensors", folder / "run.json"
    content = json.loads(record.read_text())
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "missing":
        weights.unlink()
    elif damage == "other model":
        content["run"]["model"]["hidden"] = 9
        record.write_text(json.dumps(content))
    elif damage == "junk record":
        record.write_text("{")
    elif damage == "unknown key":
        record.write_text(json.dumps({**content, "surprise": 1}))
    else:
        record.write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(ModelError, match=str(folder)) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


def test_no_bundle_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="models:/NAME@alias"):
        load_bundle(tmp_path)
