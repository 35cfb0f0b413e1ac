"""Wait for a person or a supervisor to stop the service."""

import signal
import threading

__all__ = ["wait_for_stop"]


def wait_for_stop() -> None:
    """Block until SIGINT or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(timeout=1.0):
        pass
