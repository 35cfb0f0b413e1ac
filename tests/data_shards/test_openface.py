"""OpenFace CSVs: every real variant by column name, several faces, gaps, and files that are damaged."""

import csv
from pathlib import Path

import numpy as np
import pytest

from data_shards.datasets.openface import ACTION_UNITS, GAZE, HEAD_POSE, OPENFACE_COLUMNS, read_openface
from data_shards.errors import ClipError
from data_shards.features import checked
from tests.data_shards.layouts import openface_csv


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "clip.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def naively_read(path: Path, columns: tuple[str, ...]) -> np.ndarray:
    with path.open(newline="") as file:
        rows = [{name.strip(): value for name, value in row.items()} for row in csv.DictReader(file)]
    return np.array([[float(row[column]) for column in columns] for row in rows], dtype=np.float32)


def test_the_columns_are_those_that_cmose_uses() -> None:
    assert (len(GAZE), len(HEAD_POSE), len(ACTION_UNITS)) == (8, 6, 17 + 18)
    assert (*GAZE, *HEAD_POSE, *ACTION_UNITS) == OPENFACE_COLUMNS
    assert OPENFACE_COLUMNS[0] == "gaze_0_x"
    assert OPENFACE_COLUMNS[-1] == "AU45_c"


@pytest.mark.parametrize("name", ["test1.openface.csv", "test2.openface.csv"])
def test_all_714_columns(real_data: Path, name: str) -> None:
    path = real_data / "openface" / name
    values_TD = read_openface(path)
    assert values_TD.dtype == np.float32
    assert values_TD.shape == (300, 49)
    np.testing.assert_array_equal(values_TD, naively_read(path, OPENFACE_COLUMNS))


@pytest.mark.parametrize("name", ["test1.openface.csv", "test2.openface.csv"])
def test_gaze_angles_are_derived_as_openface_does(real_data: Path, tmp_path: Path, name: str) -> None:
    whole = (real_data / "openface" / name).read_text()
    without = written(tmp_path, whole.replace(" gaze_angle_x", " unused_x").replace(" gaze_angle_y", " unused_y"))
    # its own columns have three decimals
    np.testing.assert_allclose(read_openface(without), read_openface(real_data / "openface" / name), atol=0.00051)


def test_a_variant_without_face_id_and_gaze_angles(real_data: Path) -> None:
    path = real_data / "openface" / "variant_431_columns.csv"
    values_TD = read_openface(path)
    assert values_TD.shape == (100, 49)
    own = tuple(column for column in OPENFACE_COLUMNS if "angle" not in column)
    places = [OPENFACE_COLUMNS.index(column) for column in own]
    np.testing.assert_array_equal(values_TD[:, places], naively_read(path, own))


def test_a_variant_without_gaze_names_what_it_lacks_and_is_read_for_the_rest(real_data: Path) -> None:
    path = real_data / "openface" / "variant_46_columns.csv"
    with pytest.raises(ClipError, match=r"lacks the columns gaze_0_x, .*gaze_1_z; run OpenFace with -gaze"):
        read_openface(path)
    columns = (*HEAD_POSE, *ACTION_UNITS)
    np.testing.assert_array_equal(read_openface(path, columns=columns), naively_read(path, columns))


def test_the_face_of_highest_confidence_counts(tmp_path: Path) -> None:
    rows: list[dict[str, float | str]] = [
        {"frame": 2, "face_id": 0, "confidence": 0.7, "pose_Tx": 20},
        {"frame": 1, "face_id": 1, "confidence": 0.9, "pose_Tx": 11},
        {"frame": 1, "face_id": 0, "confidence": 0.6, "pose_Tx": 10},
        {"frame": 2, "face_id": 1, "confidence": 0.7, "pose_Tx": 21},
        {"frame": 2, "face_id": 2, "confidence": 0.99, "success": 0, "pose_Tx": 22},
    ]
    values_T = read_openface(written(tmp_path, openface_csv(rows)), columns=("pose_Tx",))[:, 0]
    assert values_T.tolist() == [11, 20]


@pytest.mark.parametrize(
    "failed",
    [{"success": 0}, {"confidence": 0}, {"confidence": "nan"}, {"pose_Tx": "nan"}, {"pose_Tx": "-nan(ind)"}, {"pose_Tx": "inf"}],
)
def test_a_frame_that_was_not_tracked_keeps_its_place_and_is_marked(tmp_path: Path, failed: dict[str, float | str]) -> None:
    rows: list[dict[str, float | str]] = [{"frame": frame, "pose_Tx": frame, "pose_Ty": 7} for frame in (1, 2, 3, 4, 8)]
    for number in (0, 2):
        rows[number] |= failed
    values_T2 = read_openface(written(tmp_path, openface_csv(rows)), columns=("pose_Tx", "pose_Ty"))
    nan = np.nan
    np.testing.assert_array_equal(values_T2[:, 0], [nan, 2, nan, 4, nan, nan, nan, 8])  # 5, 6 and 7 have no row at all
    np.testing.assert_array_equal(values_T2[:, 1], [nan, 7, nan, 7, nan, nan, nan, 7])  # never half of a row


def test_a_file_in_which_nobody_was_tracked_says_so_row_by_row(tmp_path: Path) -> None:
    values_TD = read_openface(written(tmp_path, openface_csv([{"frame": 1, "success": 0}, {"frame": 3, "success": 0}])))
    assert values_TD.shape == (3, 49)
    assert np.isnan(values_TD).all()
    assert np.isnan(checked(values_TD, "a clip")).all()  # such an array may be stored


def test_a_file_without_confidence_and_success(tmp_path: Path) -> None:
    path = written(tmp_path, "frame,pose_Tx\n5,1.5\n4,0.5\n5,9\n\n")
    assert read_openface(path, columns=("pose_Tx",)).tolist() == [[0.5], [1.5]]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_file_that_a_spreadsheet_wrote(tmp_path: Path, encoding: str) -> None:
    content = openface_csv([{"frame": 1}, {"frame": 2}]).replace("\n", "\r\n")
    assert read_openface(written(tmp_path, content.encode(encoding))).shape == (2, 49)


WHOLE = openface_csv([{"frame": 1}, {"frame": 2}])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "lacks the columns AU01_c, .* and 38 more; run OpenFace"),
        (WHOLE.splitlines()[0], "names its columns and has no frame"),
        (WHOLE[:-20], r"line 3: \d+ of 54 columns, so the file is cut short"),
        (WHOLE.replace("\n1,", "\none,"), "line 2: frame is 'one', not a number"),
        (WHOLE.replace("\n1,", "\n1.5,"), "line 2: frame is '1.5', not a whole number"),
        (WHOLE.replace("\n1,", "\n-1,"), "not a whole number"),
        (WHOLE.replace("\n1,", "\nnan,"), "not a whole number"),
        (WHOLE.replace("\n1,", "\n9000000,"), "frames 2 to 9000000, over the limit"),
        (WHOLE.replace(" 0.98", "high", 1), "line 2: confidence is 'high', not a number"),
        (b"\xff\xfe\x00\xd8\x00", "not readable as CSV"),
        (WHOLE.encode() + b"\x81\xfe", "not readable as CSV"),
        (WHOLE + "1" * 200_000, "not readable as CSV"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(ClipError, match=sentence) as raised:
        read_openface(written(tmp_path, content))
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("clip.csv")


def test_a_file_of_hours_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    with path.open("r+b") as file:
        file.truncate(6 * 2**30)  # ten hours of 714 columns; a sparse file takes no room
    with pytest.raises(ClipError, match="6,442,450,944 bytes, over the limit"):
        read_openface(path)
