"""Runs the uploaded lessons in turn, goes on with them after a restart, and ends them when they are deleted."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from data_shards.errors import ClipError, RaptError, ServiceError
from serving.jobs.record import Job, JobStatus
from serving.jobs.store import JobStore
from serving.lesson.record import LessonResult
from serving.lesson.score import score_lesson
from serving.lesson.watch import LessonSettings
from serving.scoring import Scoring

__all__ = ["JobRunner"]

_log = logging.getLogger("rapt.jobs")
_TRIES = 90  # where the service itself cannot score: a model that is being loaded, which takes minutes, a queue that is full
_WAIT_S = 10.0
_SWEEP_S = 30.0
_NO_KEY = "the lesson's API key was revoked or had expired when its turn came; submit it again with another"


class JobRunner:
    """One lesson at a time unless at_once says more. `start` and `close` it in the event loop that serves.

    face_model: MediaPipe's file, found as everywhere where it is not given. may_ask: whether an owner may still ask for
    anything, looked at when it is a lesson's turn; it may raise ConfigError, and the lesson then waits.
    """

    def __init__(
        self,
        store: JobStore,
        scoring: Scoring,
        *,
        settings: LessonSettings | None = None,
        face_model: Path | None = None,
        at_once: int = 1,
        wait_s: float = _WAIT_S,
        may_ask: Callable[[str], bool] = lambda owner: True,
    ) -> None:
        self.store, self._may_ask = store, may_ask
        self._scoring, self._settings, self._face_model = scoring, settings, face_model
        self._at_once, self._wait_s = at_once, wait_s
        self._tasks: list[asyncio.Task[None]] = []
        self._running: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, tuple[float, float]] = {}
        self._work = asyncio.Event()

    async def start(self) -> None:
        """Take up the jobs that an earlier service left, and those that come."""
        for job in self.store.all():
            if job.state == "running":
                self.store.keep(job, state="queued")
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(self._at_once)]
        self._tasks.append(asyncio.create_task(self._sweep()))
        self._work.set()

    async def close(self) -> None:
        """End what runs; it goes on from its last stretch when the service is started again."""
        tasks = [*self._tasks, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks = []

    def enqueue(self, job: Job) -> Job:
        """The recording is whole: score it when it is its turn."""
        job = self.store.keep(job, state="queued")
        self._work.set()
        return job

    async def delete(self, job: Job) -> None:
        """Stop the job, wherever it is, and remove everything of it, also where this is itself cancelled on the way."""
        task = self._running.get(job.id)
        self.store.delete(job)
        if task is not None:
            task.add_done_callback(lambda _: self.store.delete(job))  # what it still wrote
            task.cancel()
            await asyncio.wait([task])

    def status(self, job: Job) -> JobStatus:
        """What the job's owner is told."""
        return self.store.status(job, *self._progress.get(job.id, (0.0, 0.0)))

    async def _serve(self) -> None:
        while True:
            # a job that is running and that nobody runs could not be written down when it ended
            waiting = (job for job in self.store.all() if job.state in ("queued", "running"))
            job = next((job for job in waiting if job.id not in self._running), None)
            if job is None:
                self._work.clear()
                await self._work.wait()
                continue
            task = self._running[job.id] = asyncio.create_task(self._run(job))
            try:
                await asyncio.wait([task])
            finally:
                self._running.pop(job.id, None)
                self._progress.pop(job.id, None)
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.warning("lesson %s: %s; it is tried again in %g s", job.id, error, self._wait_s)
                await asyncio.sleep(self._wait_s)

    async def _run(self, job: Job) -> None:
        """Score one lesson to its end. Cancelled, it leaves the job as it is. OSError where its state cannot be written,
        ConfigError where it cannot be known whether its owner may still ask."""
        if not self._may_ask(job.owner):
            self.store.end(job, error=_NO_KEY)
            return
        job = self.store.keep(job, state="running")
        try:
            result = await self._scored(job)
        except (ClipError, ServiceError) as error:
            self.store.end(job, error=str(error))
        except Exception as error:  # one lesson must not end the service; what its operator has to mend may name paths
            _log.warning("lesson %s: %s", job.id, error, exc_info=None if isinstance(error, RaptError) else error)
            sentence = f"the service could not watch the lesson ({type(error).__name__}); tell who runs it, and submit it again"
            self.store.end(job, error=sentence)
        else:
            self.store.end(job, result=result)

    async def _scored(self, job: Job) -> LessonResult:
        """The lesson's result. ServiceError where the service could not score so often without getting any further."""
        reached_s, tries = 0.0, 0

        def show(done_s: float, total_s: float) -> None:
            nonlocal reached_s, tries
            self._progress[job.id] = (done_s, total_s)
            if done_s > reached_s:
                reached_s, tries = done_s, 0

        while True:
            try:
                return await score_lesson(
                    self.store.recording(job),
                    self._scoring,
                    self.store.folder_of(job),
                    settings=self._settings,
                    face_model=self._face_model,
                    progress=show,
                )
            except ServiceError:
                tries += 1
                if tries >= _TRIES:
                    raise
                await asyncio.sleep(self._wait_s)

    async def _sweep(self) -> None:
        """Also where nobody asks."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.store.sweep()
