"""The order of samples is a pure function of (labels, seed, position), whoever reads it and wherever they start."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import ConfigError
from data_shards.hashing import mix64, seed_of
from data_shards.order import DrawStream, permutation

label_lists = st.lists(st.integers(0, 3), min_size=8, max_size=60).map(lambda labels: np.array([*labels, 0, 1, 2, 3]))


@given(st.integers(1, 500), st.integers(0, 2**63))
def test_permutation_is_one(num_items: int, seed: int) -> None:
    assert sorted(permutation(num_items, seed)) == list(range(num_items))


def test_the_hash_never_changes() -> None:
    # part of the contract: an order once trained on can be drawn again by any later version
    assert [int(word) for word in mix64(0, np.arange(2, dtype=np.int64))] == [16294208416658607535, 7960286522194355700]
    assert permutation(8, seed_of(7, 1, 0)).tolist() == [6, 4, 5, 7, 2, 3, 0, 1]


@given(label_lists, st.integers(0, 1000), st.integers(1, 7))
def test_a_shuffled_epoch_is_a_permutation_whatever_the_batch(labels: np.ndarray, seed: int, batch: int) -> None:
    stream = DrawStream(labels, seed, "shuffled", batch)
    for epoch in range(3):
        drawn = stream.draws(epoch * len(labels), len(labels))[0]
        assert sorted(drawn) == list(range(len(labels)))


def test_epochs_and_seeds_differ() -> None:
    labels = np.zeros(50, dtype=np.int64)
    first = DrawStream(labels, 1, "shuffled", 5).draws(0, 100)[0]
    assert not np.array_equal(first[:50], first[50:])
    assert not np.array_equal(first[:50], DrawStream(labels, 2, "shuffled", 5).draws(0, 50)[0])


@given(label_lists, st.integers(0, 1000), st.integers(4, 12), st.sampled_from(["shuffled", "class_complete"]))
@settings(deadline=None)
def test_any_world_size_reads_a_partition_of_the_same_sequence(labels, seed, batch, sampler) -> None:  # type: ignore[no-untyped-def]
    stream = DrawStream(labels, seed, sampler, batch)
    total = 4 * batch
    indices, keys = stream.draws(0, total)
    for world_size in (w for w in (1, 2, 3, 4, 5, 8) if batch % w == 0):
        share = batch // world_size
        joined = [
            draw
            for step in range(4)
            for rank in range(world_size)
            for draw in zip(*stream.draws(step * batch + rank * share, share), strict=True)
        ]
        assert joined == list(zip(indices, keys, strict=True))


@given(
    label_lists, st.integers(0, 1000), st.integers(4, 12), st.sampled_from(["shuffled", "class_complete"]), st.integers(0, 300)
)
@settings(deadline=None)
def test_a_resumed_sequence_equals_the_uninterrupted_one(labels, seed, batch, sampler, position) -> None:  # type: ignore[no-untyped-def]
    whole = DrawStream(labels, seed, sampler, batch).draws(0, position + 40)
    resumed = DrawStream(labels, seed, sampler, batch).draws(position, 40)
    assert np.array_equal(whole[0][position:], resumed[0])
    assert np.array_equal(whole[1][position:], resumed[1])


@given(label_lists, st.integers(0, 1000), st.integers(4, 12))
@settings(deadline=None)
def test_every_class_is_in_every_class_complete_batch(labels: np.ndarray, seed: int, batch: int) -> None:
    stream = DrawStream(labels, seed, "class_complete", batch)
    drawn = stream.draws(0, 3 * stream.epoch_length)[0].reshape(-1, batch)
    assert all(set(labels[row]) == {0, 1, 2, 3} for row in drawn)


def test_a_class_cycles_through_all_its_members() -> None:
    labels = np.array([0] * 40 + [1] * 3)
    drawn = DrawStream(labels, 0, "class_complete", 4).draws(0, 44)[0]
    rare = drawn[labels[drawn] == 1]
    # the class's own seat takes 40, 41, 42 in some order before any of them again
    assert set(rare) == {40, 41, 42}
    counts = np.bincount(rare)[40:]
    assert counts.max() - counts.min() <= 3


def test_draw_keys_are_all_different() -> None:
    keys = DrawStream(np.zeros(10, dtype=np.int64), 5, "shuffled", 2).draws(0, 10_000)[1]
    assert len(np.unique(keys)) == 10_000
    assert keys.min() >= 0


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match="too small to hold every one of 4 classes"):
        DrawStream(np.array([0, 1, 2, 3]), 0, "class_complete", 3)
    with pytest.raises(ConfigError, match="holds no sample"):
        DrawStream(np.array([], dtype=np.int64), 0, "shuffled", 3)
