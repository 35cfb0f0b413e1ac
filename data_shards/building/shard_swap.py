"""Replace a finished shard's tar and its index as one.

`NAME.next.json`, the index that goes with the new tar, is written before the tar is replaced, so that a killed process
leaves a tar whose index is there, the old one or the new.
"""

from collections.abc import Sequence

from data_shards.building.shard_writer import write_tar
from data_shards.errors import ShardError
from data_shards.listing import Extractors
from data_shards.manifest import Lacking, ShardIndex, current_index, index_name, next_index_name
from data_shards.sample import Sample
from data_shards.storage.store import Store, published

__all__ = ["swap_shard"]


def swap_shard(
    store: Store,
    index: ShardIndex,
    samples: Sequence[tuple[str, Sample]],
    *,
    extractors: Extractors,
    lacking: Sequence[Lacking],
) -> ShardIndex:
    """Write (key, sample) pairs in place of the shard that `index` was read of; returns the new index.

    ShardError where the shard is no longer the one of `index`: somebody else changes the set. In a folder a lock keeps
    others out; in a bucket this is all there is.
    """
    with published(store, index.shard) as beside:
        content = write_tar(beside, samples)._asdict()
        new = ShardIndex.model_validate({**dict(index), **content, "extractors": extractors, "lacking": tuple(lacking)})
        if current_index(store, index.shard) != index:
            raise ShardError(f"{store.uri}/{index.shard}: changed meanwhile, so another command is at work there; wait for it")
        store.write(next_index_name(index.shard), new.to_bytes())
    store.write(index_name(index.shard), new.to_bytes())
    store.delete(next_index_name(index.shard))
    return new
