"""How the pools of worker processes are interrupted and ended, wherever one is used."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait

__all__ = ["end_with_parent", "ignore_interrupts", "kill_workers"]


def ignore_interrupts() -> None:
    """In a worker: Ctrl-C reaches the whole process group; the parent says what is to be done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_parent() -> None:
    """In a worker: end when the parent has ended, however it did. A pool's workers would else wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def kill_workers(pool: ProcessPoolExecutor) -> None:
    """End the pool's processes at once: what they are at is no longer wanted. The pool must still be shut down."""
    for process in list((pool._processes or {}).values()):
        process.kill()
