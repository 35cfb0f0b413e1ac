"""Verify names each fault once, by the address that a person knows, and compares every record of a set with the others."""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_shards.building.copy import copy_shards
from data_shards.building.verify import verify_shards
from data_shards.manifest import Manifest
from data_shards.storage.store import open_store

Shards = tuple[Path, Manifest]
Edit = Callable[[dict[str, Any]], None]
NAME = "train-000000"


@pytest.fixture
def folder(simulated_shards: Shards, tmp_path: Path) -> Path:
    shutil.copytree(simulated_shards[0], tmp_path / "copy")
    return tmp_path / "copy"


def edited(path: Path, edit: Edit) -> str:
    """Change a stored record, and give its new sha256."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edit_entry(folder: Path, edit: Edit) -> None:
    edited(folder / "manifest.json", lambda manifest: edit(next(s for s in manifest["shards"] if s["name"] == f"{NAME}.tar")))


def edit_index(folder: Path, edit: Edit) -> None:
    """Change an index, and name the changed one in the manifest: only its content tells."""
    sha256 = edited(folder / f"{NAME}.index.json", edit)
    edit_entry(folder, lambda entry: entry.update(index_sha256=sha256))


def other(level: int) -> int:
    return (level + 1) % 4


def test_a_manifest_with_another_label_is_found(folder: Path) -> None:
    def relabel(entry: dict[str, Any]) -> None:
        entry["labels"]["engagement"][3] = other(entry["labels"]["engagement"][3])

    edit_entry(folder, relabel)
    (finding,) = verify_shards(folder)[1]
    assert finding.startswith(f"{folder}/{NAME}.tar: clip ")
    assert "manifest and index do not agree on its labels" in finding


def test_a_stored_record_with_another_label_is_found(folder: Path) -> None:
    def relabel(index: dict[str, Any]) -> None:
        labels = index["samples"][2]["labels"]
        labels["engagement"] = other(labels["engagement"])
        edit_entry(folder, lambda entry: entry["labels"]["engagement"].__setitem__(2, labels["engagement"]))

    edit_index(folder, relabel)
    (finding,) = verify_shards(folder)[1]
    assert "index and stored record do not agree on it" in finding


def test_an_index_that_points_elsewhere_is_found(folder: Path) -> None:
    def swap(index: dict[str, Any]) -> None:
        first, second = index["samples"][0]["members"], index["samples"][1]["members"]
        first["frames.mjpeg"], second["frames.mjpeg"] = second["frames.mjpeg"], first["frames.mjpeg"]

    edit_index(folder, swap)
    assert verify_shards(folder)[1] == [f"{folder}/{NAME}.tar: its members do not lie where its index says; build it again"]


def test_an_index_of_too_few_samples_is_found(folder: Path) -> None:
    edit_index(folder, lambda index: index["samples"].pop())
    (finding,) = verify_shards(folder)[1]
    assert f"{NAME}.index.json: holds 15 samples, the manifest says 16" in finding


def test_a_damaged_frame_is_found_where_every_sum_is_right(folder: Path) -> None:
    tar_path = folder / f"{NAME}.tar"
    with tarfile.open(tar_path) as tar:
        place = next(member.offset_data for member in tar if member.name.endswith(".frames.mjpeg"))
    content = bytearray(tar_path.read_bytes())
    content[place : place + 2] = b"no"
    tar_path.write_bytes(content)
    edit_entry(folder, lambda entry: entry.update(sha256=hashlib.sha256(content).hexdigest()))
    (finding,) = verify_shards(folder)[1]
    assert finding.startswith(f"{folder}/{NAME}.tar: clip ")
    assert "frame 0 is damaged" in finding


def test_a_missing_shard_and_its_index_are_two_findings_and_a_cut_one_is_one(folder: Path) -> None:
    (folder / f"{NAME}.tar").unlink()
    (folder / f"{NAME}.index.json").unlink()
    cut = folder / "test-000000.tar"
    cut.write_bytes(cut.read_bytes()[:5000])
    findings = verify_shards(folder)[1]
    assert sorted(finding.split(";")[0] for finding in findings) == [
        f"{cut}: its sha256 is not the manifest's",
        f"{folder}/{NAME}.index.json: missing",
        f"{folder}/{NAME}.tar: missing",
    ]


def test_a_bucket_is_named_by_its_address_and_each_fault_once(simulated_shards: Shards, bucket: str) -> None:
    copy_shards(simulated_shards[0], bucket)
    store = open_store(bucket)
    store.delete(f"{NAME}.tar")
    store.write("test-000000.tar", store.read("test-000000.tar")[:5000])
    findings = verify_shards(bucket)[1]
    assert sorted(finding.split(";")[0] for finding in findings) == [
        f"{bucket}/test-000000.tar: its sha256 is not the manifest's",
        f"{bucket}/{NAME}.tar: missing",
    ]
