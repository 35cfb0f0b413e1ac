"""The program of the child that watches a recording: told what to watch, held, and then window after window until the end.

Only the standard library is imported before it is held: numpy starts threads, and the kernel gives namespaces to a process of
one thread alone.
"""

from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.worker_pool import ignore_interrupts
from serving.confined.child_messages import ChildGone, receive
from serving.confined.confine import Bounds, confine, seal
from serving.confined.decode_worker import own_pipes

if TYPE_CHECKING:
    from serving.lesson.watch import Told

__all__ = ["main"]


def main() -> None:
    """Watch what the parent at the other end of standard input names; what is seen goes to standard output."""
    orders, told = own_pipes()
    ignore_interrupts()
    try:
        words, parts = receive(orders)
    except ChildGone:  # the parent: nobody waits for an answer
        return
    bounds = Bounds(**words["bounds"])
    confine(bounds, Path(words["scratch"]) if words["scratch"] else None)
    _tell(Connection(told, readable=False), words, parts.get("state"), bounds)


def _tell(connection: Connection, words: dict[str, Any], state: bytes | None, bounds: Bounds) -> None:
    from data_shards.errors import ClipError, RaptError
    from serving.lesson.messages import Failed, packed

    try:
        for message, blobs in _seen(words, state, bounds):
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


def _seen(words: dict[str, Any], state: bytes | None, bounds: Bounds) -> "Iterator[Told]":
    from data_shards.extraction.clip_sample import load_extractors
    from data_shards.gallery.faces import FaceFinder
    from data_shards.gallery.recording import open_recording
    from serving.confined.sample_message import recipe_from_words
    from serving.lesson.watch import LessonSettings, Watch
    from serving.lesson.watch_state import WatchState
    from serving.lesson.window_clips import ClipsOfWindows

    recording = open_recording(Path(words["path"]))
    recipe = recipe_from_words(words["recipe"])
    before = WatchState.from_bytes(state, origin="watch.json") if state else None
    with FaceFinder(Path(words["face_model"])) as finder:
        clips = None
        if recipe.extractors:
            load_extractors(recipe)
            clips = ClipsOfWindows(recording, recipe, Path(words["scratch"]), state=before)
        seal(bounds)
        settings = LessonSettings.model_validate(words["settings"])
        yield from Watch(recording, recipe, finder.find, settings, state=before, clips=clips)
