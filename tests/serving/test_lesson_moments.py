"""The moments of a lesson: what stands out, apart from each other, and nothing where nothing does."""

import numpy as np
import pytest

from serving.lesson.moments import find_moments
from serving.lesson.record import ClassWindow


def timeline(means: list[float | None], num_scored: int = 4) -> list[ClassWindow]:
    return [
        ClassWindow(
            start_s=10 * number,
            end_s=10 * number + 10,
            num_present=num_scored,
            num_scored=0 if mean is None else num_scored,
            mean_score=mean,
            low=mean,
            high=mean,
            level_counts=(0, 0, 0 if mean is None else num_scored, 0),
        )
        for number, mean in enumerate(means)
    ]


def found(means: list[float | None]) -> list[tuple[str, float, float]]:
    return [(moment.kind, moment.start_s, moment.end_s) for moment in find_moments(timeline(means))]


@pytest.mark.parametrize("means", [[], [0.9], [-1.0, 1.0], [0.1] * 40, [0.0, 0.05] * 20, [None] * 10])
def test_nothing_stands_out_of_little_or_of_a_lesson_that_hardly_changes(means: list[float | None]) -> None:
    assert find_moments(timeline(means)) == ()


def test_a_dip_and_a_peak_are_found_where_they_are() -> None:
    means = [0.2] * 30
    means[5:9] = [-0.6] * 4
    means[20:24] = [0.9] * 4
    assert found(list(means)) == [("low", 50, 90), ("high", 200, 240)]
    low, high = find_moments(timeline(list(means)))
    assert low.mean_score == pytest.approx(-0.6)
    assert high.mean_score == pytest.approx(0.9)


def test_one_odd_window_of_a_long_lesson_is_smoothed_and_two_near_dips_are_one() -> None:
    means = [0.0] * 60
    means[10:13], means[14:17] = [-0.8] * 3, [-0.8] * 3
    moments = found(list(means))
    assert [kind for kind, _, _ in moments] == ["low"]
    assert (moments[0][1], moments[0][2]) == (100, 170)


def test_a_moments_score_is_that_of_all_its_windows() -> None:
    means: list[float | None] = [0.0] * 60
    means[7:14] = [-1.0, -1.0, 0.0, 0.1, 0.0, -1.0, -1.0]  # smoothed, the 0.1 alone does not stand out
    (moment,) = find_moments(timeline(means))
    assert (moment.start_s, moment.end_s) == (60, 150)
    assert moment.mean_score == pytest.approx(-3.9 / 9)


def test_at_most_three_of_a_kind_in_order_of_time() -> None:
    means = [0.0] * 100
    for number, at in enumerate((5, 25, 45, 65, 85)):
        means[at : at + 4] = [-0.5 - 0.1 * number] * 4
    moments = found(list(means))
    assert [start for kind, start, _ in moments if kind == "low"] == [450, 650, 850]


def test_windows_without_a_score_part_and_do_not_pull() -> None:
    means: list[float | None] = [0.3] * 20
    means[8:10] = [None, None]
    means[10:13] = [-0.7] * 3
    assert found(means) == [("low", 100, 130)]


def test_moments_stand_out_of_the_lessons_mean_by_a_tenth_at_least() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        means = np.clip(rng.normal(0, 0.4, 60).cumsum() * 0.3, -1, 1)
        windows = timeline([float(mean) for mean in means])
        for moment in find_moments(windows):
            away = moment.mean_score - float(means.mean())
            assert away < 0 if moment.kind == "low" else away > 0
        kinds = [moment.kind for moment in find_moments(windows)]
        assert max(kinds.count("low"), kinds.count("high")) <= 3
