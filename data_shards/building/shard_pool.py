"""Write shards in a pool of processes on this machine; a clip that kills its process is found and left out."""

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from data_shards.building.shard_work import OnDone, ShardWork
from data_shards.errors import DataError
from data_shards.manifest import ShardIndex
from data_shards.storage.store import Store
from data_shards.worker_pool import end_with_parent, ignore_interrupts, kill_workers

__all__ = ["write_in_processes"]

_POLL_S = 0.2


def write_in_processes(store: Store, work: Sequence[ShardWork], *, num_workers: int, on_done: OnDone) -> Iterator[ShardIndex]:
    """Write shards into `store`, one process a shard, and yield each index as its shard is done.

    When a clip kills a process the pool breaks as a whole, and which of the clips in work it was cannot be told. The
    unfinished shards are then made one by one in a pool of one: the clip in work when that breaks is left out.
    """
    unfinished = {shard.name: shard for shard in work}
    done = 0  # clips of the shards that are finished: what is shown never falls behind it
    with tempfile.TemporaryDirectory(prefix="rapt-build-") as scratch:
        notes = Path(scratch)
        for index in _write_in_pool(store, list(work), notes, num_workers, on_done):
            done += len(unfinished.pop(index.shard).clips)
            yield index
        while unfinished:
            shard = next(iter(unfinished.values()))
            note = notes / shard.name
            note.unlink(missing_ok=True)  # of the pool that broke
            indexes = list(_write_in_pool(store, [shard], notes, 1, partial(_add, on_done, done)))
            if indexes:
                done += len(unfinished.pop(shard.name).clips)
                yield indexes[0]
                continue
            if not note.exists():
                raise DataError(
                    f"{store.uri}/{shard.name}: its process died before it opened a clip; look at memory, then try again"
                )
            unfinished[shard.name] = shard.without(note.read_bytes().decode(errors="surrogatepass"))


def _add(on_done: OnDone, before: int, count: int) -> None:
    on_done(before + count)


def _write_in_pool(
    store: Store, work: Sequence[ShardWork], notes: Path, num_workers: int, on_done: OnDone
) -> Iterator[ShardIndex]:
    """Yield the indexes of the shards that a fresh pool finishes; a broken pool ends it, other errors are raised."""
    if not work:
        return
    context = multiprocessing.get_context("spawn")
    counter: Synchronized[int] = context.Value("q", 0)
    workers = min(num_workers, len(work))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_set_counter, initargs=(counter,))
    try:
        pending: set[Future[ShardIndex]] = {pool.submit(_write_one, store, shard, notes / shard.name) for shard in work}
        while pending:
            finished, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            on_done(counter.value)
            for future in finished:
                yield future.result()
    except BrokenProcessPool:
        return
    except BaseException:  # interrupted, or the caller stops early: nobody waits for clips that nobody wants
        kill_workers(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_counter: "Synchronized[int] | None" = None  # this worker process's view of how many clips are done


def _set_counter(counter: "Synchronized[int]") -> None:
    global _counter
    ignore_interrupts()
    end_with_parent()
    _counter = counter


def _write_one(store: Store, shard: ShardWork, note: Path) -> ShardIndex:
    """In a worker process: write one shard, leaving a note of the clip in work for the case that it kills us."""

    def on_clip(clip_id: str) -> None:
        note.write_bytes(clip_id.encode(errors="surrogatepass"))
        if _counter is not None:
            with _counter.get_lock():
                _counter.value += 1

    return shard.write(store, on_clip=on_clip)
