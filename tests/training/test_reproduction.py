"""EngageWild's table on the real arrays: its baseline, its folds, and that no validation label chooses anything."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_shards.building.build import build_shards
from data_shards.datasets import DATASETS
from data_shards.datasets.engagewild_arrays import LEVEL_VALUES
from data_shards.errors import ConfigError
from data_shards.hashing import seed_of
from data_shards.preprocess import PreprocessConfig
from data_shards.storage.source import Source
from training.bundle import load_bundle
from training.config import with_settings
from training.loop import train as train_loop
from training.recipes import recipe
from training.reproduction.cross_validation import _STREAM_FOLDS, NUM_FOLDS, choose, look_alikes, stratified_folds
from training.reproduction.engagewild import ROWS, RowPlan, people_apart, plan_result, row_result
from training.reproduction.engagewild_table import AVERAGED, averaged_result, engagewild_table
from training.reproduction.memory_fit import expected_values, fit_in_memory
from training.reproduction.published import ENGAGEWILD
from training.reproduction.regressors import Descriptor, ridge, training_mean
from training.reproduction.row_pool import run_tasks
from training.reproduction.split_arrays import SplitArrays, read_split
from training.reproduction.table import SeedResult, figure_of, to_markdown


@pytest.fixture(scope="module")
def shards(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engagewild")
    build_shards(DATASETS["engagewild"](Source(real_data / "engagewild")), folder, preprocess=PreprocessConfig(), num_workers=2)
    return folder


@pytest.fixture(scope="module")
def train(shards: Path) -> SplitArrays:
    return read_split(shards, "train", label="engagement", value_of_level=LEVEL_VALUES)


@pytest.fixture(scope="module")
def validation(shards: Path) -> SplitArrays:
    return read_split(shards, "validation", label="engagement", value_of_level=LEVEL_VALUES)


def test_a_split_in_memory_is_the_arrays(real_data: Path, train: SplitArrays, validation: SplitArrays) -> None:
    with np.load(real_data / "engagewild" / "vggface2_21.npz") as stored:
        assert np.array_equal(train.features["vggface2_21"], stored["x_train"])
        assert np.array_equal(validation.features["vggface2_21"], stored["x_val"])
        assert np.allclose(train.values, stored["y_train"])
        assert np.allclose(validation.values, stored["y_val"])


def test_the_training_mean_scores_what_is_published(shards: Path) -> None:
    table = engagewild_table(str(shards), num_seeds=2, rows=("mean",), num_workers=1)
    [row] = table.rows
    assert row.metrics["mse"].mean == pytest.approx(0.0952, abs=5e-5)
    assert row.published == {"mse": 0.0952}
    assert row.metrics["mse"].seeds[0] == row.metrics["mse"].seeds[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_folds_part_the_clips_evenly_by_level_and_never_a_group(train: SplitArrays, seed: int) -> None:
    groups_N = people_apart(train)
    folds_N = stratified_folds(train.levels_N, groups_N, num_folds=5, seed=seed)
    assert set(folds_N) == set(range(5))
    assert all(len(np.unique(folds_N[groups_N == group])) == 1 for group in np.unique(groups_N))
    for level, count in enumerate(np.bincount(train.levels_N)):
        held = np.bincount(folds_N[train.levels_N == level], minlength=5)
        assert np.abs(held - count / 5).max() <= 2, (level, held)


def test_folds_follow_from_the_seed(train: SplitArrays) -> None:
    alone_N = np.arange(len(train))
    cut = [stratified_folds(train.levels_N, alone_N, num_folds=5, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(cut[0], cut[1])
    assert not np.array_equal(cut[0], cut[2])


def test_videos_of_like_faces_are_one_group() -> None:
    rng = np.random.default_rng(0)
    faces_PF = rng.normal(size=(4, 32))
    person_N = np.array([0, 1, 2, 1, 0, 3])
    clips_NSF = (faces_PF[person_N][:, None] + rng.normal(size=(6, 5, 32)) * 0.1).astype(np.float32)
    groups_N = look_alikes(clips_NSF, cosine=0.9)
    assert [groups_N[0] == groups_N[4], groups_N[1] == groups_N[3]] == [True, True]
    assert len(np.unique(groups_N)) == 4


def test_ridge_is_its_closed_form(train: SplitArrays, validation: SplitArrays) -> None:
    descriptor = Descriptor("openface_15", "stat", compressed=False)
    x_ND, y_N = train.features["openface_15"].astype(np.float64).std(axis=1), train.values
    mean_D, deviation_D = x_ND.mean(axis=0), x_ND.std(axis=0)
    z_ND = (x_ND - mean_D) / deviation_D
    weights_D = np.linalg.solve(z_ND.T @ z_ND + 300 * np.eye(z_ND.shape[1]), z_ND.T @ (y_N - y_N.mean()))
    held_out_ND = (validation.features["openface_15"].astype(np.float64).std(axis=1) - mean_D) / deviation_D
    expected_N = (y_N.mean() + held_out_ND @ weights_D).clip(0, 1)
    assert ridge(descriptor, alpha=300)(train, 0)(validation.features) == pytest.approx(expected_N, abs=1e-9)


def test_cross_validation_is_that_of_scikit_learn_on_the_same_folds(train: SplitArrays) -> None:
    # the mean over clips of the error of a fit that has not seen the clip's fold, not the mean over folds
    groups_N = people_apart(train)
    choice = choose({"ridge": ridge(Descriptor("openface_15", "mean", compressed=False), alpha=300)}, train, groups_N, seed=4)
    folds_N = stratified_folds(train.levels_N, groups_N, num_folds=NUM_FOLDS, seed=seed_of(4, _STREAM_FOLDS))
    x_ND = train.features["openface_15"].astype(np.float64).mean(axis=1)
    theirs = make_pipeline(StandardScaler(), Ridge(alpha=300))
    expected_N = cross_val_predict(theirs, x_ND, train.values, cv=PredefinedSplit(folds_N)).clip(0, 1)
    assert choice.out_of_fold_N == pytest.approx(expected_N, abs=1e-9)
    assert choice.cv_mse == pytest.approx(np.mean((expected_N - train.values) ** 2), rel=1e-9)


def test_the_better_candidate_is_chosen(train: SplitArrays) -> None:
    stat = Descriptor("openface_15", "stat", compressed=True)
    candidates = {"loose": ridge(stat, alpha=1e-6), "firm": ridge(stat, alpha=300), "mean": training_mean()}
    choice = choose(candidates, train, people_apart(train), seed=0)
    assert choice.name == "firm"
    assert len(choice.out_of_fold_N) == len(train)


def test_no_validation_label_and_no_validation_clip_enters_a_choice(train: SplitArrays, validation: SplitArrays) -> None:
    candidates = {f"{alpha}": ridge(Descriptor("openface_15", "stat", compressed=True), alpha=alpha) for alpha in (1, 100, 1e4)}
    plan = RowPlan("ridge", ENGAGEWILD["quick_ridge"], candidates)
    first = plan_result(plan, 0, train=train, held_out=validation.features)
    mirrored = {name: values[::-1].copy() * 3 for name, values in validation.features.items()}
    second = plan_result(plan, 0, train=train, held_out=mirrored)
    assert (first.chosen, first.cv_mse, first.out_of_fold) == (second.chosen, second.cv_mse, second.out_of_fold)
    assert first.predicted != second.predicted


def test_other_validation_labels_change_the_figure_alone(real_data: Path, shards: Path, tmp_path: Path) -> None:
    listing = DATASETS["engagewild"](Source(real_data / "engagewild"))
    flipped = tuple(
        replace(clip, labels={"engagement": 3 - clip.labels["engagement"]}) if clip.split == "validation" else clip
        for clip in listing.clips
    )
    build_shards(replace(listing, clips=flipped), tmp_path, preprocess=PreprocessConfig(), num_workers=2)
    rows = ("mean", "ridge_stat")
    [as_published, changed] = [engagewild_table(str(uri), num_seeds=1, rows=rows, num_workers=1) for uri in (shards, tmp_path)]
    assert [row.chosen for row in as_published.rows] == [row.chosen for row in changed.rows]
    assert [row.metrics["cv_mse"] for row in as_published.rows] == [row.metrics["cv_mse"] for row in changed.rows]
    assert as_published.best_by_cv == changed.best_by_cv
    assert as_published.rows[1].metrics["mse"] != changed.rows[1].metrics["mse"]
    assert as_published.rows[0].data_digest != changed.rows[0].data_digest


def test_processes_change_no_result(train: SplitArrays, validation: SplitArrays) -> None:
    task = partial(row_result, train=train, held_out=validation.features)
    keys = [("mean", 0), ("svr", 1)]
    seen: list[tuple[int, int]] = []
    alone = run_tasks(task, keys, num_workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    together = run_tasks(task, keys, num_workers=2)
    assert list(together) == keys
    for key in keys:
        assert together[key].chosen == alone[key].chosen
        assert together[key].predicted == pytest.approx(alone[key].predicted, abs=1e-9)


@pytest.mark.parametrize("settings", [[], ["loss.name=mse", "model.head=linear"]], ids=["mocorank", "mse"])
def test_a_fit_in_memory_is_what_rapt_train_makes(
    shards: Path, train: SplitArrays, validation: SplitArrays, tmp_path: Path, settings: list[str]
) -> None:
    run = with_settings(recipe("engagewild"), [*settings, "loop.epochs=2", "seed=3"])
    bundle = train_loop(run, shards, tmp_path, run_id="same")
    assert bundle is not None
    record, trained = load_bundle(bundle)
    fitted = fit_in_memory(run, train)
    weights = trained.state_dict()
    assert all(torch.allclose(weights[name], values, atol=1e-6) for name, values in fitted.state_dict().items())
    value_of_level = train.value_of_level
    expected_N = expected_values(trained, validation.features, value_of_level)
    assert expected_values(fitted, validation.features, value_of_level) == pytest.approx(expected_N, abs=1e-5)
    assert expected_N.std() > 0
    assert record.validation is None  # nothing was chosen on the official validation split, which the test split is here
    assert record.test is not None
    assert record.test.num_samples == 48


def test_the_average_is_of_the_rows_it_names(train: SplitArrays) -> None:
    rng = np.random.default_rng(0)
    members = sorted({name for averaged in AVERAGED.values() for name in averaged})
    # networks that are right inside the training split: their average is chosen, whatever the others say of other clips
    noise = {name: 0.01 if name.startswith("tcn") else 0.3 for name in members}
    results = {
        (name, 0): SeedResult(
            seed=0,
            chosen="",
            cv_mse=0.0,
            out_of_fold=tuple(train.values + rng.normal(size=len(train)) * noise[name]),
            predicted=(float(number), 1.0),
        )
        for number, name in enumerate(members)
    }
    average = averaged_result(results, train, 0)
    assert average.chosen == "networks"
    wanted = np.mean([members.index(name) for name in AVERAGED["networks"]])
    assert average.predicted == pytest.approx((wanted, 1.0))


def test_intervals_over_seeds_and_over_clips() -> None:
    values_N = np.array([0.0, 1.0, 0.33, 0.66])
    figure = figure_of(np.stack([values_N + 0.1, values_N + 0.2, values_N + 0.3]), values_N)
    assert figure.seeds == pytest.approx((0.01, 0.04, 0.09))
    assert figure.mean == pytest.approx(0.14 / 3)
    half = 4.303 * np.std([0.01, 0.04, 0.09], ddof=1) / np.sqrt(3)
    assert (figure.low, figure.high) == pytest.approx((figure.mean - half, figure.mean + half))
    assert (figure.clips_low, figure.clips_high) == pytest.approx((figure.mean, figure.mean))  # all clips err alike
    single = figure_of(values_N[None] * 0.5, values_N)
    assert (single.low, single.high) == (None, None)
    assert single.clips_low < single.mean < single.clips_high


def test_what_cannot_be_made_is_one_sentence(shards: Path, simulated_shards: tuple[Path, object]) -> None:
    with pytest.raises(ConfigError, match="no row 'forest' in the table engagewild; there are: mean, ridge_mean"):
        engagewild_table(str(shards), num_seeds=1, rows=("forest",))
    with pytest.raises(ConfigError, match="holds simulated, not EngageWild's arrays"):
        engagewild_table(str(simulated_shards[0]), num_seeds=1, rows=("mean",))


def test_the_markdown_has_a_line_a_row_and_says_whether_the_aim_is_met(shards: Path) -> None:
    table = engagewild_table(str(shards), num_seeds=1, rows=("mean",), num_workers=1)
    lines = to_markdown(table).splitlines()
    assert lines[2].startswith("| training mean | 0.0952 |")
    assert lines[2].count("|") == lines[0].count("|")
    assert "the aim of below 0.080 is missed" in to_markdown(table)


def test_every_row_says_what_it_is_and_has_candidates() -> None:
    for name, plan in ROWS.items():
        assert plan.__doc__, name
        assert plan().candidates
        assert plan().what
