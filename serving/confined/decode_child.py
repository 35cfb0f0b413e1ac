"""Decode uploads in a child process that is confined and can be killed: a clip that hangs, crashes, eats memory or takes the
decoder over takes down nothing else."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from data_shards import errors
from data_shards.decode import DecodeLimits
from data_shards.errors import ClipError, ConfigError, ServiceError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample
from serving.confined.child_messages import ChildGone, receive, send
from serving.confined.confine import Bounds, Confinement
from serving.confined.sample_message import clip_from_words, recipe_in_words

__all__ = ["LONGEST_S", "UPLOAD_LIMITS", "DecodeChild", "start_worker", "worker_environment"]

UPLOAD_LIMITS = DecodeLimits(max_duration_s=600.0, max_frames=60_000)
# the largest upload is a file of its scratch folder
_FRAMES = Bounds(memory_bytes=6 << 30)  # of addresses: MediaPipe reserves 2 GiB
_WITH_EXTRACTORS = Bounds(memory_bytes=12 << 30)  # of addresses: weights, and what torch and MediaPipe reserve
_WITH_PROGRAMS = Bounds(memory_bytes=12 << 30, file_bytes=256 << 20, scratch_bytes=512 << 20, runs_programs=True)
_START_S = 300.0
_FRAMES_S = 120.0  # 600 s of 640x480 with their timeline take 7 s of one core, of 1080p ten times that
_WITH_EXTRACTORS_S = 180.0  # I3D takes up to 6 s for 64 frames on one core
LONGEST_S = _START_S + 2 * _WITH_EXTRACTORS_S  # to wait for the child, to start it anew, and to decode
_ENDS_S = 5.0
# what a child is told of this process's environment: no credential of a store or of a tracking server is among it
_ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "OMP_NUM_THREADS", "XDG_CACHE_HOME",
    "HF_HOME", "HF_HUB_CACHE", "RAPT_HOME", "RAPT_ENCODERS", "RAPT_FACE_LANDMARKER", "RAPT_I3D_WEIGHTS", "RAPT_OPENFACE",
)  # fmt: skip
_SCRATCH = "rapt-decode-"
_WORKER = "serving.confined.decode_worker"
_log = logging.getLogger(__name__)


class DecodeChild:
    """One child process, started when first needed and again after it was killed. Safe to call from several threads.

    timeout_s: what a clip may take; 120 s for frames alone and 180 s with extractors unless given. confinement: what holds
    the child, None before it was started.
    """

    def __init__(self, recipe: ClipRecipe, *, timeout_s: float | None = None) -> None:
        self._recipe = recipe
        self._bounds = _bounds_of(recipe)
        self._timeout_s = timeout_s or (_WITH_EXTRACTORS_S if recipe.extractors else _FRAMES_S)
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: Path | None = None
        self.confinement: Confinement | None = None

    def start(self) -> None:
        """Start the child now, so that the first clip does not wait for imports and weights. ModelError where one is missing."""
        with self._lock:
            self._prepared()

    def sample_of(self, path: Path, transcript: Path | None = None) -> ClipSample:
        """`clip_sample` of files in the child. ClipError also where the clip took too long or killed the child."""
        files = {"clip": str(path.absolute()), "transcript": str(transcript.absolute()) if transcript else None}
        return self._sample_of(files, {})

    def sample_of_upload(self, clip: bytes, transcript: bytes | None = None) -> ClipSample:
        """The same of what was uploaded. It lies in the child's scratch folder alone, under a name of ours: in memory where
        the kernel gives the child a folder of its own, so that nothing is left however the child or this process ends."""
        uploads = {"clip": clip}
        if transcript is not None:
            uploads["words.json" if transcript.lstrip()[:1] in (b"{", b"[") else "words.vtt"] = transcript
        return self._sample_of({}, uploads)

    def _sample_of(self, files: dict[str, str | None], uploads: dict[str, bytes]) -> ClipSample:
        if not self._lock.acquire(timeout=self._timeout_s):
            raise ServiceError("busy with other clips; try again in a minute")
        try:
            process = self._prepared()  # before the clip's time begins
            try:
                return self._decoded(process, files, uploads)
            except TimeoutError:
                self._discard()
                limit = f"{self._timeout_s:.0f} s, the longest that a clip may take here"
                raise ClipError(f"the clip took more than {limit}; send a shorter one") from None
            except (ChildGone, MemoryError):
                self._discard()
                raise ClipError("the clip is damaged: it crashed the decoder; re-encode it") from None
        finally:
            self._lock.release()

    def kill(self) -> None:
        """End what the child is at, from another thread: who waits for it gets ClipError, the next clip a new child."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._discard()

    def _decoded(self, process: "subprocess.Popen[bytes]", files: dict[str, str | None], uploads: dict[str, bytes]) -> ClipSample:
        asked = {**files, "limits": UPLOAD_LIMITS.model_dump(mode="json"), "timeout_s": self._timeout_s}
        words, parts = _ask(process, asked, self._timeout_s, uploads)
        return clip_from_words(words, parts, self._recipe)

    def _prepared(self) -> "subprocess.Popen[bytes]":
        """The child, which has loaded what it needs. ServiceError where it cannot be started."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._discard()
        try:
            self._start_confined()
        except ConfigError:
            # perhaps a model file that is fetched once: by a process of its own with the network, which never sees a clip
            self._discard()
            self._fetch()
            self._start_confined()
        assert self._process is not None
        return self._process

    def _start_confined(self) -> None:
        _sweep()
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))
        self._tidy = weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)  # at this process's end, too
        self._process = start_worker(_WORKER, worker_environment())
        words = self._answer_of_start(str(self._scratch))
        self.confinement = Confinement(
            **{**words["held"], "limits": tuple(words["held"]["limits"]), "sealed": bool(words["sealed"])}
        )
        _log.info(self.confinement.sentence())

    def _fetch(self) -> None:
        """Load once with the network, so that what can be fetched is. ModelError and such where one cannot."""
        self._process = start_worker(_WORKER, dict(os.environ))
        self._answer_of_start(None)
        self._discard()

    def _answer_of_start(self, scratch: str | None) -> dict[str, Any]:
        assert self._process is not None
        asked = {"recipe": recipe_in_words(self._recipe), "bounds": asdict(self._bounds), "scratch": scratch}
        try:
            return _ask(self._process, asked, _START_S)[0]
        except (TimeoutError, ChildGone, MemoryError) as error:
            self._discard()
            raise ServiceError(f"what decodes clips did not start ({type(error).__name__}); try again in a minute") from None
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_ENDS_S)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
        if self._scratch is not None:
            self._tidy()
            self._scratch = None


def _sweep() -> None:
    """Remove the scratch folders of our processes that were killed: empty ones, and clips where there is no memory for them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        owner = folder.name.removeprefix(_SCRATCH).split("-")[0]
        try:
            if owner.isdigit() and folder.lstat().st_uid == os.getuid():
                os.kill(int(owner), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # somebody else's process, or folder
            continue


def _bounds_of(recipe: ClipRecipe) -> Bounds:
    settings = [record.get("settings") for record in recipe.extractors.values()]
    if any(isinstance(chosen, dict) and chosen.get("source") == "binary" for chosen in settings):  # OpenFace's own program
        return _WITH_PROGRAMS
    return _WITH_EXTRACTORS if recipe.extractors else _FRAMES


def worker_environment() -> dict[str, str]:
    """What a process that reads strangers' files is told of this one's environment."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


def start_worker(module: str, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A process that runs the module's `main`, in a process group of its own. It finds modules where this one finds them."""
    program = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=environment,
        start_new_session=True,
    )


def _ask(
    process: "subprocess.Popen[bytes]", words: dict[str, Any], timeout_s: float, uploads: dict[str, bytes] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The child's answer. Its error where it is one of ours, MemoryError where it had no room; ClipError for any other."""
    assert process.stdin is not None
    assert process.stdout is not None
    send(process.stdin.fileno(), words, uploads, timeout_s=timeout_s)
    answer, parts = receive(process.stdout.fileno(), timeout_s=timeout_s)
    if "error" not in answer:
        return answer, parts
    kind, sentence = str(answer["error"]), str(answer.get("sentence", ""))
    if kind in errors.__all__ and sentence:
        raise getattr(errors, kind)(sentence)
    if kind == "MemoryError":
        raise MemoryError
    raise ClipError(f"the clip cannot be decoded ({kind[:40]}); re-encode it")
