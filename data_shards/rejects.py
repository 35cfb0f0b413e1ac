"""The clips left out of a set, grouped by what was wrong with them."""

import re
from collections.abc import Iterable
from pathlib import Path

from data_shards.listing import Reject
from data_shards.schema import Stored
from data_shards.storage.store import open_store

__all__ = ["RejectGroup", "group_rejects", "read_rejects"]

_PLACE = re.compile(r"^(?:\S+\.\w+(?: line \d+)?:|clip\b)?\s*:?\s*")


class RejectGroup(Stored):
    """Rejects whose reasons differ only in names and numbers. kind: the reason without them."""

    kind: str
    rejects: tuple[Reject, ...]


def read_rejects(uri: str | Path) -> tuple[Reject, ...]:
    """The records of a set's `rejects.jsonl`, in their order; none where the file is not there."""
    store = open_store(uri)
    try:
        lines = store.read("rejects.jsonl").splitlines()
    except FileNotFoundError:
        return ()
    return tuple(Reject.from_bytes(line, origin=f"{store.uri}/rejects.jsonl") for line in lines if line.strip())


def group_rejects(rejects: Iterable[Reject]) -> tuple[RejectGroup, ...]:
    """Groups by kind, the largest first."""
    groups: dict[str, list[Reject]] = {}
    for reject in rejects:
        groups.setdefault(_kind(reject), []).append(reject)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(RejectGroup(kind=kind, rejects=tuple(members)) for kind, members in ordered)


def _kind(reject: Reject) -> str:
    """`a.mp4: damaged, cannot be decoded (x); re-encode it` -> `damaged, cannot be decoded`."""
    text = _PLACE.sub("", reject.reason)
    names = {reject.clip_id, reject.source, Path(reject.clip_id).name, Path(reject.source).name} - {""}
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", text)
    text = text.strip().removeprefix(":")
    text = re.sub(r"'[^']*'|\([^)]*\)", "", text)
    text = re.sub(r"\d+(?:[.x]\d+)*", "N", text.split(";")[0])
    return " ".join(text.replace(" ,", ",").split()).strip(" :,") or "no reason given"
