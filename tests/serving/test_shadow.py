"""The challenger in shadow: the figures against their formulas, what is dropped, and the run in a real MLflow."""

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from data_shards.errors import ServiceError
from data_shards.extraction.clip_sample import ClipSample
from data_shards.manifest import Manifest
from data_shards.reading.reader import ShardSet
from serving.answer import Answer, AnyAnswer, NoFace
from serving.predictor import Predictor
from serving.replicas.shadow import Comparison, Shadow, ShadowLog, rank_correlation
from serving.scoring import ServedModel
from training.tracking.client import experiment_id, mlflow_client


@pytest.fixture(scope="module")
def clip(simulated_shards: tuple[Path, Manifest]) -> ClipSample:
    return ClipSample(ShardSet(simulated_shards[0], splits=("test",)).read(0), {})


def scored(predictor: Predictor, clip: ClipSample, *, score: float, level: str = "low", version: str = "1") -> Answer:
    answer = predictor.score(clip)
    assert isinstance(answer, Answer)
    model = answer.model.model_copy(update={"version": version})
    return answer.model_copy(update={"score": score, "level": level, "model": model})


def test_rank_correlation_is_spearmans() -> None:
    draws = random.Random(1)
    for _ in range(20):
        a, b = (np.array([draws.randint(0, 6) / 6 for _ in range(12)]) for _ in range(2))
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(np.ones(5), np.arange(5.0)) is None
    assert rank_correlation(np.arange(2.0), np.arange(2.0)) is None


def test_the_figures_are_those_of_the_clips_that_both_scored(predictor: Predictor, clip: ClipSample) -> None:
    comparison = Comparison()
    assert "no clip" in comparison.sentence(("engagement/1", "engagement/2"))
    pairs = [(-0.5, -0.4, True), (0.1, 0.4, False), (0.9, 0.7, True)]
    for champion, challenger, same in pairs:
        level = "low" if same else "high"
        comparison.add(
            scored(predictor, clip, score=champion), scored(predictor, clip, score=challenger, level=level, version="2")
        )
    comparison.add(scored(predictor, clip, score=0), NoFace(duration_s=1, model=predictor.info))
    found = comparison.metrics()
    assert (found["shadow_clips"], found["shadow_unscored"]) == (3, 1)
    assert found["shadow_level_agreement"] == pytest.approx(2 / 3)
    assert found["shadow_score_mae"] == pytest.approx(0.2)
    assert found["shadow_rank_correlation"] == pytest.approx(1.0)
    assert "levels agree on 67%, scores differ by 0.200" in comparison.sentence(("engagement/1", "engagement/2"))


def test_one_clip_is_compared_at_a_time_and_what_is_dropped_or_fails_is_counted(predictor: Predictor, clip: ClipSample) -> None:
    async def ask() -> Shadow:
        gate = asyncio.Event()
        failing = False

        async def challenger(clip: ClipSample) -> AnyAnswer:
            await gate.wait()
            if failing:
                raise ServiceError("busy")
            return scored(predictor, clip, score=0.3, version="2")

        shadow = Shadow(challenger, share=1.0)
        shadow.offer(clip, predictor.score(clip), predictor.recipe)
        assert not shadow.comparisons, "there is no challenger yet"
        info = predictor.info.model_copy(update={"version": "2"})
        shadow.challenger = ServedModel(key="2", info=info, recipe=predictor.recipe)
        for _ in range(3):
            shadow.offer(clip, predictor.score(clip), predictor.recipe)
        gate.set()
        await asyncio.sleep(0.1)
        failing = True
        shadow.offer(clip, predictor.score(clip), predictor.recipe)
        await asyncio.sleep(0.1)
        return shadow

    shadow = asyncio.run(ask())
    comparison = shadow.comparisons["engagement/1", "engagement/2"]
    assert (comparison.num_scored, comparison.num_dropped, comparison.num_failed) == (1, 2, 1)


def test_a_share_is_a_share_and_a_challenger_that_reads_clips_otherwise_is_not_compared(
    predictor: Predictor, clip: ClipSample
) -> None:
    async def ask(share: float, other_recipe: bool) -> Shadow:
        async def challenger(clip: ClipSample) -> AnyAnswer:
            return answer

        answer = predictor.score(clip)
        shadow = Shadow(challenger, share=share)
        recipe = predictor.recipe if not other_recipe else type(predictor.recipe)(None)
        shadow.challenger = ServedModel(key="2", info=predictor.info, recipe=recipe)
        for _ in range(400):
            shadow.offer(clip, answer, predictor.recipe)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return shadow

    def num_compared(shadow: Shadow) -> int:
        return sum(each.num_scored + each.num_dropped for each in shadow.comparisons.values())

    assert num_compared(asyncio.run(ask(0.0, False))) == 0
    assert 40 < num_compared(asyncio.run(ask(0.25, False))) < 180  # six standard deviations
    refused = asyncio.run(ask(1.0, True))
    assert num_compared(refused) == 0
    assert "reads clips another way" in refused.warning


def test_what_was_compared_is_a_run_of_mlflow_with_both_versions(predictor: Predictor, clip: ClipSample, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    async def challenger(clip: ClipSample) -> AnyAnswer:
        return predictor.score(clip)

    shadow = Shadow(challenger, share=1.0)
    log = ShadowLog(shadow, uri, every_s=0.05)
    comparison = shadow.comparisons["engagement/1", "engagement/2"] = Comparison()
    for score in (0.1, 0.2, 0.5):
        comparison.add(scored(predictor, clip, score=score), scored(predictor, clip, score=score / 2, version="2"))
    summary = log.close()
    assert summary.startswith("engagement/2 in shadow of engagement/1: 3 clips, levels agree on 100%")
    client = mlflow_client(uri)
    (run,) = client.search_runs([experiment_id(client, uri)])
    assert run.info.status == "FINISHED"
    assert {name: run.data.tags[name] for name in ("recipe", "champion", "challenger")} == {
        "recipe": "shadow",
        "champion": "engagement/1",
        "challenger": "engagement/2",
    }
    assert run.data.metrics["shadow_score_mae"] == pytest.approx(0.4 / 3)
    assert all(name.startswith("shadow_") for name in run.data.metrics), "figures alone"
    assert not run.data.params
