"""Write shards as tasks of a Ray cluster, one task a shard."""

from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayError, RayTaskError

from data_shards.building.shard_pool import write_in_processes
from data_shards.building.shard_work import OnDone, ShardWork
from data_shards.errors import ServiceError
from data_shards.manifest import ShardIndex
from data_shards.storage.store import Store

__all__ = ["write_on_ray"]

_RETRIES = 3  # of a task whose node died; a shard made twice has the same bytes


def write_on_ray(store: Store, work: Sequence[ShardWork], *, num_workers: int, on_done: OnDone) -> Iterator[ShardIndex]:
    """`WriteShards` on the cluster that `connect_ray` joined; at most `num_workers` tasks at a time.

    A task writes its shard in a child process, so a clip that kills the decoder is found as it is on one machine.
    """
    waiting = list(reversed(work))
    running: dict[ray.ObjectRef[ShardIndex], ShardWork] = {}
    done = 0
    try:
        while waiting or running:
            while waiting and len(running) < num_workers:
                shard = waiting.pop()
                running[_write_shard.remote(store, shard)] = shard
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            index = ray.get(ready)
            done += len(running.pop(ready).clips)
            on_done(done)
            yield index
    except RayTaskError as error:  # what the task raised: ours is one sentence already
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except RayError as error:
        raise ServiceError(
            f"Ray: a task that makes a shard was lost ({str(error).splitlines()[0]}); run the same command again: "
            "finished shards are kept"
        ) from None
    finally:
        for task in running:
            ray.cancel(task, force=True)


@ray.remote(num_cpus=1, max_retries=_RETRIES)  # type: ignore[untyped-decorator]  # Ray has no types
def _write_shard(store: Store, shard: ShardWork) -> ShardIndex:
    (index,) = write_in_processes(store, [shard], num_workers=1, on_done=lambda count: None)
    return index
