"""A stranger's recording is watched in a child process that can be killed: one that hangs, crashes or eats memory ends alone.

What the child says comes as bytes that are parsed and checked (`serving/lesson/messages.py`), never as a pickle.
"""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from data_shards.errors import ClipError, RaptError, ServiceError
from data_shards.extraction.clip_sample import ClipRecipe, load_extractors
from data_shards.gallery.faces import FaceFinder
from data_shards.gallery.recording import open_recording
from data_shards.worker_pool import end_with_parent, ignore_interrupts, killed_with_parent
from serving.confined.confine import Bounds, confine, seal
from serving.lesson.messages import Failed, packed, unpacked
from serving.lesson.watch import LessonSettings, Told, Watch
from serving.lesson.watch_state import WatchState
from serving.lesson.window_clips import ClipsOfWindows

__all__ = ["WatchChild", "WatchOrder"]

_MEMORY_BYTES = 6 << 30  # of addresses: MediaPipe reserves 2 GiB, and pictures of the largest size between two looks are 400 MB
_WITH_EXTRACTORS_BYTES = 14 << 30
_MESSAGE_BYTES = 512 << 20
_SILENT_S = 120.0  # between two looks, that is half a second of the lesson
_WITH_EXTRACTORS_S = 1800.0  # between two windows of many people
_END_S = 5.0


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
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe(duplex=False)
        self._theirs: Connection | None = theirs
        self._silent_s = _WITH_EXTRACTORS_S if order.recipe.extractors else _SILENT_S
        self._process = context.Process(target=_watch, args=(theirs, order), name="rapt-lesson", daemon=True)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def start(self) -> None:
        self._process.start()
        assert self._theirs is not None
        self._theirs.close()  # so that the child's end is seen
        self._theirs = None

    def next(self) -> Told:
        """The next message, waited for. ClipError where the recording cannot be used, or has hung or crashed the child."""
        try:
            if not self._ours.poll(self._silent_s):
                raise ClipError(f"the recording hung the decoder for {self._silent_s:.0f} s; re-encode it")
            message, blobs = unpacked(self._ours.recv_bytes(_MESSAGE_BYTES))
        except (EOFError, OSError):
            raise ClipError("the recording is damaged: it crashed the decoder, or took all its memory; re-encode it") from None
        if isinstance(message, Failed):
            raise ClipError(message.sentence) if message.of_recording else ServiceError(message.sentence)
        return message, blobs

    def kill(self) -> None:
        """End the child, whatever it is at; a `next` that waits for it then raises."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join(_END_S)

    def close(self) -> None:
        """End the child and free what is held for it: no `next` may be under way in another thread."""
        self.kill()
        self._ours.close()


def _watch(connection: Connection, order: WatchOrder) -> None:
    """In the child."""
    bounds = Bounds(memory_bytes=_WITH_EXTRACTORS_BYTES if order.recipe.extractors else _MEMORY_BYTES)
    _hold(bounds, order)
    try:
        for message, blobs in _told(order, bounds):
            connection.send_bytes(packed(message, blobs))
    except BrokenPipeError:
        return  # nobody listens any more
    except (ClipError, MemoryError) as error:
        sentence = str(error) or "the recording takes more memory than it may; re-encode it in a smaller size"
        connection.send_bytes(packed(Failed(of_recording=True, sentence=sentence)))
    except RaptError as error:
        connection.send_bytes(packed(Failed(of_recording=False, sentence=str(error))))
    except Exception as error:  # a decoder meets files that nobody foresaw
        sentence = f"the recording cannot be watched ({type(error).__name__}: {str(error)[:200]}); re-encode it"
        connection.send_bytes(packed(Failed(of_recording=True, sentence=sentence)))


def _told(order: WatchOrder, bounds: Bounds) -> Iterator[Told]:
    recording = open_recording(order.path)
    state = WatchState.from_bytes(order.state, origin="watch.json") if order.state else None
    with FaceFinder(order.face_model) as finder:
        clips = None
        if order.recipe.extractors:
            load_extractors(order.recipe)
            clips = ClipsOfWindows(recording, order.recipe, order.scratch, state=state)
        seal(bounds)
        yield from Watch(recording, order.recipe, finder.find, order.settings, state=state, clips=clips)


def _hold(bounds: Bounds, order: WatchOrder) -> None:
    """No network, few rights, nothing written but clips for extractors below scratch, and an end with its parent.

    numpy's threads are here already, so the kernel gives no namespaces: the filter of its calls alone keeps it off the network.
    """
    ignore_interrupts()
    killed_with_parent()()
    confine(bounds, order.scratch if order.recipe.extractors else None)
    end_with_parent()
