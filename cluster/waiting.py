"""What a person or a supervisor does to stop the program."""

import signal
import threading

__all__ = ["stop_on_sigterm", "wait_for_stop"]


def wait_for_stop() -> None:
    """Block until SIGINT or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(timeout=1.0):
        pass


def stop_on_sigterm() -> None:
    """Take SIGTERM as Ctrl-C is taken: what is under way is closed, and the command ends with a sentence."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
