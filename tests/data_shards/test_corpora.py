"""CMOSE, EngageWild and EngageNet: what is particular to each."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_shards.datasets import cmose, engagenet, engagewild
from data_shards.errors import DataError
from data_shards.features import clip_features
from data_shards.listing import NO_LEVEL, FeatureFile
from data_shards.storage.source import Source
from tests.data_shards import layouts
from tests.data_shards.layouts import put, put_arrays


def test_cmose_ids_say_the_session_and_the_person(tmp_path: Path) -> None:
    layouts.cmose(tmp_path)
    put(tmp_path, "videos/video2_1_person1.mp4")
    listing = cmose.list_clips(Source(tmp_path))
    assert [(c.clip_id, c.session, c.subject, c.split, c.labels["engagement"], c.extra) for c in listing.clips] == [
        ("video1_1_person0", "video1", "video1_person0", "train", 0, {"agreement": "1.0"}),
        ("video1_2_person0", "video1", "video1_person0", "validation", 1, {"agreement": "0.67"}),
        ("video2_1_person1", "video2", "video2_person1", "test", 2, {"agreement": "0.67"}),
        ("video2_2_person3", "video2", "video2_person3", "train", 3, {"agreement": "1.0"}),
    ]
    assert [sorted(clip.features) for clip in listing.clips] == [["i3d", "openface"], ["openface"], ["i3d", "openface"], ["i3d"]]
    assert [clip.video is not None for clip in listing.clips] == [False, False, True, False]
    assert "random by clip" in listing.notice
    assert listing.extractors.keys() == {"i3d", "openface"}


def test_cmoses_features_are_what_the_files_hold(tmp_path: Path) -> None:
    layouts.cmose(tmp_path)
    first = cmose.list_clips(Source(tmp_path)).clips[0]
    assert isinstance(first.features["openface"], FeatureFile)
    features = clip_features(first)
    assert features["openface"].shape == (2, 49)
    assert features["i3d"].dtype == np.float32
    np.testing.assert_allclose(features["i3d"], np.arange(1024) * 0.001, atol=1e-6)


def test_cmoses_words_are_read_in_any_case_and_spacing(tmp_path: Path) -> None:
    spelled = ["highly disengage", " Highly  Disengage ", "HIGHLY-DISENGAGE", "Highly_Disengage"]
    records = {f"video1_{n}_person0": {"split": "train", "label": word, "embeds": [0.0] * 1024} for n, word in enumerate(spelled)}
    put(tmp_path, "deep/final_data_1.json", json.dumps(records))
    listing = cmose.list_clips(Source(tmp_path))
    assert [clip.labels["engagement"] for clip in listing.clips] == [0, 0, 0, 0]


def test_a_cmose_id_that_stands_there_twice_is_seen(tmp_path: Path) -> None:
    record = json.dumps({"split": "train", "label": "Engage", "embeds": [0.25] * 1024})
    put(tmp_path, "final_data_1.json", f'{{"video1_1_person0": {record}, "video1_1_person0": {record}}}')
    listing = cmose.list_clips(Source(tmp_path))
    assert len(listing.clips) == 1
    assert "a second time" in listing.rejects[0].reason


@pytest.mark.parametrize("embeds", ["null", "[]"])
def test_a_cmose_record_without_embeds_keeps_the_rest(tmp_path: Path, embeds: str) -> None:
    put(tmp_path, "final_data_1.json", f'{{"video1_1_person0": {{"split": "test", "label": "Engage", "embeds": {embeds}}}}}')
    put(tmp_path, "video1_1_person0.mp4")
    (clip,) = cmose.list_clips(Source(tmp_path)).clips
    assert clip.features == {}
    assert clip.video is not None


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"a": {"embeds": [1.0, }}', "[" * 200_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_json_that_is_something_else_is_one_sentence(tmp_path: Path, text: str) -> None:
    put(tmp_path, "final_data_1.json", text)
    with pytest.raises(DataError, match=r"final_data_1\.json: (not readable as JSON|holds no records)") as raised:
        cmose.list_clips(Source(tmp_path))
    assert "\n" not in str(raised.value)


def test_embeds_that_are_no_number_are_a_reject(tmp_path: Path) -> None:
    for value in ("NaN", "Infinity", "1e300"):
        embeds = f"[{value}{', 0.0' * 1023}]"
        put(tmp_path, "final_data_1.json", f'{{"video1_1_person0": {{"split": "test", "label": "Engage", "embeds": {embeds}}}}}')
        listing = cmose.list_clips(Source(tmp_path))
        assert not listing.clips
        assert "not 1024 finite numbers" in listing.rejects[0].reason


def test_engagewilds_real_arrays_are_listed_with_all_their_features(real_data: Path) -> None:
    listing = engagewild.list_clips(Source(real_data / "engagewild"))
    assert not listing.rejects
    assert [sum(clip.split == split for clip in listing.clips) for split in ("train", "validation", "test")] == [146, 48, 0]
    counts = {
        split: [sum(c.split == split and c.labels["engagement"] == k for c in listing.clips) for k in range(4)]
        for split in ("train", "validation")
    }
    assert counts == {"train": [5, 35, 78, 28], "validation": [4, 10, 19, 15]}
    assert len({clip.subject for clip in listing.clips}) == 194
    assert "name no people" in listing.notice
    with np.load(real_data / "engagewild" / "vggface2_21.npz") as stored:
        last = listing.clips[-1]
        assert last.clip_id == "validation-047"
        np.testing.assert_array_equal(clip_features(last)["vggface2_21"], stored["x_val"][47])
    shapes = {name: values.shape for name, values in clip_features(listing.clips[0]).items()}
    assert shapes == {"openface_15": (15, 60), "openface_21": (21, 60), "vggface2_15": (15, 128), "vggface2_21": (21, 128)}


def test_engagewild_arrays_of_other_clips_are_refused(tmp_path: Path) -> None:
    layouts.engagewild(tmp_path)
    put_arrays(tmp_path, "openface_21", y_val=np.array([0.33, 1], dtype=np.float32))
    with pytest.raises(DataError, match=r"y_val of openface_15\.npz and openface_21\.npz differ"):
        engagewild.list_clips(Source(tmp_path))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"y_val": None}, "lacks y_val"),
        ({"x_train": np.zeros((3, 15, 60), np.float32)}, r"x_train of shape \(3, 15, 60\) and y_train of shape \(4,\)"),
        ({"x_train": np.zeros((4, 900), np.float32)}, r"must be \(N, S, F\) and \(N,\)"),
        ({"x_train": np.zeros((4, 0, 60), np.float32)}, r"must be \(N, S, F\) and \(N,\)"),
        ({"x_train": np.array([None] * 4)}, "not readable arrays"),
        ({"x_train": np.array(["a"] * 4)}, "not readable arrays"),
    ],
)
def test_engagewild_arrays_of_another_form_are_one_sentence(
    tmp_path: Path, changed: dict[str, np.ndarray | None], sentence: str
) -> None:
    put_arrays(tmp_path, "openface_15", **changed)
    with pytest.raises(DataError, match=sentence) as raised:
        engagewild.list_clips(Source(tmp_path))
    assert "\n" not in str(raised.value)


def test_damaged_engagewild_arrays_are_one_sentence(tmp_path: Path) -> None:
    put_arrays(tmp_path, "openface_15")
    whole = (tmp_path / "openface_15.npz").read_bytes()
    for content in (b"", b"not a zip", whole[:2000], whole[:400] + b"\0" * 4 + whole[404:]):
        put(tmp_path, "openface_15.npz", content)
        with pytest.raises(DataError, match="not readable arrays"):
            engagewild.list_clips(Source(tmp_path))


def test_one_wrong_row_of_an_array_loses_one_clip(tmp_path: Path) -> None:
    x_train = np.zeros((4, 15, 60), np.float32)
    x_train[1, 3, 7] = np.nan
    put_arrays(tmp_path, "openface_15", x_train=x_train, y_val=np.array([0.5, 1.0]))
    listing = engagewild.list_clips(Source(tmp_path))
    assert [clip.clip_id for clip in listing.clips] == ["train-000", "train-002", "train-003", "validation-001"]
    assert [reject.clip_id for reject in listing.rejects] == ["train-001", "validation-000"]
    assert "openface_15.npz holds values that are not numbers" in listing.rejects[0].reason
    assert "its y is 0.5" in listing.rejects[1].reason


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("labels.csv", "subject_26_Vid_1,0.66\nsubject_26_Vid_5_1,0.33\nsubject_1_Vid_1,1\n11,0\n"),
        ("Engagement_Labels.txt", "subject_26_Vid_1.mp4 .66\nsubject_26_Vid_5_1.AVI 0.33\nsubject_1_Vid_1.webm 1.0\n11.mp4 0\n"),
        ("train_labels.csv", "video_name,attention\nsubject_26_Vid_1,0.66\nsubject_26_Vid_5_1,0.33\nsubject_1_Vid_1,1\n11,0.0\n"),
        ("labels.csv", 'name;value\n"subject_26_Vid_1";"0.66"\nsubject_26_Vid_5_1; 0.33\n subject_1_Vid_1 ;1\n\n11;0\n'),
    ],
)
def test_engagewild_videos_in_every_form_their_labels_have(tmp_path: Path, name: str, labels: str) -> None:
    layouts.engagewild_videos(tmp_path)
    (tmp_path / "labels.csv").unlink()
    put(tmp_path, name, labels)
    listing = engagewild.list_clips(Source(tmp_path))
    assert not listing.rejects
    assert [(c.clip_id, c.subject, c.split, c.labels["engagement"]) for c in listing.clips] == [
        ("subject_26_Vid_1", "subject_26", "train", 2),
        ("subject_26_Vid_5_1", "subject_26", "train", 1),
        ("subject_1_Vid_1", "subject_1", "validation", 3),
        ("11", "11", "test", 0),
    ]


def test_a_spreadsheet_of_labels_is_asked_for_as_csv(tmp_path: Path) -> None:
    put(tmp_path, "train_labels.xlsx", b"PK\x03\x04")
    with pytest.raises(DataError, match=r"train_labels\.xlsx is a spreadsheet; save it as CSV beside it"):
        engagewild.list_clips(Source(tmp_path))
    put(tmp_path, "train_engagement_labels.xlsx", b"PK\x03\x04")
    with pytest.raises(DataError, match=r"a spreadsheet; save it as train_engagement_labels\.csv beside it"):
        engagenet.list_clips(Source(tmp_path))


def test_engagenet_says_who_is_in_a_clip_and_whether_anybody_is(tmp_path: Path) -> None:
    layouts.engagenet(tmp_path)
    listing = engagenet.list_clips(Source(tmp_path))
    assert [(c.clip_id, c.subject, c.session, c.split, c.labels) for c in listing.clips] == [
        ("subject_7_ab12_vid_0_0", "subject_7", "subject_7_ab12_vid_0", "train", {"engagement": 0, "presence": 1}),
        ("subject_7_ab12_vid_0_1", "subject_7", "subject_7_ab12_vid_0", "train", {"engagement": NO_LEVEL, "presence": 0}),
        ("subject_8_cd34_vid_1_0", "subject_8", "subject_8_cd34_vid_1", "validation", {"engagement": 1, "presence": 1}),
        ("subject_9_ef56_vid_2_0", "subject_9", "subject_9_ef56_vid_2", "test", {"engagement": 2, "presence": 1}),
        ("subject_9_ef56_vid_2_1", "subject_9", "subject_9_ef56_vid_2", "test", {"engagement": 3, "presence": 1}),
    ]


@pytest.mark.parametrize("word", ["snp (subject not present)", "SNP(Subject Not Present)", "SNP", "Subject not present"])
def test_engagenets_words_in_any_spelling(tmp_path: Path, word: str) -> None:
    put(tmp_path, "Train/Subject_7_a_0.mp4")
    put(tmp_path, "Train/subject_7_a_1.mp4")
    put(
        tmp_path, "labels/Train_Engagement_Labels.CSV", f"chunk,label\nSubject_7_a_0.mp4,{word}\nsubject_7_a_1, barely ENGAGED \n"
    )
    listing = engagenet.list_clips(Source(tmp_path))
    assert [clip.labels["engagement"] for clip in listing.clips] == [NO_LEVEL, 1]
    assert {clip.subject for clip in listing.clips} == {"subject_7"}
