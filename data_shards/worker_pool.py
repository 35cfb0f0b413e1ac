"""How the pools of worker processes are interrupted and ended, wherever one is used."""

import signal
from concurrent.futures import ProcessPoolExecutor

__all__ = ["ignore_interrupts", "kill_workers"]


def ignore_interrupts() -> None:
    """In a worker: Ctrl-C reaches the whole process group; the parent says what is to be done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def kill_workers(pool: ProcessPoolExecutor) -> None:
    """End the pool's processes at once: what they are at is no longer wanted. The pool must still be shut down."""
    for process in list((pool._processes or {}).values()):
        process.kill()
