"""How much of a label follows from who is in the clip: what a model could score without seeing any engagement."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from data_shards.audit.pairs import Comparison
from data_shards.audit.records import AuditedClip
from data_shards.schema import Stored

__all__ = ["Figures", "IdentityCeiling", "identity_ceiling"]

_TRAIN = "train"


class Figures(Stored):
    """Of one way to predict. balanced_accuracy: mean recall of the levels that are there. num_clips: the clips predicted."""

    accuracy: float
    balanced_accuracy: float
    num_clips: int


class IdentityCeiling(Stored):
    """What identity alone predicts of one label. Levels below 0 are left out; None where there is nothing to predict.

    Held-out clips (every split but train), from training labels alone:
      held_out_majority     the most frequent level of training, for every clip: the baseline of the others
      held_out_person       the most frequent level of the clip's person in training. Only clips whose person is in
                            training; None where no person is shared, as it should be
      held_out_nearest      the label of the training clip whose frames look most alike. In a set without leakage this
                            stays near the baseline; what it gains, a model can gain by knowing the person or the room
    Training clips:
      train_majority        the most frequent level, for every clip: the baseline of the others
      train_person          the most frequent level of the person's other clips (leave one out). Only people with two clips
                            or more. Below the baseline where each person has all levels alike: the clip left out is then
                            of the level that is left rarest
      train_nearest         the label of the training clip whose frames look most alike, itself left out
      train_nearest_stranger  the same among the clips of other people
    train_nearest less train_nearest_stranger is what identity alone buys: what a split by clip, not by person, would
    add to every model's figures before it learnt anything of engagement.
    """

    held_out_majority: Figures | None
    held_out_person: Figures | None
    held_out_nearest: Figures | None
    train_majority: Figures | None
    train_person: Figures | None
    train_nearest: Figures | None
    train_nearest_stranger: Figures | None


def identity_ceiling(clips: Sequence[AuditedClip], label: str, comparison: Comparison | None) -> IdentityCeiling:
    """The ceiling of one label; without a comparison of frames (labels alone) the `nearest` figures are None."""
    level_of = {number: clip.labels[label] for number, clip in enumerate(clips) if clip.labels.get(label, -1) >= 0}
    train = [number for number in level_of if clips[number].split == _TRAIN]
    held_out = [number for number in level_of if clips[number].split != _TRAIN]
    overall = Counter(level_of[number] for number in train)
    of_person: dict[str, Counter[int]] = defaultdict(Counter)
    for number in train:
        if clips[number].subject:
            of_person[clips[number].subject][level_of[number]] += 1
    nearest = comparison.nearest if comparison else {}
    stranger = comparison.nearest_stranger if comparison else {}

    def by_frames(numbers: Iterable[int], neighbour_of: Mapping[int, int]) -> Figures | None:
        return _figures(
            (level_of[number], level_of[neighbour_of[number]]) for number in numbers if neighbour_of.get(number, -1) in level_of
        )

    def by_counts(numbers: Iterable[int], counts_of: Mapping[int, Counter[int]], *, leave_out: bool) -> Figures | None:
        predicted = ((level_of[n], _majority(counts_of[n], without=level_of[n] if leave_out else None)) for n in numbers)
        return _figures((level, guess) for level, guess in predicted if guess is not None)

    everyone = dict.fromkeys(level_of, overall)
    own = {number: of_person.get(clips[number].subject, Counter()) for number in level_of}
    return IdentityCeiling(
        held_out_majority=by_counts(held_out, everyone, leave_out=False),
        held_out_person=by_counts(held_out, own, leave_out=False),
        held_out_nearest=by_frames(held_out, nearest),
        train_majority=by_counts(train, everyone, leave_out=False),
        train_person=by_counts(train, own, leave_out=True),
        train_nearest=by_frames(train, nearest),
        train_nearest_stranger=by_frames(train, stranger),
    )


def _majority(counts: Counter[int], *, without: int | None) -> int | None:
    """The most frequent level, of equals the lowest; one clip of level `without` is not counted. None where none is left."""
    left = {level: count - (level == without) for level, count in counts.items()}
    return max(sorted(left), key=lambda level: left[level]) if any(left.values()) else None


def _figures(pairs: Iterable[tuple[int, int]]) -> Figures | None:
    """Figures of (level, predicted level) pairs."""
    seen, right = Counter[int](), Counter[int]()
    for level, guess in pairs:
        seen[level] += 1
        right[level] += level == guess
    if not seen:
        return None
    recalls = [right[level] / seen[level] for level in seen]
    return Figures(
        accuracy=round(right.total() / seen.total(), 4),
        balanced_accuracy=round(sum(recalls) / len(recalls), 4),
        num_clips=seen.total(),
    )
