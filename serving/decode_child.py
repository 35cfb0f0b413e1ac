"""Decode uploads in a child process that can be killed: a clip that hangs, crashes or eats memory takes down nothing else."""

import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Lock

from data_shards.decode import DecodeLimits, load_decoder
from data_shards.errors import ClipError, ServiceError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample, clip_sample, load_extractors
from data_shards.extraction.look import prepare_look
from data_shards.worker_pool import ignore_interrupts, kill_workers, killed_with_parent

__all__ = ["LONGEST_S", "UPLOAD_LIMITS", "DecodeChild"]

UPLOAD_LIMITS = DecodeLimits(max_duration_s=600.0, max_frames=60_000)
_MEMORY_BYTES = 3 << 30
_WITH_EXTRACTORS_BYTES = 12 << 30  # of addresses: weights, and what torch and MediaPipe reserve
_START_S = 300.0
_FRAMES_S = 120.0  # 600 s of 640x480 with their timeline take 7 s of one core, of 1080p ten times that
_WITH_EXTRACTORS_S = 180.0  # I3D takes up to 6 s for 64 frames on one core
LONGEST_S = _START_S + 2 * _WITH_EXTRACTORS_S  # to wait for the child, to start it anew, and to decode


class DecodeChild:
    """One child process, started when first needed and again after it was killed. Safe to call from several threads.

    timeout_s: what a clip may take; 120 s for frames alone and 180 s with extractors unless given.
    """

    def __init__(self, recipe: ClipRecipe, *, timeout_s: float | None = None) -> None:
        self._recipe = recipe
        self._timeout_s = timeout_s or (_WITH_EXTRACTORS_S if recipe.extractors else _FRAMES_S)
        self._lock = Lock()
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Start the child now, so that the first clip does not wait for imports and weights. ModelError where one is missing."""
        with self._lock:
            self._prepared()

    def sample_of(self, path: Path, transcript: Path | None = None) -> ClipSample:
        """`clip_sample` in the child. ClipError also where the clip took too long or killed the child."""
        if not self._lock.acquire(timeout=self._timeout_s):
            raise ServiceError("busy with other clips; try again in a minute")
        try:
            pool = self._prepared()  # before the clip's time begins
            try:
                return pool.submit(_decode, path, self._recipe, transcript).result(timeout=self._timeout_s)
            except FutureTimeout:
                self._discard()
                limit = f"{self._timeout_s:.0f} s, the longest that a clip may take here"
                raise ClipError(f"the clip took more than {limit}; send a shorter one") from None
            except (BrokenProcessPool, MemoryError):
                self._discard()
                raise ClipError("the clip is damaged: it crashed the decoder; re-encode it") from None
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._discard()

    def _prepared(self) -> ProcessPoolExecutor:
        """The child, which has loaded what it needs. ServiceError where it cannot be started."""
        if self._pool is not None:
            return self._pool
        pool = self._pool = self._new_pool()
        try:
            pool.submit(_prepare, self._recipe).result(timeout=_START_S)
        except (FutureTimeout, BrokenProcessPool, MemoryError) as error:
            self._discard()
            raise ServiceError(f"what decodes clips did not start ({type(error).__name__}); try again in a minute") from None
        except BaseException:
            self._discard()
            raise
        return pool

    def _discard(self) -> None:
        if self._pool is not None:
            kill_workers(self._pool)
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _new_pool(self) -> ProcessPoolExecutor:
        memory_bytes = _WITH_EXTRACTORS_BYTES if self._recipe.extractors else _MEMORY_BYTES
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, mp_context=context, initializer=_confine, initargs=(memory_bytes,))


def _confine(memory_bytes: int) -> None:
    """In the child: bounds on memory, no core files, and an end with its parent, however that ends."""
    ignore_interrupts()
    killed_with_parent()()
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _prepare(recipe: ClipRecipe) -> None:
    load_decoder()
    load_extractors(recipe)
    prepare_look()


def _decode(path: Path, recipe: ClipRecipe, transcript: Path | None) -> ClipSample:
    return clip_sample(path, recipe, UPLOAD_LIMITS, transcript=transcript)
