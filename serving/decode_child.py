"""Decode uploads in a child process that can be killed: a clip that hangs, crashes or eats memory takes down nothing else."""

import ctypes
import multiprocessing
import resource
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Lock

from data_shards.decode import DecodeLimits, load_decoder
from data_shards.errors import ClipError, ServiceError
from data_shards.preprocess import PreprocessConfig, preprocess_file
from data_shards.sample import Sample
from data_shards.worker_pool import ignore_interrupts, kill_workers

__all__ = ["UPLOAD_LIMITS", "DecodeChild"]

UPLOAD_LIMITS = DecodeLimits(max_duration_s=600.0, max_frames=60_000)
_MEMORY_BYTES = 3 << 30
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class DecodeChild:
    """One child process, started when first needed and again after it was killed. Safe to call from several threads."""

    def __init__(self, *, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Start the child now, so that the first clip does not wait for its imports."""
        with self._lock:
            self._pool = self._pool or _new_pool()
            self._pool.submit(load_decoder).result(timeout=self._timeout_s)

    def sample_of(self, path: Path, config: PreprocessConfig) -> Sample:
        """`preprocess_file` in the child. ClipError also where the clip took too long or killed the child."""
        if not self._lock.acquire(timeout=self._timeout_s):
            raise ServiceError("busy with other clips; try again in a minute")
        try:
            pool = self._pool = self._pool or _new_pool()
            try:
                return pool.submit(_decode, path, config).result(timeout=self._timeout_s)
            except FutureTimeout:
                self._discard()
                raise ClipError(f"the clip took more than {self._timeout_s:.0f} s to decode; send a shorter one") from None
            except (BrokenProcessPool, MemoryError):
                self._discard()
                raise ClipError("the clip is damaged: it crashed the decoder; re-encode it") from None
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._discard()

    def _discard(self) -> None:
        if self._pool is not None:
            kill_workers(self._pool)
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _new_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_confine)


def _confine() -> None:
    """In the child: bounds on memory, no core files, and an end with its parent, however that ends."""
    ignore_interrupts()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _decode(path: Path, config: PreprocessConfig) -> Sample:
    return preprocess_file(path, config, UPLOAD_LIMITS)
