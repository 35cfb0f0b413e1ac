"""The loader: batches in the stream's order, the same for every number of threads and workers."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.errors import ConfigError
from data_shards.loader import Batch, read_in_order, training_batches
from data_shards.manifest import Manifest
from data_shards.order import DrawStream
from data_shards.reader import ShardSet, Target

Shards = tuple[Path, Manifest]
ENGAGEMENT = Target("engagement")


def take(
    shards: Shards, count: int, *, microbatch: int, rank: int = 0, world_size: int = 1, start: int = 0, threads: int = 1
) -> list[Batch]:
    train = ShardSet(shards[0], splits=("train",), target=ENGAGEMENT)
    stream = DrawStream(train.view.levels_N, 0, "class_complete", 8)
    batches = training_batches(
        train,
        stream,
        inputs=("frames",),
        microbatch=microbatch,
        rank=rank,
        world_size=world_size,
        start=start,
        num_threads=threads,
    )
    return list(islice(batches, count))


def ids(batches: list[Batch]) -> list[str]:
    return [clip_id for batch in batches for clip_id in batch.clip_ids]


def test_a_batch_holds_what_was_stored(simulated_shards: Shards) -> None:
    (batch,) = take(simulated_shards, 1, microbatch=8)
    train = ShardSet(simulated_shards[0], splits=("train",))
    by_id = {train.read(n).meta.clip_id: train.read(n) for n in range(len(train))}
    assert batch.inputs.frames_BTCHW.shape == (8, 6, 3, 32, 32)
    assert batch.inputs.frames_BTCHW.dtype == torch.uint8
    for row, clip_id in enumerate(batch.clip_ids):
        sample = by_id[clip_id]
        assert int(batch.labels_B[row]) == sample.meta.labels["engagement"]
        assert batch.subjects[row] == sample.meta.subject
        frames_THWC = batch.inputs.frames_BTCHW[row].permute(0, 2, 3, 1).numpy()
        assert np.array_equal(frames_THWC, sample.decode_frames())


def test_threads_do_not_change_the_order(simulated_shards: Shards) -> None:
    one = take(simulated_shards, 12, microbatch=4, threads=1)
    many = take(simulated_shards, 12, microbatch=4, threads=4)
    assert ids(one) == ids(many)
    assert all(torch.equal(a.inputs.frames_BTCHW, b.inputs.frames_BTCHW) for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_ranks_share_each_global_batch(simulated_shards: Shards, world_size: int) -> None:
    whole = take(simulated_shards, 6, microbatch=8)
    parts = [take(simulated_shards, 6, microbatch=8 // world_size, rank=r, world_size=world_size) for r in range(world_size)]
    assert {len(part) for part in parts} == {6}
    joined = [clip_id for step in range(6) for part in parts for clip_id in part[step].clip_ids]
    assert joined == ids(whole)


def test_resuming_in_the_middle_with_another_world_size_goes_on_exactly(simulated_shards: Shards) -> None:
    whole = ids(take(simulated_shards, 10, microbatch=8))
    rest = [take(simulated_shards, 5, microbatch=4, rank=r, world_size=2, start=40) for r in range(2)]
    joined = [clip_id for step in range(5) for part in rest for clip_id in part[step].clip_ids]
    assert whole[40:] == joined


def test_evaluation_reads_every_sample_once(simulated_shards: Shards) -> None:
    test = ShardSet(simulated_shards[0], splits=("test",), target=ENGAGEMENT)
    for world_size in (1, 2, 3):
        read = [
            b for r in range(world_size) for b in read_in_order(test, inputs=("frames",), batch=3, rank=r, world_size=world_size)
        ]
        assert sorted(ids(read)) == sorted(test.read(n).meta.clip_id for n in range(len(test)))


def test_a_batch_that_cannot_be_shared_is_refused(simulated_shards: Shards) -> None:
    with pytest.raises(ConfigError, match="cannot be shared by 3 workers"):
        take(simulated_shards, 1, microbatch=1, world_size=3)


def test_unknown_splits_and_labels_name_the_known_ones(simulated_shards: Shards) -> None:
    with pytest.raises(ConfigError, match="no split 'exam'"):
        ShardSet(simulated_shards[0], splits=("exam",))
    with pytest.raises(ConfigError, match="no label named 'boredom'"):
        ShardSet(simulated_shards[0], splits=("train",), target=Target("boredom"))
