"""Splits by person: a partition of people, near the published shares, the same in every process."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.datasets.person_splits import split_by_person
from data_shards.listing import ENGAGEMENT_LEVELS, NO_LEVEL, ListedClip, Listing


def listing_of(clips: list[tuple[str, str, int]]) -> Listing:
    """Clips of (subject, published split, level)."""
    return Listing(
        dataset="made up",
        label_names={"engagement": ENGAGEMENT_LEVELS},
        notice="published",
        clips=tuple(
            ListedClip(clip_id=f"clip{number}", subject=subject, split=split, labels={"engagement": level})
            for number, (subject, split, level) in enumerate(clips)
        ),
    )


def cmose_like() -> Listing:
    """12,193 clips of 102 people with CMOSE's class shares, split at random by clip."""
    rng = np.random.default_rng(5)
    people = rng.choice(102, size=12_193, p=rng.dirichlet(np.full(102, 3.0)))
    splits = rng.choice(["train", "validation", "test"], size=12_193, p=[0.7, 0.1, 0.2])
    levels = rng.choice(4, size=12_193, p=np.array([346, 2208, 8469, 1170]) / 12_193)
    return listing_of(
        [(f"p{person}", str(split), int(level)) for person, split, level in zip(people, splits, levels, strict=True)]
    )


SUBJECTS = st.sampled_from([f"p{number}" for number in range(12)])
CLIPS = st.lists(st.tuples(SUBJECTS, st.sampled_from(["train", "validation", "test"]), st.integers(NO_LEVEL, 3)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(clips=CLIPS, seed=st.integers(0, 2**32))
def test_nobody_is_in_two_splits_and_nothing_else_changes(clips: list[tuple[str, str, int]], seed: int) -> None:
    before = listing_of(clips)
    after = split_by_person(before, seed=seed)
    assert after == split_by_person(before, seed=seed)
    assert [(c.clip_id, c.subject, c.labels) for c in after.clips] == [(c.clip_id, c.subject, c.labels) for c in before.clips]
    splits_of: dict[str, set[str]] = {}
    for clip in after.clips:
        splits_of.setdefault(clip.subject, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    published = {clip.split for clip in before.clips}
    used = {clip.split for clip in after.clips}
    assert used <= published
    assert len(used) == min(len(published), len(splits_of))


@pytest.mark.parametrize("seed", range(5))
def test_the_shares_of_clips_and_of_levels_are_about_the_published_ones(seed: int) -> None:
    before = cmose_like()
    after = split_by_person(before, seed=seed)
    wanted, held = (Counter(clip.split for clip in listing.clips) for listing in (before, after))
    for split, count in wanted.items():
        assert abs(held[split] - count) < 0.01 * len(before.clips)
    for level in range(4):
        of_level = [clip.split for clip in after.clips if clip.labels["engagement"] == level]
        for split, count in wanted.items():
            assert abs(of_level.count(split) / len(of_level) - count / len(before.clips)) < 0.05


def test_another_seed_draws_other_splits() -> None:
    before = cmose_like()
    drawn = {tuple(clip.split for clip in split_by_person(before, seed=seed).clips) for seed in range(4)}
    assert len(drawn) == 4


def test_the_notice_says_that_the_splits_are_not_the_published_ones() -> None:
    after = split_by_person(cmose_like(), seed=7)
    assert "by person with seed 7, not the published ones" in after.notice
    assert after.notice != "published"


def test_clips_of_unknown_people_are_split_too_and_the_notice_says_so() -> None:
    clips = [(f"clip{number}", "train" if number < 146 else "validation", number % 4) for number in range(194)]
    after = split_by_person(listing_of(clips), seed=0)
    assert Counter(clip.split for clip in after.clips) == {"train": 146, "validation": 48}
    assert "each counts as a person of its own" in after.notice


def test_the_draw_is_part_of_the_contract() -> None:
    clips = [(f"p{number}", "train" if number % 3 else "test", number % 4) for number in range(12)]
    after = split_by_person(listing_of(clips), seed=1)
    assert "".join(clip.split[1] for clip in after.clips) == "rerrererrrre"
