"""A Finding: one fault of a dataset in one sentence, with how often it is there and the first cases of it."""

from collections.abc import Iterable
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


def finding(kind: str, severity: Literal["leak", "warning"], sentence: str, cases: Iterable[str]) -> list[Finding]:
    """The cases as one finding, their number at the end of its sentence; none where there is no case."""
    found = tuple(cases)
    if not found:
        return []
    text = f"{sentence}: {len(found):,}"
    return [Finding(kind=kind, severity=severity, sentence=text, count=len(found), examples=found[:MAX_EXAMPLES])]
