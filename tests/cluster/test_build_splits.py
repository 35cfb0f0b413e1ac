"""`rapt shards build --splits`: the published splits, or ones that share no person."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.command_line import rapt
from data_shards.datasets import DATASETS
from data_shards.errors import ConfigError
from data_shards.manifest import Manifest, read_manifest
from data_shards.storage.source import Source
from tests.data_shards import layouts


def built(source: Path, out: Path, *options: str) -> Manifest:
    arguments = ["shards", "build", "engagewild", str(source), str(out), "--workers", "1", *options]
    CliRunner().invoke(rapt, arguments, catch_exceptions=False, standalone_mode=False)
    return read_manifest(out)


def test_splits_by_person_are_other_splits_and_say_so(tmp_path: Path) -> None:
    layouts.engagewild(tmp_path / "arrays")
    published = DATASETS["engagewild"](Source(tmp_path / "arrays"))
    by_person = built(tmp_path / "arrays", tmp_path / "person", "--splits", "person", "--seed", "3")
    assert "by person with seed 3, not the published ones" in by_person.notice
    assert {split: summary.num_samples for split, summary in by_person.splits.items()} == {"train": 4, "validation": 2}
    people = {split: {clip.subject for clip in published.clips if clip.split == split} for split in ("train", "validation")}
    assert {split: set(summary.subjects) for split, summary in by_person.splits.items()} != people


def test_a_seed_without_anything_to_draw_is_refused(tmp_path: Path) -> None:
    layouts.engagewild(tmp_path / "arrays")
    with pytest.raises(ConfigError, match="--seed is for simulated clips"):
        built(tmp_path / "arrays", tmp_path / "out", "--seed", "3")
