"""A shard to be written, whatever is done to make it, and who writes it: processes of this machine, or a cluster's tasks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

from data_shards.listing import ListedClip
from data_shards.manifest import ShardIndex
from data_shards.storage.store import Store

__all__ = ["OnDone", "Progress", "ShardWork", "WriteShards"]

OnDone = Callable[[int], None]  # clips done of those asked for
Progress = Callable[[int, int], None]  # (clips done, clips in all)


@dataclass(frozen=True, kw_only=True)
class ShardWork(ABC):
    """Plain values, so that it can be sent to a process. crashed: clips known to kill a process, not to be opened."""

    name: str
    clips: tuple[ListedClip, ...]
    crashed: frozenset[str] = frozenset()

    @abstractmethod
    def write(self, store: Store, *, on_clip: Callable[[str], None]) -> ShardIndex:
        """Write the shard and its index, whole or not at all; on_clip is called with each clip's id before it is opened."""

    def without(self, clip_id: str) -> Self:
        """The same, not opening that clip."""
        return replace(self, crashed=self.crashed | {clip_id})


class WriteShards(Protocol):
    """Do the work and yield each index as its shard is done, in any order."""

    def __call__(self, store: Store, work: Sequence[ShardWork], *, num_workers: int, on_done: OnDone) -> Iterator[ShardIndex]: ...
