"""Rows times seeds as tasks of this machine's processes, one thread each: their arrays are too small to share among threads."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

from data_shards.worker_pool import end_with_parent, ignore_interrupts, kill_workers, one_torch_thread
from training.reproduction.regressors import one_thread

__all__ = ["Progress", "run_tasks"]

Progress = Callable[[int, int], None]  # (done, total)
Key = TypeVar("Key")
Result = TypeVar("Result")


def run_tasks(
    task: Callable[[Key], Result], keys: Iterable[Key], *, num_workers: int = 0, progress: Progress = lambda done, total: None
) -> dict[Key, Result]:
    """task(key) of every key, in the keys' order. num_workers: processes, 0 for one a core; with 1 all runs in this one.

    task is a function of a module, or a partial of one: it is sent to the processes. Their number changes no result.
    """
    wanted = list(keys)
    workers = min(num_workers or os.cpu_count() or 1, len(wanted))
    progress(0, len(wanted))
    if workers <= 1:
        found = {}
        for done, key in enumerate(wanted, start=1):
            found[key] = _alone(task, key)
            progress(done, len(wanted))
        return found
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        futures: dict[Future[Result], Key] = {pool.submit(_alone, task, key): key for key in wanted}
        results = {}
        for done, future in enumerate(as_completed(futures), start=1):
            results[futures[future]] = future.result()
            progress(done, len(wanted))
    except BaseException:
        kill_workers(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return {key: results[key] for key in wanted}


def _begin() -> None:
    ignore_interrupts()
    end_with_parent()


def _alone(task: Callable[[Key], Result], key: Key) -> Result:
    with one_torch_thread(), one_thread():
        return task(key)
