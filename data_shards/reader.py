"""Read samples out of shards by their index: one `pread` a member, no tar library, no process state."""

import hashlib
import os
from bisect import bisect_right
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_shards.errors import ConfigError, ShardError
from data_shards.manifest import Manifest, ShardEntry, ShardIndex, index_name, read_manifest
from data_shards.sample import Sample, SampleMeta

__all__ = ["ShardSet"]


class ShardSet:
    """The samples of some splits of a shard folder, numbered 0 .. N - 1 in the manifest's order.

    Opening reads the manifest alone; a shard's index is read when one of its samples is first asked for. Safe to
    share between threads: files are read with `pread`.
    """

    def __init__(self, folder: str | Path, *, splits: tuple[str, ...], manifest: Manifest | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = manifest or read_manifest(self.folder)
        unknown = [split for split in splits if split not in self.manifest.splits]
        if unknown:
            raise ConfigError(
                f"{self.folder}: holds no split '{unknown[0]}' (it has: {', '.join(self.manifest.splits)}); name one of these"
            )
        self.splits = splits
        self._entries: tuple[ShardEntry, ...] = tuple(e for e in self.manifest.shards if e.split in splits)
        self._starts = [0, *accumulate(entry.num_samples for entry in self._entries)]
        self._open_index = cache(self._read_index)

    def __len__(self) -> int:
        return self._starts[-1]

    def labels(self, name: str) -> npt.NDArray[np.int64]:
        """labels_N int64: the level of label `name` of every sample, from the manifest alone."""
        if name not in self.manifest.label_names:
            raise ConfigError(
                f"{self.folder}: holds no label '{name}' (it has: {', '.join(self.manifest.label_names)}); set data.label to one"
            )
        return np.array([level for entry in self._entries for level in entry.labels[name]], dtype=np.int64)

    def read(self, number: int) -> Sample:
        """Sample `number`. ShardError names the shard where its bytes are not what the index says."""
        members = self.read_members(number)
        meta = SampleMeta.from_bytes(
            members["json"], origin=f"{self.folder / self._entries[self._shard_of(number)].name}: sample {number}"
        )
        return Sample(meta=meta, frames_mjpeg=members["frames.mjpeg"])

    def read_members(self, number: int) -> dict[str, bytes]:
        """The members of sample `number` as they are stored: extension to bytes."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = self._shard_of(number)
        places = self._open_index(shard).samples[number - self._starts[shard]].members
        return {extension: self._read_member(shard, *place) for extension, place in places.items()}

    def _shard_of(self, number: int) -> int:
        return bisect_right(self._starts, number) - 1

    def _read_member(self, shard: int, offset: int, size: int) -> bytes:
        path = self.folder / self._entries[shard].name
        try:
            # opened for each read: a set has more shards than a process may hold open files
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ShardError(f"{path}: cannot be opened ({error.strerror}); copy it again, or build it again") from None
        try:
            content = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
        if len(content) != size:
            raise ShardError(f"{path}: cut short; copy it again, or build it again")
        return content

    def _read_index(self, shard: int) -> ShardIndex:
        entry = self._entries[shard]
        path = self.folder / index_name(entry.name)
        try:
            content = path.read_bytes()
        except OSError:
            raise ShardError(f"{path}: missing; copy it again, or run the same `rapt shards build` again") from None
        if hashlib.sha256(content).hexdigest() != entry.index_sha256:
            raise ShardError(f"{path}: not the index that the manifest names; copy the folder again, or build it again")
        return ShardIndex.from_bytes(content, origin=path)
