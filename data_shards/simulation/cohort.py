"""Who is in which clip: subject-disjoint splits and labels, drawn before anything is rendered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.simulation.settings import SimulationSettings

NUM_LEVELS = 4
SPLITS = ("train", "validation", "test")
DAISEE_TRAIN_COUNTS = (34, 213, 2617, 2494)
_MIN_PEOPLE = 8
_CLIPS_PER_PERSON = 8
_MIN_CLIPS_FOR_ALL_CLASSES = 8
_STREAM_SPLITS, _STREAM_LABELS, _STREAM_PERSON, _STREAM_CLIP = range(4)


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """One clip before it is made. label in 0..3; subject_index counts people from 0."""

    index: int
    subject_index: int
    split: str
    label: int

    @property
    def clip_id(self) -> str:
        return f"sim{self.subject_index:04d}_{self.index:04d}"

    @property
    def subject(self) -> str:
        return f"simulated-{self.subject_index:03d}"

    def row(self) -> dict[str, str]:
        """The clip's row in labels.csv."""
        return {
            "clip": f"clips/{self.clip_id}.mp4",
            "label": str(self.label),
            "subject": self.subject,
            "split": self.split,
            "simulated": "simulated",
        }


def person_rng(seed: int, subject_index: int) -> np.random.Generator:
    """The random stream of a person's looks, voice and room: the same in all of their clips."""
    return np.random.default_rng([seed, _STREAM_PERSON, subject_index])


def clip_rng(seed: int, index: int) -> np.random.Generator:
    """The random stream of one clip: independent of every other clip and of who makes it."""
    return np.random.default_rng([seed, _STREAM_CLIP, index])


def plan_cohort(settings: SimulationSettings) -> list[PlannedClip]:
    """All clips of a set, by index. People have about eight clips each and are in one split only."""
    num_people = max(_MIN_PEOPLE, settings.num_clips // _CLIPS_PER_PERSON)
    subject_of = [index % num_people for index in range(settings.num_clips)]
    split_of = _split_people(num_people, settings.seed)
    label_of = [0] * settings.num_clips
    for split in SPLITS:
        members = [s for s in range(num_people) if split_of[s] == split]
        indices = [[i for i, owner in enumerate(subject_of) if owner == s] for s in members]
        labels = _deal(_class_counts(sum(map(len, indices)), settings.balance))
        start = 0
        for subject_index, own in zip(members, indices, strict=True):
            rng = np.random.default_rng([settings.seed, _STREAM_LABELS, subject_index])
            dealt = rng.permutation(np.array(labels[start : start + len(own)], dtype=np.int64))
            start += len(own)
            for index, label in zip(own, dealt, strict=True):
                label_of[index] = int(label)
    return [PlannedClip(index=i, subject_index=s, split=split_of[s], label=label_of[i]) for i, s in enumerate(subject_of)]


def _split_people(num_people: int, seed: int) -> dict[int, str]:
    """60, 15 and 25 % of the people for training, validation and test, at least one each."""
    order = np.random.default_rng([seed, _STREAM_SPLITS]).permutation(num_people)
    num_test = max(1, round(0.25 * num_people))
    num_validation = max(1, round(0.15 * num_people))
    names = ["test"] * num_test + ["validation"] * num_validation
    names += ["train"] * (num_people - len(names))
    return {int(subject): name for subject, name in zip(order, names, strict=True)}


def _class_counts(num_clips: int, balance: str) -> list[int]:
    """Clips of each level by largest remainder, with one of each where there is room for it."""
    weights = np.array(DAISEE_TRAIN_COUNTS if balance == "daisee" else (1,) * NUM_LEVELS, dtype=np.float64)
    exact = num_clips * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    remainder_order = np.argsort(-(exact - counts), kind="stable")
    counts[remainder_order[: num_clips - int(counts.sum())]] += 1
    if num_clips >= _MIN_CLIPS_FOR_ALL_CLASSES:
        for level in np.flatnonzero(counts == 0):
            counts[np.argmax(counts)] -= 1
            counts[level] += 1
    return [int(count) for count in counts]


def _deal(counts: Sequence[int]) -> list[int]:
    """The labels in an order whose every stretch has nearly the shares of the whole.

    Dealt to people in turn, each gets nearly the same mixture, so that who it is says little about the label.
    """
    target = np.array(counts, dtype=np.float64)
    total = int(target.sum())
    given = np.zeros(len(counts))
    labels = []
    for position in range(total):
        deficit = target * (position + 1) / total - given
        deficit[given >= target] = -np.inf
        label = int(np.argmax(deficit))
        given[label] += 1
        labels.append(label)
    return labels
