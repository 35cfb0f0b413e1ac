"""Rates and counts by a clock that the test holds."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.access.keys import KeyRecord, create_key
from serving.access.limits import Limits, TokenBucket


@pytest.fixture
def key(tmp_path: Path) -> KeyRecord:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return create_key(tmp_path / "keys.json", "school", now=now, rate_per_minute=3, concurrency=2)[0]


def test_a_minutes_tokens_may_go_at_once_and_then_they_trickle() -> None:
    bucket = TokenBucket(6, now_s=100.0)
    assert [bucket.take(100.0) for _ in range(6)] == [0.0] * 6
    assert bucket.take(100.0) == pytest.approx(10.0)
    assert bucket.take(109.0) == pytest.approx(1.0)
    assert bucket.take(110.0) == 0.0
    assert bucket.take(110.0) == pytest.approx(10.0)


def test_over_an_hour_the_rate_holds() -> None:
    bucket = TokenBucket(6, now_s=0.0)
    taken = sum(bucket.take(second / 10) == 0.0 for second in range(36_000))
    assert taken == 6 + 6 * 60 - 1  # a full bucket, and what trickled in until the last tenth of a second


def test_who_was_away_for_long_finds_one_minutes_tokens() -> None:
    bucket = TokenBucket(6, now_s=0.0)
    assert sum(bucket.take(7200.0) == 0.0 for _ in range(20)) == 6


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = TokenBucket(60, now_s=50.0)
    for _ in range(60):
        bucket.take(50.0)
    assert bucket.take(0.0) > 0
    assert bucket.take(50.0) > 0


def test_each_key_has_a_bucket_and_a_count_of_its_own(key: KeyRecord) -> None:
    limits = Limits(open_rate_per_minute=1)
    other = key.model_copy(update={"id": "0" * 12})
    assert [limits.take(key, 0.0) for _ in range(4)] == [0, 0, 0, 20]
    assert limits.take(other, 0.0) == 0
    limits.enter(key)
    limits.enter(key)
    assert not limits.has_room(key)
    limits.take(other, 0.0)
    assert limits.has_room(other)
    limits.leave(key)
    assert limits.has_room(key)


def test_a_changed_rate_holds_at_once(key: KeyRecord) -> None:
    limits = Limits(open_rate_per_minute=1)
    for _ in range(3):
        limits.take(key, 0.0)
    assert limits.take(key.model_copy(update={"rate_per_minute": 60}), 0.0) == 0


def test_an_open_service_has_a_bucket_for_everybody() -> None:
    limits = Limits(open_rate_per_minute=2)
    assert [limits.take_open(7.0) for _ in range(3)] == [0, 0, 30]
    assert limits.take_open(37.0) == 0
