"""What a person or a supervisor does to stop the program."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["StopRequest", "stop_on_sigterm", "wait_for_stop"]


class StopRequest:
    """Whether somebody asked the work to stop: what training asks after each step, as `should_stop`. Any thread may ask.

    signal_number: what asked first, None where it was no signal.
    """

    def __init__(self) -> None:
        self._asked = False  # no threading.Event: a signal that comes while one is being set would wait for its own lock
        self.signal_number: int | None = None

    def __call__(self) -> bool:
        return self._asked

    def ask(self, signal_number: int | None = None) -> None:
        """Ask; the first time counts."""
        if not self._asked:
            self.signal_number = signal_number
            self._asked = True

    @property
    def exit_code(self) -> int:
        """128 and the signal, as shells say it; SIGTERM's 143 where no signal asked."""
        return 128 + (self.signal_number or signal.SIGTERM)

    @contextmanager
    def on_signals(self) -> Iterator["StopRequest"]:
        """In the block, the first SIGTERM or Ctrl-C asks; a second is KeyboardInterrupt, a third ends the process.

        Nothing changes outside the main thread, which alone may set handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def stop(number: int, frame: object) -> None:
            if not self._asked:
                self.ask(number)
                return
            for each in before:
                signal.signal(each, signal.SIG_DFL)
            raise KeyboardInterrupt

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def wait_for_stop(meanwhile: Callable[[], None] = lambda: None, *, every_s: float = 5.0) -> None:
    """Block until SIGINT or SIGTERM; a second of them is KeyboardInterrupt, whatever is done by then to end in good order.

    meanwhile: called every `every_s` seconds until then.
    """
    stop = StopRequest()

    def ask(number: int, frame: object) -> None:
        if stop():
            raise KeyboardInterrupt
        stop.ask(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    next_s = time.monotonic() + every_s
    while not stop():
        time.sleep(0.1)  # a signal's handler runs in this thread, so no wait that it could not end
        if time.monotonic() >= next_s:
            meanwhile()
            next_s = time.monotonic() + every_s


def stop_on_sigterm() -> None:
    """Take SIGTERM as Ctrl-C is taken: what is under way is closed, and the command ends with a sentence."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
