"""What is served is what was trained: a clip scores the same from its shard, from its file and over HTTP."""

from pathlib import Path

import pytest

from data_shards.errors import ClipError
from data_shards.extraction.clip_sample import ClipSample
from data_shards.manifest import Manifest
from data_shards.reading.reader import ShardSet
from serving.predictor import Predictor
from training.registry import RegisteredModel


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor(RegisteredModel(name="engagement", version="7", folder=tiny_bundle))


def test_a_clip_scores_the_same_from_its_shard_and_from_its_file(
    predictor: Predictor, simulated_folder: Path, simulated_shards: tuple[Path, Manifest]
) -> None:
    test = ShardSet(simulated_shards[0], splits=("test",))
    for number in range(4):
        sample = test.read(number)
        stored = predictor.score(ClipSample(sample, {}))
        from_file = predictor.score_file(simulated_folder / sample.meta.clip_id)
        assert from_file.probabilities == stored.probabilities
        assert from_file.score == stored.score


def test_an_answer_is_whole_and_in_range(predictor: Predictor, simulated_folder: Path) -> None:
    answer = predictor.score_file(next((simulated_folder / "clips").iterdir()))
    assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert answer.level == max(answer.probabilities, key=lambda name: answer.probabilities[name])
    assert list(answer.probabilities)[answer.level_index] == answer.level
    assert -1 <= answer.score <= 1
    assert answer.frames_used == 6
    assert answer.duration_s == pytest.approx(10, abs=0.5)
    assert answer.timings.total_ms == pytest.approx(answer.timings.decode_ms + answer.timings.model_ms, abs=0.02)
    assert (answer.model.name, answer.model.version) == ("engagement", "7")
    assert answer.model.simulated
    assert answer.model.notice.startswith("simulated")


def test_a_real_clip_is_scored_and_a_damaged_one_is_named(predictor: Predictor, real_data: Path) -> None:
    answer = predictor.score_file(real_data / "videos" / "5100462069.avi")
    assert answer.frames_used == 6
    with pytest.raises(ClipError, match=r"corrupted\.mp4: damaged"):
        predictor.score_file(real_data / "videos" / "corrupted.mp4")
