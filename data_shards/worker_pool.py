"""How processes that others started are interrupted and ended, and share the cores, wherever there are any."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait

__all__ = ["end_with_parent", "ignore_interrupts", "kill_workers", "killed_with_parent", "one_torch_thread"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def ignore_interrupts() -> None:
    """In a worker: Ctrl-C reaches the whole process group; the parent says what is to be done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_parent() -> None:
    """In a worker: end when the parent has ended, however it did. A pool's workers would else wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def killed_with_parent() -> Callable[[], object]:
    """What a child calls so that Linux kills it when the thread that started it ends, whatever program it runs by then;
    nothing on other systems. Looked up by the parent: between fork and exec no library may be loaded."""
    if sys.platform != "linux":
        return lambda: None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def kill_workers(pool: ProcessPoolExecutor) -> None:
    """End the pool's processes at once: what they are at is no longer wanted. The pool must still be shut down."""
    for process in list((pool._processes or {}).values()):
        process.kill()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """torch on one thread while the block lasts: it adds up in another order with another number of them, and pieces of
    work that are many fill the cores as processes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
