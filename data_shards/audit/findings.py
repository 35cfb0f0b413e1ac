"""A Finding: one fault of a dataset in one sentence, with how often it is there and the first cases of it."""

from collections.abc import Iterable
from itertools import islice
from typing import Literal

from data_shards.schema import Stored

__all__ = ["MAX_EXAMPLES", "Finding", "finding"]

MAX_EXAMPLES = 20


class Finding(Stored):
    """severity: "leak" where held-out figures would be of data the model has seen, "warning" for the rest.

    count: cases in all; examples: the first MAX_EXAMPLES of them.
    """

    kind: str
    severity: Literal["leak", "warning"]
    sentence: str
    count: int
    examples: tuple[str, ...]


def finding(
    kind: str, severity: Literal["leak", "warning"], sentence: str, cases: Iterable[str], *, count: int | None = None
) -> list[Finding]:
    """The cases as one finding, their number at the end of its sentence; none where there is no case.

    count: how many cases there are, where they are too many to be put in words: only the first are then asked for.
    """
    if count is None:
        cases = tuple(cases)
        count = len(cases)
    if not count:
        return []
    examples = tuple(islice(cases, MAX_EXAMPLES))
    return [Finding(kind=kind, severity=severity, sentence=f"{sentence}: {count:,}", count=count, examples=examples)]
