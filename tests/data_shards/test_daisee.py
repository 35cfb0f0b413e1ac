"""DAiSEE's official label files: their quirks, their published counts, and the one real clip at hand."""

import shutil
from pathlib import Path

import pytest

from data_shards.datasets import daisee
from data_shards.storage.source import Source
from tests.data_shards.layouts import put


@pytest.fixture
def daisee_tree(real_data: Path, tmp_path: Path) -> Path:
    """A DAiSEE tree with the one real clip and the four official label files."""
    video = tmp_path / "DataSet" / "Test" / "510046" / "5100462069" / "5100462069.avi"
    video.parent.mkdir(parents=True)
    shutil.copy(real_data / "videos" / "5100462069.avi", video)
    shutil.copytree(real_data / "labels" / "daisee", tmp_path / "Labels")
    return tmp_path


def labelled_stems(labels: Path) -> dict[str, list[str]]:
    """Split folder to the stems of its official label file, read without our reader."""
    return {
        split: [row.split(".")[0] for row in (labels / f"{split}Labels.csv").read_text().splitlines()[1:]]
        for split in ("Train", "Validation", "Test")
    }


def test_the_real_clip_has_its_official_label_and_split(daisee_tree: Path) -> None:
    (clip,) = daisee.list_clips(Source(daisee_tree)).clips
    assert (clip.clip_id, clip.split, clip.subject) == ("5100462069", "test", "510046")
    assert clip.labels == {"engagement": 3, "boredom": 0, "confusion": 0, "frustration": 0}


def test_every_labelled_clip_that_is_missing_is_counted(daisee_tree: Path) -> None:
    put(daisee_tree, "outside.avi")  # no clip of DAiSEE, as it lies outside DataSet
    rejects = daisee.list_clips(Source(daisee_tree)).rejects
    expected = sum(map(len, labelled_stems(daisee_tree / "Labels").values())) - 1
    assert len(rejects) == expected == 8570
    assert all("no video of that name is there" in reject.reason for reject in rejects)


def test_the_official_files_have_the_published_counts(real_data: Path, tmp_path: Path) -> None:
    # every labelled clip gets a file, so that the listing holds the whole of the official splits
    shutil.copytree(real_data / "labels" / "daisee", tmp_path / "Labels")
    for split, stems in labelled_stems(tmp_path / "Labels").items():
        for stem in stems:
            put(tmp_path, f"DataSet/{split}/{stem[:6]}/{stem}/{stem}.avi")
    listing = daisee.list_clips(Source(tmp_path))
    assert not listing.rejects
    levels = {
        split: [sum(c.split == split and c.labels["engagement"] == k for c in listing.clips) for k in range(4)]
        for split in ("train", "validation", "test")
    }
    assert levels == {"train": [34, 213, 2617, 2494], "validation": [23, 143, 813, 450], "test": [4, 84, 882, 814]}
    people = {split: {c.subject for c in listing.clips if c.split == split} for split in levels}
    assert [len(people[split]) for split in levels] == [69, 19, 21]
    assert not people["train"] & people["test"]
    assert not people["train"] & people["validation"]
