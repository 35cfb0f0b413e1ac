"""Label views, against loops written from the rule's words; counts on DAiSEE's official files."""

import csv
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import ConfigError
from data_shards.listing import ENGAGEMENT_LEVELS, NO_LEVEL
from data_shards.reading.label_views import LABEL_VIEWS, view_labels

AFFECTS = ("boredom", "engagement", "confusion", "frustration")
NAMES = dict.fromkeys(AFFECTS, ENGAGEMENT_LEVELS)
CLASSES = ("other", "bored", "engaged")


def naive_class(clip: dict[str, int]) -> int:
    """The three-class rule, word by word."""
    top = max(clip.values())
    tied = {affect for affect, level in clip.items() if level == top}
    if len(tied) >= 3:
        return NO_LEVEL
    binary_engaged = clip["engagement"] >= 2
    if len(tied) == 2 and "engagement" in tied:
        winner = "engagement" if binary_engaged else (tied - {"engagement"}).pop()
    elif len(tied) == 2 and "boredom" in tied:
        winner = (tied - {"boredom"}).pop() if binary_engaged else "boredom"
    else:
        winner = tied.pop()
    return {"engagement": 2, "boredom": 1}.get(winner, 0)


def as_levels(clips: list[dict[str, int]]) -> dict[str, np.ndarray]:
    return {affect: np.array([clip[affect] for clip in clips], dtype=np.int64) for affect in AFFECTS}


def official_rows(real_data: Path, split: str) -> list[dict[str, int]]:
    with (real_data / "labels" / "daisee" / f"{split}Labels.csv").open(newline="") as file:
        rows = [{name.strip().lower(): value for name, value in row.items()} for row in csv.DictReader(file)]
    return [{affect: int(row[affect]) for affect in AFFECTS} for row in rows]


@pytest.mark.parametrize("view", LABEL_VIEWS)
def test_every_view_is_whole(view: str) -> None:
    clips = [dict(zip(AFFECTS, levels, strict=True)) for levels in product(range(4), repeat=4)]
    levels = as_levels(clips)
    levels["engagement"][:5] = NO_LEVEL
    before = {affect: values.copy() for affect, values in levels.items()}
    seen = view_labels(view, "engagement", NAMES, levels)
    assert seen.levels_N.dtype == np.int64
    assert seen.levels_N.shape == (256,)
    assert seen.levels_N.min() == NO_LEVEL
    assert seen.levels_N.max() == len(seen.level_names) - 1 == len(seen.scores_K) - 1
    assert (seen.levels_N[:5] == NO_LEVEL).all()
    assert np.abs(seen.scores_K).max() == 1.0
    assert all((levels[affect] == before[affect]).all() for affect in AFFECTS)


def test_levels_are_the_labels_own() -> None:
    levels = as_levels([{"boredom": 3, "engagement": 1, "confusion": 0, "frustration": 2}])
    seen = view_labels("levels", "boredom", NAMES, levels)
    assert seen.level_names == ENGAGEMENT_LEVELS
    assert seen.levels_N.tolist() == [3]
    np.testing.assert_allclose(seen.scores_K, [-1, -1 / 3, 1 / 3, 1])


@pytest.mark.parametrize(("label", "names"), [("engagement", ("not engaged", "engaged")), ("confusion", ("low", "high"))])
def test_binary_is_0_and_1_against_2_and_3(label: str, names: tuple[str, str]) -> None:
    seen = view_labels("binary", label, NAMES, {label: np.array([0, 1, 2, 3, NO_LEVEL])})
    assert seen.level_names == names
    assert seen.levels_N.tolist() == [0, 0, 1, 1, NO_LEVEL]
    assert seen.scores_K.tolist() == [-1, 1]


def test_three_classes_of_every_combination_of_levels() -> None:
    clips = [dict(zip(AFFECTS, levels, strict=True)) for levels in product(range(4), repeat=4)]
    seen = view_labels("three_class", "engagement", NAMES, as_levels(clips))
    assert seen.level_names == CLASSES
    assert seen.scores_K.tolist() == [-1, -1, 1]
    assert seen.levels_N.tolist() == [naive_class(clip) for clip in clips]


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ((0, 3, 0, 0), "engaged"),  # boredom, engagement, confusion, frustration
        ((3, 2, 0, 0), "bored"),
        ((0, 2, 3, 0), "other"),
        ((2, 2, 0, 0), "engaged"),
        ((1, 1, 0, 0), "bored"),
        ((0, 1, 1, 0), "other"),
        ((0, 2, 0, 2), "engaged"),
        ((0, 1, 2, 2), "other"),
        ((2, 1, 2, 0), "bored"),
        ((3, 2, 3, 0), "other"),
        ((2, 0, 2, 2), None),
        ((2, 2, 2, 0), None),
        ((0, 0, 0, 0), None),
    ],
)
def test_three_class_ties_by_hand(clip: tuple[int, ...], expected: str | None) -> None:
    seen = view_labels("three_class", "engagement", NAMES, as_levels([dict(zip(AFFECTS, clip, strict=True))]))
    assert seen.levels_N.tolist() == [NO_LEVEL if expected is None else CLASSES.index(expected)]


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("Train", {"engaged": 4848, "bored": 256, "other": 97, "dropped": 157}),
        ("Validation", {"engaged": 1124, "bored": 176, "other": 36, "dropped": 93}),
        ("Test", {"engaged": 1615, "bored": 81, "other": 40, "dropped": 48}),
    ],
)
def test_three_classes_of_daisees_official_files(real_data: Path, split: str, counts: dict[str, int]) -> None:
    clips = official_rows(real_data, split)
    seen = view_labels("three_class", "engagement", NAMES, as_levels(clips)).levels_N.tolist()
    assert seen == [naive_class(clip) for clip in clips]
    named = Counter("dropped" if level == NO_LEVEL else CLASSES[level] for level in seen)
    assert named == counts


def test_a_clip_that_lacks_an_affect_has_no_class() -> None:
    clips = [{"boredom": NO_LEVEL, "engagement": 3, "confusion": 0, "frustration": 0}]
    assert view_labels("three_class", "engagement", NAMES, as_levels(clips)).levels_N.tolist() == [NO_LEVEL]


@pytest.mark.parametrize(
    ("view", "label", "names", "sentence"),
    [
        ("two_class", "engagement", NAMES, r"no label view named 'two_class'; there are: levels, binary, three_class"),
        ("levels", "joy", NAMES, r"no label named 'joy' in these data; there are: boredom, engagement"),
        ("binary", "engagement", {"engagement": ("no", "yes")}, "engagement has 2; use the view levels"),
        ("three_class", "boredom", NAMES, "three_class is of engagement, not of boredom"),
        ("three_class", "engagement", {"engagement": ENGAGEMENT_LEVELS}, "lack boredom, confusion, frustration"),
        ("three_class", "engagement", {**NAMES, "boredom": ("a", "b", "c")}, "boredom has 3"),
    ],
)
def test_a_view_that_cannot_apply_is_one_sentence(
    view: str, label: str, names: dict[str, tuple[str, ...]], sentence: str
) -> None:
    levels = {name: np.zeros(2, dtype=np.int64) for name in names}
    with pytest.raises(ConfigError, match=sentence):
        view_labels(view, label, names, levels)
