"""A folder of clips with labels.csv: what people and spreadsheets write into it."""

import re
from pathlib import Path

import pytest

from data_shards.datasets import folder
from data_shards.errors import DataError
from data_shards.listing import Listing
from data_shards.storage.source import Source
from tests.data_shards.layouts import put

GOOD = "clip,label,subject,split\na.mp4,0,p1,train\nb.mp4,3,p2,test\n"


def listed(root: Path, labels_csv: str | bytes, clips: tuple[str, ...] = ("a.mp4", "b.mp4")) -> Listing:
    for name in clips:
        put(root, name)
    put(root, "labels.csv", labels_csv)
    return folder.list_clips(Source(root))


def test_rows_are_listed_in_order(tmp_path: Path) -> None:
    listing = listed(tmp_path, GOOD)
    assert [(c.clip_id, c.labels, c.subject, c.split) for c in listing.clips] == [
        ("a.mp4", {"engagement": 0}, "p1", "train"),
        ("b.mp4", {"engagement": 3}, "p2", "test"),
    ]
    assert not listing.simulated
    assert not listing.rejects


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, encoding: str) -> None:
    content = " clip , label,subject ,split,note \r\na.mp4,0,p1,train,naïve\r\n\r\nb.mp4,3,p2,test,\r\n"
    listing = listed(tmp_path, content.encode(encoding))
    assert [clip.extra for clip in listing.clips] == [{"note": "naïve"}, {}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("clip,label,split\na.mp4,0,train\n", r"no column named 'subject' \(it has: clip, label, split\)"),
        ("", "no column named 'clip'"),
        ("clip,label,label,subject,split\na.mp4,0,3,p1,train\n", "two columns are named 'label'"),
        ("clip,label,subject,split\n" + "a" * 140_000 + ",1,p1,train\n", "not readable as CSV"),
        ('clip,label,subject,split\n"a.mp4,1,p1,train\n', "not readable as CSV"),
        (b"\xff\xfe\x00\xd8\x00", "not text"),
        (b"clip\x81\xfe", "not text"),
    ],
)
def test_a_file_that_is_no_csv_of_labels_stops_with_its_place(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        listed(tmp_path, content)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b.mp4,\u0662,p1,train", "outside its range"),
        ("b.mp4," + "1" * 5000 + ",p1,train", "outside its range"),
        ("b.mp4,4,p1,train", r"line 3: label is '4', outside its range 0 to 3"),
        ("b.mp4,-1,p1,train", "outside its range"),
        ("b.mp4,high,p1,train", "outside its range"),
        ("b.mp4,,p1,train", "label is empty"),
        ("b.mp4,1,p1,exam", "split is 'exam'"),
        ("b.mp4,1,,train", "no subject"),
        ("b.mp4,1", "split is ''"),
    ],
)
def test_a_wrong_row_is_a_reject_with_its_place(tmp_path: Path, row: str, reason: str) -> None:
    listing = listed(tmp_path, f"clip,label,subject,split\na.mp4,0,p1,train\n{row}\n")
    assert [clip.clip_id for clip in listing.clips] == ["a.mp4"]
    assert re.search(reason, listing.rejects[0].reason)
    assert listing.rejects[0].clip_id == "b.mp4"


def test_odd_names_are_rejects_and_the_rest_is_listed(tmp_path: Path) -> None:
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    rows = [f"{name},1,p1,train" for name in ("loop.mp4", "x" * 300 + ".mp4", "nul\x00.mp4", '"a\nb.mp4"')]
    listing = listed(tmp_path, GOOD + "\n".join(rows) + "\n")
    assert [clip.clip_id for clip in listing.clips] == ["a.mp4", "b.mp4"]
    assert len(listing.rejects) == 4
