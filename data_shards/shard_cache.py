"""Placeholder until the merge."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.manifest import ShardEntry
from data_shards.store import Store


@dataclass(frozen=True)
class CacheSettings:
    folder: Path
    max_bytes: int


class ShardCache:
    def __init__(self, store: Store, settings: CacheSettings) -> None: ...
    def open(self, entry: ShardEntry) -> int:
        raise AssertionError

    def prefetch(self, entries: Sequence[ShardEntry]) -> None: ...
    def close(self) -> None: ...
