"""Sets of levels: the algorithm by hand, the coverage that split conformal prediction promises, and what training writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_shards.manifest import Manifest
from training.bundle import read_record
from training.calibration import Calibration, coverage_on, fit_calibration, level_sets, score_span
from training.config import RunConfig, with_settings
from training.evaluate import Predictions
from training.loop import train

EVEN = (-1.0, -1 / 3, 1 / 3, 1.0)


def calibration(threshold: float) -> Calibration:
    return Calibration(coverage=0.9, threshold=threshold, num_clips=100, split="validation")


def drawn(rng: np.random.Generator, count: int) -> Predictions:
    """Exchangeable clips: probabilities that are right on average, sharpened twofold so that taken at their word they are not."""
    chances_NK = rng.dirichlet([0.8, 1.5, 2.0, 0.8], size=count)
    labels_N = np.array([rng.choice(4, p=row) for row in chances_NK])
    return Predictions(2 * np.log(chances_NK + 1e-9), labels_N, ("somebody",) * count)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.0, [1]), (0.39, [1]), (0.4, [0, 1]), (0.7, [0, 1, 2]), (0.89, [0, 1, 2]), (0.9, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3])],
)
def test_a_set_grows_from_the_most_probable_level_to_its_likelier_neighbour(threshold: float, expected: list[int]) -> None:
    # 0.4 first, then its neighbour 0.3 rather than 0.2, then 0.2, then 0.1
    in_NK = level_sets(np.array([[0.3, 0.4, 0.2, 0.1]]), EVEN, calibration(threshold))
    assert np.flatnonzero(in_NK[0]).tolist() == expected


def test_levels_are_neighbours_by_their_scores_and_not_by_their_numbers() -> None:
    in_NK = level_sets(np.array([[0.5, 0.1, 0.4]]), (0.0, 1.0, -1.0), calibration(0.5))
    assert in_NK[0].tolist() == [True, False, True]  # in order of score: 2, 0, 1
    apart = level_sets(np.array([[0.5, 0.1, 0.4]]), (-1.0, 0.0, 1.0), calibration(0.5))
    assert apart[0].tolist() == [True, True, False]  # 0.4 is the likelier, but 0.1 lies between


def test_sets_hold_the_level_as_often_as_promised() -> None:
    """Over fits on fresh data the mean coverage is at least 0.9, and at most 1 / (n + 1) more, for no masses tie but the zeros.

    For one fit, coverage follows Beta(r, n + 1 - r) with rank r: n = 99 gives a deviation of 0.03, and 300 fits with 400 test
    clips each a mean that is known to sqrt((0.03^2 + 0.9 * 0.1 / 400) / 300) = 0.002; four of them are allowed.
    """
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        fitted = fit_calibration(drawn(rng, 99), 1.0, EVEN, split="validation")
        report = coverage_on(drawn(rng, 400), 1.0, EVEN, fitted, split="test")
        assert report is not None
        held.append(report.coverage)
    assert 0.9 - 4 * 0.002 <= np.mean(held) <= 0.9 + 1 / 100 + 4 * 0.002


@pytest.mark.parametrize(("count", "rank"), [(9, 9), (10, 10), (19, 18), (29, 27), (99, 90), (100, 91)])
def test_the_threshold_is_the_finite_sample_rank(count: int, rank: int) -> None:
    predictions = drawn(np.random.default_rng(count), count)
    fitted = fit_calibration(predictions, 1.0, EVEN, split="validation")
    assert fitted is not None
    report = coverage_on(predictions, 1.0, EVEN, fitted, split="validation")
    assert report is not None
    assert round(report.coverage * count) == rank  # of its own n clips it holds the first `rank`


def test_too_few_clips_or_none_calibrate_nothing() -> None:
    assert fit_calibration(drawn(np.random.default_rng(0), 8), 1.0, EVEN, split="validation") is None
    assert fit_calibration(None, 1.0, EVEN, split=None) is None
    assert coverage_on(None, 1.0, EVEN, calibration(0.5), split=None) is None


@pytest.mark.parametrize(
    ("levels", "scores", "expected"),
    [
        ([0], EVEN, (-1.0, -2 / 3)),
        ([1, 2], EVEN, (-2 / 3, 2 / 3)),
        ([0, 1, 2, 3], EVEN, (-1.0, 1.0)),
        ([1], (-1.0, 1.0), (0.0, 1.0)),
        ([0], (-1.0, -1.0, 1.0), (-1.0, 0.0)),
    ],
)
def test_a_set_owns_its_part_of_the_scale(levels: list[int], scores: tuple[float, ...], expected: tuple[float, float]) -> None:
    in_K = np.isin(np.arange(len(scores)), levels)
    assert score_span(in_K, scores) == pytest.approx(expected)


def test_training_writes_the_calibration_its_report_and_what_it_rests_on(
    tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path: Path
) -> None:
    # the tiny set's validation split is too small to calibrate on: the splits change places
    splits = ["data.train_splits=test", "data.validation_split=train", "data.test_split=validation"]
    run = with_settings(tiny_run, [*splits, "model.widths=[4]", "model.levels=1"])
    bundle = train(run, simulated_shards[0], tmp_path, run_id="calibrated")
    assert bundle is not None
    record = read_record(bundle)
    assert record.calibration is not None
    assert record.validation is not None
    assert record.calibration.num_clips == record.validation.num_samples
    assert record.calibration.split == "train"
    assert record.coverage is not None
    assert record.test is not None
    assert record.coverage.num_clips == record.test.num_samples  # a report on the simulated test split, and no gate
    card = (bundle / "README.md").read_text()
    assert "That split also chose the epoch and the temperature, and clips of one person are like each other" in card
    assert f"held it for {record.coverage.coverage:.1%} of {record.coverage.num_clips} clips" in card


def test_a_bundle_made_before_there_were_intervals_is_read(tiny_bundle: Path, tmp_path: Path) -> None:
    content = json.loads((tiny_bundle / "run.json").read_text())
    del content["calibration"], content["coverage"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert read_record(tmp_path).calibration is None
