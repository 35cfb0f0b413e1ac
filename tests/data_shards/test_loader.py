"""The loader: batches in the stream's order, the same for every number of threads and workers."""

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.building.build import build_shards
from data_shards.errors import ConfigError
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing
from data_shards.manifest import Manifest
from data_shards.preprocess import PreprocessConfig
from data_shards.reading.loader import Batch, read_in_order, training_batches
from data_shards.reading.order import DrawStream
from data_shards.reading.reader import ShardSet, Target

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


@pytest.fixture(scope="module")
def number_shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """31 samples of one number each, in shards of 4: no multiple of any batch."""
    clips = tuple(
        ListedClip(
            clip_id=f"c{number}",
            subject=f"p{number}",
            split="train",
            labels={"engagement": number % 4},
            features={"number": np.array([number], dtype=np.float32)},
        )
        for number in range(31)
    )
    listing = Listing(dataset="numbers", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=clips)
    folder = tmp_path_factory.mktemp("numbers")
    return folder, build_shards(listing, folder, preprocess=PreprocessConfig(), clips_per_shard=4, num_workers=1)


def ids_of_all_ranks(
    shards: ShardSet, stream: DrawStream, *, world_size: int, microbatch: int, threads: int, steps: range
) -> list[str]:
    """The clip ids of global batches `steps`, as the ranks of a whole world read them, in the order of the ranks."""
    options = {"inputs": ("number",), "microbatch": microbatch, "world_size": world_size, "num_threads": threads}
    start = steps.start * stream.global_batch
    ranks = [training_batches(shards, stream, rank=rank, start=start, **options) for rank in range(world_size)]  # type: ignore[arg-type]
    found: list[str] = []
    for _ in range(len(steps) * stream.global_batch // (world_size * microbatch)):
        for batches in ranks:
            batch = next(batches)
            assert len(batch.clip_ids) == microbatch
            assert [f"c{int(value)}" for value in batch.inputs.features["number"][:, 0]] == list(batch.clip_ids)
            found += batch.clip_ids
    for batches in ranks:
        batches.close()
    return found


@given(
    sampler=st.sampled_from(["shuffled", "class_complete", "windowed"]),
    seed=st.integers(0, 1000),
    worlds=st.tuples(*[st.sampled_from([1, 2, 3, 5, 8])] * 2),
    parts=st.tuples(*[st.sampled_from([4, 5, 120])] * 2),
    threads=st.integers(1, 3),
    killed_at=st.integers(0, 3),
)
@settings(deadline=None, max_examples=40)
def test_workers_killed_anywhere_and_replaced_by_others_read_the_same_batches(  # type: ignore[no-untyped-def]
    number_shards, sampler, seed, worlds, parts, threads, killed_at
) -> None:
    """The loader itself, id for id what one uninterrupted process reads, for world sizes, microbatches and threads."""
    with ShardSet(number_shards[0], splits=("train",), target=ENGAGEMENT) as shards:
        stream = DrawStream(shards.view.levels_N, seed, sampler, 120, shards.shard_starts, 2)
        read: list[str] = []
        for world_size, part, steps in zip(worlds, parts, (range(killed_at), range(killed_at, 3)), strict=True):
            microbatch = math.gcd(120 // world_size, part)
            read += ids_of_all_ranks(shards, stream, world_size=world_size, microbatch=microbatch, threads=threads, steps=steps)
        assert read == [f"c{index}" for index in stream.draws(0, 3 * 120)[0]]


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
