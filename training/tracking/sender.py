"""The one thread that sends a spool while a run goes on: it waits for the server, so that the run does not."""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from training.tracking.client import first_line, shown_uri
from training.tracking.delivery import Delivery, RefusedError, RunMissingError
from training.tracking.spool import Position, Spool, read_position, waiting_records

__all__ = ["Sender", "lock_spool"]

_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 30.0
_LOOK_S = 1.0
_COLLECT_S = 3.0  # between calls: one a step cost a quarter of a small model's step on two cores (bench_loop)

Notify = Callable[[str], None]


@contextmanager
def lock_spool(folder: Path) -> Iterator[bool]:
    """Yields whether this is now the only sender of the spool in `folder`; another one ends with its process at the latest."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


class Sender:
    """Sends a spool's entries every few seconds. notify: gets a sentence where the server goes, comes back or refuses.

    A server that does not answer is asked again after 0.25 s, then after twice that, up to 30 s. One that refuses is
    not asked again. The thread is a daemon: a request that hangs does not hold a process open.
    """

    def __init__(self, spool: Spool, uri: str, *, notify: Notify) -> None:
        self._spool, self._uri, self._notify = spool, uri, notify
        self._closing, self._stopped = threading.Event(), threading.Event()
        self._is_away = False
        self._num_refused = 0
        self._thread = threading.Thread(target=self._run, name="mlflow-sender", daemon=True)
        self._thread.start()

    def close(self, *, wait_s: float) -> tuple[Position, int]:
        """Send what is left for at most wait_s; (how far it came, how many entries wait)."""
        self._closing.set()
        self._thread.join(wait_s)
        self._stopped.set()
        return read_position(self._spool.folder), waiting_records(self._spool.folder)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                with lock_spool(self._spool.folder) as is_ours:
                    if is_ours:
                        self._send_all()
                        return
                if self._closing.is_set():  # whoever sends it will find the rest there
                    return
                self._pause(_LOOK_S)
        except RefusedError as refusal:
            self._say(f"{refusal}; the run goes on, its record stays on disk: mend that, then `rapt runs sync`")
        except Exception as error:  # a run never ends for its record
            self._say(f"nothing more is sent to MLflow ({type(error).__name__}: {first_line(error)})")

    def _send_all(self) -> None:
        delivery = Delivery(self._spool.folder, self._uri)
        wait_s = _FIRST_WAIT_S
        while not self._stopped.is_set():
            try:
                moved = delivery.send_some()
            except RefusedError:
                raise
            except RunMissingError:
                self._pause(_FIRST_WAIT_S)
                continue
            except Exception as error:  # mlflow, sqlalchemy, requests, boto3: whatever it is, it may be gone later
                self._say_away(error)
                self._pause(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            wait_s = _FIRST_WAIT_S
            self._say_back(delivery.position)
            if not moved:
                if self._closing.is_set():
                    return
                self._pause(_COLLECT_S)

    def _pause(self, wait_s: float) -> None:
        """Wait, but for what ends the sending: `close` asks at once, then as often as before."""
        until_s = time.monotonic() + wait_s
        while not self._stopped.is_set() and (left_s := until_s - time.monotonic()) > 0:
            was_closing = self._closing.is_set()
            (self._stopped if was_closing else self._closing).wait(min(left_s, _LOOK_S))
            if self._closing.is_set() and not was_closing:
                return

    def _say(self, sentence: str) -> None:
        if not self._stopped.is_set():  # afterwards nobody listens: a request that hung may end long after the run
            self._notify(sentence)

    def _say_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            reason = f"does not answer ({first_line(error)})"
            self._say(f"MLflow at {shown_uri(self._uri)} {reason}; the run goes on, its record waits on disk")

    def _say_back(self, position: Position) -> None:
        if self._is_away:
            self._is_away = False
            self._say(f"MLflow at {position.uri} answers again")
        if position.num_refused > self._num_refused:
            self._num_refused = position.num_refused
            records = "1 record" if self._num_refused == 1 else f"{self._num_refused} records"
            self._say(f"MLflow at {position.uri} did not take {records}, which the spool still has")
