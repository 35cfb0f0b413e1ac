"""The order of samples is a pure function of (labels, seed, position), whoever reads it and wherever they start."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import ConfigError
from data_shards.hashing import mix64, seed_of
from data_shards.reading.order import DrawStream, Sampler, permutation

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


SAMPLERS: tuple[Sampler, ...] = ("shuffled", "class_complete", "windowed")


@st.composite
def shard_sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(labels_N, shard_starts) of 1 to 12 shards of 1 to 9 samples, with every class somewhere."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    total = sum(sizes)
    labels = draw(st.lists(st.integers(0, 3), min_size=total, max_size=total))
    return np.array(labels), np.array([0, *np.cumsum(sizes)])


def stream_of(shards: tuple[np.ndarray, np.ndarray], seed: int, sampler: Sampler, batch: int, window: int) -> DrawStream:
    return DrawStream(shards[0], seed, sampler, batch, shards[1], window)


@given(shard_sets(), st.integers(0, 1000), st.sampled_from(SAMPLERS), st.integers(1, 4), st.integers(0, 200), st.data())
@settings(deadline=None, max_examples=60)
def test_any_world_size_and_kill_point_reads_the_same_sequence(shards, seed, sampler, window, killed_at, data) -> None:  # type: ignore[no-untyped-def]
    """A run of one world size is killed and goes on with another: id for id what one uninterrupted process reads."""
    batch = 120  # shared evenly by every one of these world sizes
    before, after = (data.draw(st.sampled_from([1, 2, 3, 5, 8])) for _ in range(2))
    steps, stop = 4, killed_at % 4
    whole = stream_of(shards, seed, sampler, batch, window).draws(0, steps * batch)
    joined: list[tuple[int, int]] = []
    for world_size, first, last in ((before, 0, stop), (after, stop, steps)):
        share = batch // world_size
        streams = [stream_of(shards, seed, sampler, batch, window) for _ in range(world_size)]  # one a process
        for step in range(first, last):
            for rank, stream in enumerate(streams):
                joined += zip(*stream.draws(step * batch + rank * share, share), strict=True)
    assert joined == list(zip(*whole, strict=True))


@given(shard_sets(), st.integers(0, 1000), st.integers(1, 4), st.integers(1, 7))
@settings(deadline=None)
def test_a_windowed_epoch_is_a_permutation_that_fetches_each_shard_once(shards, seed, window, batch) -> None:  # type: ignore[no-untyped-def]
    labels, starts = shards
    stream = stream_of(shards, seed, "windowed", batch, window)
    for epoch in range(3):
        drawn = stream.draws(epoch * len(labels), len(labels))[0]
        assert sorted(drawn) == list(range(len(labels)))
        shard_of = np.searchsorted(starts, drawn, side="right") - 1
        seen: list[int] = list(dict.fromkeys(shard_of.tolist()))
        windows = [set(seen[at : at + window]) for at in range(0, len(seen), window)]
        at = 0
        for members in windows:  # all draws of one window's shards, then the next window's
            size = sum(int(starts[s + 1] - starts[s]) for s in members)
            assert set(shard_of[at : at + size].tolist()) == members
            at += size


@given(shard_sets(), st.integers(0, 1000), st.integers(4, 12))
@settings(deadline=None)
def test_class_complete_draws_each_class_as_often_as_it_says(shards, seed, batch) -> None:  # type: ignore[no-untyped-def]
    """One seat a class and batch, each from its class's cycle: no member is drawn twice more than another on those seats."""
    labels = shards[0]
    stream = stream_of(shards, seed, "class_complete", batch, 1)
    drawn = stream.draws(0, 2 * stream.epoch_length)[0]
    least = 2 * stream.epoch_length // batch  # seats of each class
    counts = np.bincount(drawn, minlength=len(labels))
    for level in np.unique(labels):
        members = np.flatnonzero(labels == level)
        assert counts[members].sum() >= least
        assert counts[members].min() >= least // len(members)


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
