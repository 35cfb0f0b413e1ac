"""CMOSE's tables on made-up features: all losses and parts have a row, and figures are those of the runs themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import balanced_accuracy_score

from data_shards.building.build import build_shards
from data_shards.errors import ConfigError
from data_shards.listing import ENGAGEMENT_LEVELS, Listing
from data_shards.manifest import SIMULATED_NOTICE, Manifest
from data_shards.preprocess import PreprocessConfig
from tests.training.cmose_like import cmose_like_clip, cmose_like_shards
from training.ablations import ABLATIONS
from training.bundle import read_record
from training.config import with_settings
from training.loop import train
from training.losses import LOSSES
from training.reproduction.cmose_fit import held_out_clips, trained
from training.reproduction.cmose_rows import LOSS_ROWS, PART_ROWS
from training.reproduction.cmose_tables import BASELINE, cmose_losses, cmose_parts
from training.reproduction.paired import balanced_difference, in_words
from training.reproduction.published import CMOSE_LOSSES
from training.reproduction.table import cells_of, headings_of, to_markdown

TINY = ("model.chunks=4", "model.min_rows=16", "model.hidden=8", "model.levels=1", "loop.epochs=2", "loop.global_batch=8")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cmose-like")
    cmose_like_shards(folder)
    return folder


def test_every_loss_and_every_published_row_is_in_a_table() -> None:
    assert {row.stages[0].loss.name for row in LOSS_ROWS.values()} == set(LOSSES)
    assert set(CMOSE_LOSSES) <= set(LOSS_ROWS)
    assert set(PART_ROWS) == set(ABLATIONS)
    for name, row in LOSS_ROWS.items():
        assert ("balanced_accuracy" in row.published) == (name in CMOSE_LOSSES), name
        # the paper's class sampler, where its row has it; the backbone is one
        assert (row.stages[0].data.sampler == "class_complete") == (name in ("cross_entropy", "mse")), name
        assert row.stages[0].model.model_copy(update={"head": "cosine"}) == LOSS_ROWS["mocorank"].stages[0].model
    assert LOSS_ROWS["mocorank"].stages[0].loss.model_dump()["center"] == 0
    assert PART_ROWS["audio"].published["speech_balanced_accuracy"] == 0.637


def test_every_loss_trains_to_a_row(shards: Path) -> None:
    table = cmose_losses(str(shards), num_seeds=1, num_workers=1, settings=[*TINY, "optimiser.lr=0.02"])
    assert [row.name for row in table.rows] == [BASELINE, *LOSS_ROWS]
    baseline = table.rows[0]
    assert (baseline.metrics["accuracy"].mean, baseline.metrics["balanced_accuracy"].mean) == (0.25, 0.25)
    assert all(row.chosen in (("epoch 1 of 2",), ("epoch 2 of 2",)) for row in table.rows[1:])
    assert all(len(cells_of(row, table.columns)) == len(headings_of(table)) for row in table.rows)
    assert len({row.metrics["accuracy"].seeds for row in table.rows}) > 1


def test_a_figure_is_what_rapt_train_reports(shards: Path, tmp_path: Path) -> None:
    settings = [*TINY, "optimiser.lr=0.02"]
    table = cmose_losses(str(shards), num_seeds=2, rows=("cross_entropy", "mocorank"), num_workers=2, settings=settings)
    for row in table.rows:
        for seed in range(2):
            run = with_settings(LOSS_ROWS[row.name].stages[0], [*settings, f"seed={seed}"])
            bundle = train(run, shards, tmp_path / f"{row.name}-{seed}", run_id="same")
            assert bundle is not None
            record = read_record(bundle)
            assert record.test is not None
            assert record.validation is not None
            assert row.metrics["accuracy"].seeds[seed] == record.test.metrics.accuracy
            assert row.metrics["balanced_accuracy"].seeds[seed] == record.test.metrics.balanced_accuracy
            assert row.metrics["validation"].seeds[seed] == record.validation.metrics.balanced_accuracy
            assert row.chosen[seed] == f"epoch {record.best_epoch} of 2"
    assert len({seed for row in table.rows for seed in row.metrics["accuracy"].seeds}) > 1
    ce, mocorank = (np.mean(row.metrics["balanced_accuracy"].seeds) for row in table.rows)
    assert table.sentences[0].startswith("MocoRank minus cross entropy, class sampler, balanced accuracy on all 16 test clips")
    assert f"paired by seed: {mocorank - ce:+.3f}" in table.sentences[0]


def test_sound_and_speech_change_the_clips_with_speech_alone(shards: Path, tmp_path: Path) -> None:
    clips = held_out_clips(str(shards), None, needs_speech=True)
    # an audio part starts as the visual score: it takes large steps to leave that within two epochs
    stages = {
        name: [with_settings(stage, [*TINY, "optimiser.lr=0.1"] if stage.model.speech else TINY) for stage in row.stages]
        for name, row in PART_ROWS.items()
        if name in ("both", "audio")
    }
    both, audio = (
        trained((name, 0), stages=stages, uri=str(shards), cache=None, scratch=str(tmp_path)) for name in ("both", "audio")
    )
    assert clips.speaks_N.sum() == 8
    assert (both.levels_N == audio.levels_N)[~clips.speaks_N].all()
    assert not (both.levels_N == audio.levels_N)[clips.speaks_N].all()
    assert audio.chosen.startswith(f"{both.chosen}, then epoch ")
    assert list(tmp_path.iterdir()) == []


def test_the_parts_are_told_on_clips_with_speech_and_on_all(shards: Path) -> None:
    table = cmose_parts(str(shards), num_seeds=1, rows=("both", "audio"), num_workers=1, settings=[*TINY, "loop.epochs=1"])
    assert all({"balanced_accuracy", "speech_balanced_accuracy"} <= set(row.metrics) for row in table.rows)
    assert "on the 8 test clips with speech, paired by seed" in table.sentences[0]
    assert "on all 16 test clips, paired by seed" in table.sentences[1]


def test_the_table_says_what_is_simulated_and_what_is_random(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = {"train": 16, "validation": 8, "test": 8}
    clips = tuple(cmose_like_clip(number, split, rng) for split, count in counts.items() for number in range(count))
    listing = Listing(
        dataset="simulated",
        label_names={"engagement": ENGAGEMENT_LEVELS},
        clips=tuple(replace(clip, subject="one") for clip in clips),
        simulated=True,
        notice=SIMULATED_NOTICE,
        extractors={"i3d": {"extractor": "i3d", "weights": "random, seed 0: features without meaning"}},
    )
    build_shards(listing, tmp_path, preprocess=PreprocessConfig(), num_workers=1)
    told = to_markdown(cmose_losses(str(tmp_path), num_seeds=1, rows=(BASELINE,)))
    assert "on the same 8 clips of 1 people" in told
    assert "i3d: random, seed 0: features without meaning" in told
    assert "Simulated clips of drawn people" in told


def test_the_difference_is_paired_by_seed() -> None:
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 4, 60)
    subjects = [f"person {number % 12}" for number in range(60)]
    ours_RN, theirs_RN = (np.where(rng.random((5, 60)) < share, labels_N, 0) for share in (0.8, 0.5))
    found = balanced_difference(ours_RN, theirs_RN, labels_N, subjects)
    each = [[balanced_accuracy_score(labels_N, levels_N) for levels_N in rows_RN] for rows_RN in (ours_RN, theirs_RN)]
    assert found.over_seeds.seeds == pytest.approx(np.subtract(*each))
    interval = ttest_rel(*each).confidence_interval(0.95)
    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx(tuple(interval), abs=1e-3)
    assert found.people_low < found.over_seeds.mean < found.people_high
    assert found.num_people == 12
    assert "This favours A." in in_words("A", "B", found, clips="all clips")
    swapped = balanced_difference(theirs_RN, ours_RN, labels_N, subjects)
    assert "This speaks against A: B is better." in in_words("A", "B", swapped, clips="all clips")
    nothing = in_words("A", "B", balanced_difference(ours_RN, ours_RN, labels_N, subjects), clips="all clips")
    assert "does not favour A, nor B: 0 lies in the interval over seeds and that over people" in nothing
    one = balanced_difference(ours_RN[:1], theirs_RN[:1], labels_N, subjects)
    assert "A single seed does not tell them apart." in in_words("A", "B", one, clips="all clips")


def test_people_drawn_are_whole() -> None:
    # ten clips of each of two people, one always right and one always wrong: the interval is all there is
    labels_N = np.zeros(20, dtype=np.int64)
    subjects = ["right"] * 10 + ["wrong"] * 10
    ours_RN = np.array([[0] * 10 + [1] * 10])
    found = balanced_difference(ours_RN, np.ones_like(ours_RN), labels_N, subjects)
    assert (found.people_low, found.over_seeds.mean, found.people_high) == (0.0, 0.5, 1.0)


def test_what_cannot_be_made_is_one_sentence(shards: Path, feature_shards: tuple[Path, Manifest]) -> None:
    with pytest.raises(ConfigError, match="no row 'hinge' in the table cmose_losses; there are: majority, cross_entropy"):
        cmose_losses(str(shards), num_seeds=1, rows=("hinge",))
    with pytest.raises(ConfigError, match="no sample has 'openface' "):
        cmose_parts(str(feature_shards[0]), num_seeds=1, rows=("i3d",))
