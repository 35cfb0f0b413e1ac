"""A stranger's recording is watched in a child process that can be killed: one that hangs, crashes or eats memory ends alone.

What the child says comes as bytes that are parsed and checked (`serving/lesson/messages.py`), never as a pickle.
"""

import os
import subprocess
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from data_shards.errors import ClipError, ServiceError
from data_shards.extraction.clip_sample import ClipRecipe
from serving.confined.child_messages import ChildGone, send
from serving.confined.confine import Bounds
from serving.confined.decode_child import start_worker, worker_environment
from serving.confined.sample_message import recipe_in_words
from serving.lesson.messages import Failed, unpacked
from serving.lesson.watch import LessonSettings, Told

__all__ = ["WatchChild", "WatchOrder"]

# of addresses: MediaPipe reserves 2 GiB, and pictures of the largest size between two looks are 400 MB
_FRAMES = Bounds(memory_bytes=6 << 30)
_WITH_EXTRACTORS = Bounds(memory_bytes=14 << 30, scratch_bytes=512 << 20)  # in it a window's clips of everybody
_MESSAGE_BYTES = 512 << 20
_START_S = 120.0
_SILENT_S = 120.0  # between two looks, that is half a second of the lesson
_WITH_EXTRACTORS_S = 1800.0  # between two windows of many people
_END_S = 5.0
_CRASHED = "the recording is damaged: it crashed the decoder, or took all its memory; re-encode it"


@dataclass(frozen=True, kw_only=True)
class WatchOrder:
    """What a child is to watch. face_model: MediaPipe's file; scratch: where it may write, should it have to; state: as a Watch
    said it last."""

    path: Path
    recipe: ClipRecipe
    settings: LessonSettings
    face_model: Path
    scratch: Path
    state: bytes | None = None


class WatchChild:
    """One child that watches one recording. `start` it from a thread that lasts; `next` gives its messages in order."""

    def __init__(self, order: WatchOrder) -> None:
        self._order: WatchOrder | None = order
        self._silent_s = _WITH_EXTRACTORS_S if order.recipe.extractors else _SILENT_S
        self._process: subprocess.Popen[bytes] | None = None
        self._told: Connection | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """It is told what to watch by the first `next`, which may wait."""
        self._process = start_worker("serving.lesson.watch_worker", worker_environment())
        assert self._process.stdout is not None
        self._told = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdout.close()

    def next(self) -> Told:
        """The next message, waited for. ClipError where the recording cannot be used, or has hung or crashed the child."""
        assert self._told is not None
        try:
            self._say_order()
            if not self._told.poll(self._silent_s):
                raise ClipError(f"the recording hung the decoder for {self._silent_s:.0f} s; re-encode it")
            message, blobs = unpacked(self._told.recv_bytes(_MESSAGE_BYTES))
        except (ChildGone, EOFError, OSError):  # a TimeoutError is one too
            raise ClipError(_CRASHED) from None
        if isinstance(message, Failed):
            raise ClipError(message.sentence) if message.of_recording else ServiceError(message.sentence)
        return message, blobs

    def kill(self) -> None:
        """End the child, whatever it is at; a `next` that waits for it then raises."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END_S)

    def close(self) -> None:
        """End the child and free what is held for it: no `next` may be under way in another thread."""
        self.kill()
        if self._told is not None:
            self._told.close()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _say_order(self) -> None:
        order, self._order = self._order, None
        if order is None:
            return
        assert self._process is not None
        assert self._process.stdin is not None
        bounds = _WITH_EXTRACTORS if order.recipe.extractors else _FRAMES
        words = {
            "path": str(order.path.absolute()),
            "recipe": recipe_in_words(order.recipe),
            "settings": order.settings.model_dump(mode="json"),
            "face_model": str(order.face_model.absolute()),
            "scratch": str(order.scratch.absolute()) if order.recipe.extractors else None,
            "bounds": asdict(bounds),
        }
        parts = {"state": order.state} if order.state else {}
        send(self._process.stdin.fileno(), words, parts, timeout_s=_START_S)
