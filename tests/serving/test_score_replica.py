"""A scorer: versions beside each other in one batch, and whose error is whose."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import ModelError, ServiceError
from data_shards.extraction.clip_sample import ClipSample
from data_shards.extraction.look import Look
from data_shards.manifest import Manifest
from data_shards.reading.reader import ShardSet
from serving.predictor import Predictor
from serving.replicas.endpoint_settings import EndpointSettings
from serving.replicas.score_replica import ScoreReplica
from serving.scoring import Deadline
from training.registry import RegisteredModel


@pytest.fixture(scope="module")
def clip(simulated_shards: tuple[Path, Manifest]) -> ClipSample:
    return ClipSample(ShardSet(simulated_shards[0], splits=("train",)).read(0), {}, Look(1.0, camera_off=False))


def test_an_error_of_one_clip_or_version_is_no_others_of_its_batch(tiny_bundle: Path, tmp_path: Path, clip: ClipSample) -> None:
    one = RegisteredModel(name="engagement", version="", folder=tiny_bundle)
    none = RegisteredModel(name="engagement", version="", folder=tmp_path / "gone")
    # what a decoder that was taken over may send: of the size asked for, and nothing that OpenFace makes
    odd = clip._replace(sample=replace(clip.sample, features={"openface": np.ones(3, np.float32)}))
    deadline = Deadline.within(60)

    async def ask() -> list[object]:
        replica = ScoreReplica(EndpointSettings())
        asked = [(clip, one), (odd, one), (clip, none), (clip, one)]
        answers = await asyncio.gather(*(replica.score(each, of, deadline) for each, of in asked), return_exceptions=True)
        assert await replica.batch_sizes() == {4: 1}
        return list(answers)

    first, wrong, missing, last = asyncio.run(ask())
    expected = Predictor(one).score(clip).model_dump(exclude={"timings"})
    assert first.model_dump(exclude={"timings"}) == last.model_dump(exclude={"timings"}) == expected  # type: ignore[attr-defined]
    assert isinstance(wrong, ValueError)
    assert isinstance(missing, ModelError)


def test_one_that_is_late_leaves_the_rest_of_its_batch_together(tiny_bundle: Path, clip: ClipSample) -> None:
    one = RegisteredModel(name="engagement", version="", folder=tiny_bundle)
    late, in_time = Deadline.within(-1), Deadline.within(60)

    async def ask() -> list[object]:
        replica = ScoreReplica(EndpointSettings())
        asked = [in_time, late, in_time, late, in_time]
        answers = await asyncio.gather(*(replica.score(clip, one, until) for until in asked), return_exceptions=True)
        assert await replica.batch_sizes() == {5: 1}
        alone = await asyncio.gather(replica.score(clip, one, late), return_exceptions=True)
        return [*answers, *alone]

    first, late_one, second, late_two, third, alone = asyncio.run(ask())
    for error in (late_one, late_two, alone):
        assert isinstance(error, ServiceError)
        assert "time is over" in str(error)
    took_ms = {answer.timings.model_ms for answer in (first, second, third)}  # type: ignore[attr-defined]
    assert len(took_ms) == 1, "each has waited for all of them"
