"""The contract of every dataset: its published layout is listed, and what is wrong in it is named and loses nothing else."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_shards.datasets import DATASETS
from data_shards.datasets.engagewild import list_clips as list_engagewild
from data_shards.errors import DataError
from data_shards.listing import NO_LEVEL, SPLITS, Listing
from data_shards.storage.source import Source
from tests.data_shards.layouts import LAYOUTS, cmose_records, engagewild_videos, put

WRITERS = {**LAYOUTS, "engagewild videos": engagewild_videos}
READERS: dict[str, Callable[[Source], Listing]] = {**DATASETS, "engagewild videos": list_engagewild}
LABEL_FILES = {
    "daisee": "Labels/TrainLabels.csv",
    "engagewild videos": "labels.csv",
    "engagenet": "train_engagement_labels.csv",
    "folder": "labels.csv",
}


def listed(name: str, root: Path) -> Listing:
    return READERS[name](Source(root))


def test_every_dataset_has_a_layout() -> None:
    assert LAYOUTS.keys() == DATASETS.keys()


@pytest.mark.parametrize("name", WRITERS)
def test_the_published_layout_is_listed_whole(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    listing = listed(name, tmp_path)
    assert not listing.rejects
    assert {clip.split for clip in listing.clips} <= set(SPLITS)
    assert {clip.split for clip in listing.clips} >= {"train", "validation"}
    assert len({clip.clip_id for clip in listing.clips}) == len(listing.clips) >= 3
    assert all(clip.subject for clip in listing.clips)
    assert all(clip.video or clip.features for clip in listing.clips)
    assert listing.label_names
    assert next(iter(listing.label_names)) == "engagement"
    for clip in listing.clips:
        assert clip.labels.keys() == listing.label_names.keys()
        assert all(NO_LEVEL <= level < len(listing.label_names[label]) for label, level in clip.labels.items())
    assert {clip.labels["engagement"] for clip in listing.clips} - {NO_LEVEL}
    assert listed(name, tmp_path) == listing


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_and_an_empty_folder_are_one_sentence(name: str, tmp_path: Path) -> None:
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="no file there; name the folder") as raised:
            listed(name, root)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_of_something_else_says_what_is_missing(name: str, tmp_path: Path) -> None:
    put(tmp_path, "holiday/beach.mp4")
    with pytest.raises(DataError, match=r"name the folder|no such file"):
        listed(name, tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("name", [*LABEL_FILES, "cmose"])
def test_label_files_in_what_spreadsheets_write(name: str, encoding: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    clips = listed(name, tmp_path).clips
    path = tmp_path / LABEL_FILES.get(name, "final_data_1.json")
    path.write_bytes(path.read_text().encode(encoding))
    assert [(c.clip_id, c.labels) for c in listed(name, tmp_path).clips] == [(c.clip_id, c.labels) for c in clips]


@pytest.mark.parametrize("name", LABEL_FILES)
def test_semicolons_for_commas(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    clips = [(clip.clip_id, clip.labels) for clip in listed(name, tmp_path).clips]
    path = tmp_path / LABEL_FILES[name]
    path.write_text(path.read_text().replace(",", ";"))
    assert [(clip.clip_id, clip.labels) for clip in listed(name, tmp_path).clips] == clips


# (dataset, one more line or record, one more file, its reason)
ODD: list[tuple[str, Any, str, str]] = [
    # a level out of range, or none at all
    ("daisee", "1100011003.avi,0,4,0,0", "DataSet/Train/1100011003.avi", "engagement is '4', outside its range 0 to 3"),
    ("daisee", "1100011003.avi,0,,0,0", "DataSet/Train/1100011003.avi", "engagement is empty"),
    ("engagewild videos", "subject_3_Vid_1,0.5", "Train/subject_3_Vid_1.mp4", "engagement is '0.5', not one of 0, 0.33"),
    ("engagewild videos", "subject_3_Vid_1,nan", "Train/subject_3_Vid_1.mp4", "engagement is 'nan'"),
    ("engagewild videos", "subject_3_Vid_1", "Train/subject_3_Vid_1.mp4", "engagement is ''"),
    ("engagenet", "subject_7_ab12_vid_0_2.mp4,Asleep", "Train/subject_7_ab12_vid_0_2.mp4", "label is 'Asleep', not one of"),
    ("folder", "d.mp4,7,p4,train", "d.mp4", "label is '7', outside its range"),
    ("cmose", ("video9_1_person0", {"split": "train", "label": "Asleep", "embeds": [0.5] * 1024}), "", "label is 'Asleep'"),
    ("cmose", ("video9_1_person0", {"split": "train", "embeds": [0.5] * 1024}), "", "label is 'None'"),
    # a split that does not exist, or is another than the folder says
    ("daisee", "1100011003.avi,0,1,0,0", "DataSet/Test/1100011003.avi", "lies in the test folder, but .* puts it into train"),
    ("engagewild videos", "subject_3_Vid_1,0.33", "Exam/subject_3_Vid_1.mp4", "lies in no folder Train, Validation or Test"),
    ("engagenet", "subject_7_ab12_vid_0_2.mp4,Engaged", "Test/subject_7_ab12_vid_0_2.mp4", "lies in the test folder, but"),
    ("folder", "d.mp4,1,p4,exam", "d.mp4", "split is 'exam'"),
    ("cmose", ("video9_1_person0", {"split": "exam", "label": "Engage", "embeds": [0.5] * 1024}), "", "split is 'exam'"),
    # a clip twice
    ("daisee", "1100011001.mp4,0,1,0,0", "", "a second time"),
    ("engagewild videos", "subject_26_Vid_1.mp4,1", "", "a second time"),
    ("engagenet", "subject_7_ab12_vid_0_0,Engaged", "", "a second time"),
    ("folder", "./a.mp4,1,p1,train", "", "a second time"),
    # two videos of one name
    ("daisee", "1100011003.avi,0,1,0,0", "DataSet/Train/1100011003.avi DataSet/Train/1100011003.mp4", "have one name"),
    ("engagenet", "subject_7_a_0.mp4,Engaged", "Train/subject_7_a_0.mp4 Train/b/subject_7_a_0.mp4", "have one name"),
    # a clip outside the folder, or with no name
    ("daisee", "../secret.mp4,0,1,0,0", "", "'../secret.mp4' is no file name"),
    ("engagewild videos", "../secret.mp4,1", "", "'../secret.mp4' is no file name"),
    ("engagenet", "../secret.mp4,Engaged", "", "'../secret.mp4' is no file name"),
    ("engagenet", "..\\secret.mp4,Engaged", "", "is no file name"),
    ("folder", "../secret.mp4,1,p1,train", "", "outside the folder"),
    ("cmose", ("../secret", {"split": "train", "label": "Engage", "embeds": [0.5] * 1024}), "", "not an id like"),
    ("daisee", ",0,1,0,0", "", "'' is no file name"),
    # a label without a clip
    ("daisee", "1100011009.avi,0,1,0,0", "", "no video of that name"),
    ("engagewild videos", "subject_3_Vid_1,1", "", "no video of that name"),
    ("engagenet", "subject_7_ab12_vid_0_9.mp4,Engaged", "", "no video of that name"),
    ("engagenet", "ab12_vid_0_9.mp4,Engaged", "", "names no subject"),
    ("folder", "e.mp4,1,p1,train", "", "no file 'e.mp4'"),
    ("cmose", ("video9_1_person0", {"split": "train", "label": "Engage", "embeds": []}), "", "no I3D embeds, no OpenFace CSV"),
    # a clip without a label
    ("daisee", None, "DataSet/Train/9999999999.avi", "has no line in any label file"),
    ("engagewild videos", None, "Test/999.mp4", "has no line in any label file"),
    ("engagenet", None, "Test/999.mp4", "has no line in any label file"),
    ("folder", None, "f.mp4", "no row in labels.csv"),
    ("cmose", None, "secondFeature/video9_1_person0.csv", "has no record in final_data_1.json"),
    ("cmose", None, "video9_1_person0.mp4", "has no line in any label file"),
    # embeds and records of CMOSE that are something else
    ("cmose", ("video9_1_person0", {"split": "train", "label": "Engage", "embeds": [0.5] * 9}), "", "not 1024 finite numbers"),
    ("cmose", ("video9_1_person0", {"split": "train", "label": "Engage", "embeds": ["a"]}), "", "not 1024 finite numbers"),
    ("cmose", ("video9_1_person0", {"split": "train", "label": "Engage", "embeds": {"a": 1}}), "", "not 1024 finite numbers"),
    ("cmose", ("video9_1_person0", {"split": "train", "label": "Engage", "embeds": [[1.0], 2.0]}), "", "not 1024 finite"),
    ("cmose", ("video9_1_person0", {"split": [], "label": {}, "embeds": []}), "", "split is"),
    ("cmose", ("video9_1_person0", [1, 2]), "", "its record is no object"),
    ("cmose", ("video9_1_person0", None), "", "its record is no object"),
]


@pytest.mark.parametrize(("name", "line", "files", "reason"), ODD, ids=lambda value: str(value)[:40])
def test_an_odd_entry_is_a_reject_and_loses_nothing_else(name: str, line: Any, files: str, reason: str, tmp_path: Path) -> None:
    put(tmp_path, "secret.mp4")
    root = tmp_path / "data"
    WRITERS[name](root)
    before = listed(name, root).clips
    for file in files.split():
        put(root, file)
    if name == "cmose" and line:
        put(root, "final_data_1.json", json.dumps(cmose_records() | {line[0]: line[1]}))
    elif line:
        path = root / LABEL_FILES[name]
        path.write_text(f"{path.read_text()}{line}\n")
    listing = listed(name, root)
    assert [(clip.clip_id, clip.labels) for clip in listing.clips] == [(clip.clip_id, clip.labels) for clip in before]
    (reject,) = listing.rejects
    assert re.search(reason, reject.reason)
    assert "\n" not in reject.reason


@pytest.mark.parametrize("name", LABEL_FILES)
def test_a_file_that_is_no_text_is_one_sentence(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    (tmp_path / LABEL_FILES[name]).write_bytes(b"clip\x81\xfe")
    with pytest.raises(DataError, match="not text in UTF-8 or UTF-16"):
        listed(name, tmp_path)


@pytest.mark.parametrize("name", ["daisee", "engagenet", "folder"])
def test_a_missing_column_is_named(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    (tmp_path / LABEL_FILES[name]).write_text("one,two\n1,2\n")
    with pytest.raises(DataError, match=r"no column named '\w+' \(it has: one, two\)"):
        listed(name, tmp_path)
