"""Datasets: published layouts with their quirks, and label files that are wrong in a named place."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_shards.datasets import daisee, folder
from data_shards.errors import DataError


def make_folder(tmp_path: Path, labels_csv: str | bytes, clips: tuple[str, ...] = ("a.mp4", "b.mp4")) -> Path:
    for name in clips:
        (tmp_path / name).write_bytes(b"video")
    content = labels_csv if isinstance(labels_csv, bytes) else labels_csv.encode()
    (tmp_path / "labels.csv").write_bytes(content)
    return tmp_path


GOOD = "clip,label,subject,split\na.mp4,0,p1,train\nb.mp4,3,p2,test\n"


def test_folder_lists_its_rows_in_order(tmp_path: Path) -> None:
    listing = folder.list_clips(make_folder(tmp_path, GOOD))
    assert [(c.clip_id, c.labels, c.subject, c.split) for c in listing.clips] == [
        ("a.mp4", {"engagement": 0}, "p1", "train"),
        ("b.mp4", {"engagement": 3}, "p2", "test"),
    ]
    assert not listing.simulated
    assert not listing.rejects


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_folder_reads_what_spreadsheets_write(tmp_path: Path, encoding: str) -> None:
    content = " clip , label,subject ,split,note \r\na.mp4,0,p1,train,naïve\r\n\r\nb.mp4,3,p2,test,\r\n"
    listing = folder.list_clips(make_folder(tmp_path, content.encode(encoding)))
    assert [clip.extra for clip in listing.clips] == [{"note": "naïve"}, {}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("clip,label,split\na.mp4,0,train\n", r"no column named 'subject' \(it has: clip, label, split\)"),
        ("", "no column named 'clip'"),
        ("clip,label,label,subject,split\na.mp4,0,3,p1,train\n", "two columns are named 'label'"),
        ("clip,label,subject,split\na.mp4,\u0662,p1,train\n", "outside its range"),
        ("clip,label,subject,split\na.mp4," + "1" * 5000 + ",p1,train\n", "outside its range"),
        ("clip,label,subject,split\n" + "a" * 140_000 + ",1,p1,train\n", "not readable as CSV"),
        ('clip,label,subject,split\n"a.mp4,1,p1,train\n', "not readable as CSV"),
        ("clip,label,subject,split\na.mp4,4,p1,train\n", r"line 2: label is '4', outside its range 0 to 3"),
        ("clip,label,subject,split\na.mp4,-1,p1,train\n", "outside its range"),
        ("clip,label,subject,split\na.mp4,high,p1,train\n", "outside its range"),
        ("clip,label,subject,split\na.mp4,1,p1,exam\n", "split is 'exam'"),
        ("clip,label,subject,split\na.mp4,1,,train\n", "no subject"),
        (b"\xff\xfe\x00\xd8\x00", "not text"),
        (b"clip\x81\xfe", "not text"),
    ],
)
def test_a_wrong_label_file_stops_with_its_place(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        folder.list_clips(make_folder(tmp_path, content))


def test_odd_rows_are_rejects_and_the_rest_is_listed(tmp_path: Path) -> None:
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    rows = [f"{name},1,p1,train" for name in ("loop.mp4", "x" * 300 + ".mp4", "nul\x00.mp4", '"a\nb.mp4"')]
    listing = folder.list_clips(make_folder(tmp_path, GOOD + "\n".join(rows) + "\n"))
    assert [clip.clip_id for clip in listing.clips] == ["a.mp4", "b.mp4"]
    assert len(listing.rejects) == 4


def test_one_file_under_two_spellings_is_one_clip(tmp_path: Path) -> None:
    listing = folder.list_clips(make_folder(tmp_path, GOOD + "./a.mp4,0,p1,test\n"))
    assert [clip.clip_id for clip in listing.clips] == ["a.mp4", "b.mp4"]
    assert "a second time" in listing.rejects[0].reason


def test_a_clip_outside_the_folder_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"x")
    inside = tmp_path / "in"
    inside.mkdir()
    listing = folder.list_clips(make_folder(inside, "clip,label,subject,split\n../secret.mp4,1,p1,train\n", clips=()))
    assert not listing.clips
    assert "outside the folder" in listing.rejects[0].reason


def test_a_missing_source_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv: the label file cannot be read \(No such file or directory\)"):
        folder.list_clips(tmp_path / "none")


@pytest.fixture
def daisee_tree(real_data: Path, tmp_path: Path) -> Path:
    """A DAiSEE tree with the one real clip at hand and the four official label files."""
    video = tmp_path / "DataSet" / "Test" / "510046" / "5100462069" / "5100462069.avi"
    video.parent.mkdir(parents=True)
    shutil.copy(real_data / "videos" / "5100462069.avi", video)
    for split in ("Train", "Validation"):
        (tmp_path / "DataSet" / split).mkdir()
    shutil.copytree(real_data / "labels" / "daisee", tmp_path / "Labels")
    return tmp_path


def test_daisee_finds_the_real_clip_with_its_official_label_and_split(daisee_tree: Path) -> None:
    listing = daisee.list_clips(daisee_tree)
    (clip,) = listing.clips
    assert (clip.clip_id, clip.split, clip.subject) == ("5100462069", "test", "510046")
    assert clip.labels == {"engagement": 3, "boredom": 0, "confusion": 0, "frustration": 0}


def test_daisee_counts_every_labelled_clip_that_is_missing(daisee_tree: Path, real_data: Path) -> None:
    rejects = Counter(reject.reason.split(" not below ")[-1] for reject in daisee.list_clips(daisee_tree).rejects)
    lines = {
        split: len((real_data / "labels" / "daisee" / f"{split}Labels.csv").read_text().splitlines()) - 1
        for split in ("Train", "Validation", "Test")
    }
    assert (
        rejects
        == {
            "but DataSet/Train": lines["Train"],
            "but DataSet/Validation": lines["Validation"],
            "but DataSet/Test": lines["Test"] - 1,
        }
        or sum(rejects.values()) == sum(lines.values()) - 1
    )


def test_daisee_names_a_clip_without_a_label(daisee_tree: Path) -> None:
    stray = daisee_tree / "DataSet" / "Train" / "999999" / "9999991001" / "9999991001.avi"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x")
    reasons = [reject.reason for reject in daisee.list_clips(daisee_tree).rejects if reject.clip_id == "9999991001"]
    assert reasons == ["clip 9999991001: lies below DataSet/Train, but has no line in TrainLabels.csv"]


def test_daisees_official_files_have_the_published_counts(real_data: Path, tmp_path: Path) -> None:
    # every labelled clip gets an empty file, so that the listing holds the whole of the official splits
    shutil.copytree(real_data / "labels" / "daisee", tmp_path / "Labels")
    for split in ("Train", "Validation", "Test"):
        for row in (tmp_path / "Labels" / f"{split}Labels.csv").read_text().splitlines()[1:]:
            stem = row.split(".")[0]
            video = tmp_path / "DataSet" / split / stem[:6] / stem / f"{stem}.avi"
            video.parent.mkdir(parents=True, exist_ok=True)
            video.touch()
    listing = daisee.list_clips(tmp_path)
    levels = {
        split: [sum(c.split == split and c.labels["engagement"] == k for c in listing.clips) for k in range(4)]
        for split in ("train", "validation", "test")
    }
    assert levels == {"train": [34, 213, 2617, 2494], "validation": [23, 143, 813, 450], "test": [4, 84, 882, 814]}
    people = {split: {c.subject for c in listing.clips if c.split == split} for split in levels}
    assert [len(people[split]) for split in levels] == [69, 19, 21]
    assert not people["train"] & people["test"]
    assert not people["train"] & people["validation"]


def test_a_folder_that_is_not_daisee_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder DataSet"):
        daisee.list_clips(tmp_path)
