"""Jobs on disk: a folder each, below RAPT_HOME/serving/jobs, that only this user can read.

ID/job.json       what is known of it (`record.Job`)
ID/recording      what was uploaded so far, deleted the moment the job ends
ID/windows.jsonl, watch.json, lesson.json   what a lesson knows so far (`serving/lesson/journal.py`), deleted with the recording
ID/result.json    the LessonResult, numbers alone, for as long as is said
"""

import fcntl
import os
import re
import secrets
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from data_shards.atomic import write_whole
from data_shards.errors import ShardError
from serving.jobs.record import Job, JobLimits, JobRefused, JobStatus
from serving.lesson.record import LessonResult

__all__ = ["JobStore", "claim"]

_ID = re.compile(r"[0-9a-f]{32}")
_KEPT = ("job.json", "result.json")
_ENDED = ("done", "failed", "stopped")
_ASK_AGAIN_S = 60
_NONE = "no such lesson; it may have been deleted, or kept as long as results are kept here"


def claim(folder: Path) -> int | None:
    """Keep other endpoints out of the folder while the descriptor that is returned is open; None where one has it already. Two
    would run each other's jobs, and delete what they do not know."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


class JobStore:
    """The jobs of one service. Its methods are short and are called from one thread at a time for any one job."""

    def __init__(self, folder: Path, limits: JobLimits | None = None) -> None:
        self.folder, self.limits = folder, limits or JobLimits()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._jobs: dict[str, Job] = {}
        for path in sorted(folder.iterdir()):
            if _ID.fullmatch(path.name):
                self._read(path)

    def create(self, owner: str, size_bytes: int) -> Job:
        """A new job to upload `size_bytes` to. JobRefused where it is too large, or there is no room for it now."""
        self.sweep()
        limits = self.limits
        if size_bytes < 1:
            raise JobRefused(422, "the recording is empty; say its size in bytes as size_bytes")
        if size_bytes > limits.max_bytes:
            raise JobRefused(413, f"the recording is over {limits.max_bytes >> 20} MiB; cut it in parts, or re-encode it smaller")
        if sum(job.owner == owner for job in self._jobs.values()) >= limits.max_jobs_per_owner:
            raise JobRefused(
                429, f"you have {limits.max_jobs_per_owner} lessons here already; delete one first", retry_after_s=_ASK_AGAIN_S
            )
        unfinished = [job for job in self._jobs.values() if job.state not in _ENDED]
        if sum(job.owner == owner for job in unfinished) >= max(1, limits.max_waiting // 2):
            raise JobRefused(
                429,
                "your lessons have half of all places here; wait for one, or delete one",
                retry_after_s=_ASK_AGAIN_S,
            )
        waiting = len(unfinished)
        if waiting >= limits.max_waiting or len(self._jobs) >= limits.max_jobs:
            raise JobRefused(
                503,
                f"{waiting} lessons are waiting here, of {len(self._jobs)} that are kept; try again in a few minutes",
                retry_after_s=_ASK_AGAIN_S,
            )
        self.check_room(size_bytes)
        now = datetime.now(UTC)
        job = Job(id=secrets.token_hex(16), owner=owner, state="uploading", size_bytes=size_bytes, created_at=now, touched_at=now)
        self.folder_of(job).mkdir(mode=0o700)
        self.recording(job).touch(mode=0o600)
        return self.keep(job)

    def check_room(self, size_bytes: int) -> None:
        """JobRefused where the disk would not hold so many more bytes beside what other uploads have been promised."""
        uploading = [job for job in list(self._jobs.values()) if job.state == "uploading"]
        # one that comes without saying how long it is, is longer than was promised
        promised = sum(max(0, job.size_bytes - self.uploaded_bytes(job)) for job in uploading)
        if shutil.disk_usage(self.folder).free - promised - size_bytes < self.limits.min_free_bytes:
            raise JobRefused(503, "the disk has no room for the recording now; try again later", retry_after_s=10 * _ASK_AGAIN_S)

    def get(self, job_id: str, owner: str) -> Job:
        """The owner's job. JobRefused, the same for a job of somebody else as for none."""
        self.sweep()
        job = self._jobs.get(job_id)
        if job is None or job.owner != owner:
            raise JobRefused(404, _NONE)
        return job

    def current(self, job: Job) -> Job | None:
        """The job as it is now; None where it was deleted."""
        return self._jobs.get(job.id)

    def touch(self, job: Job) -> bool:
        """A piece of its recording came: the time that an unfinished upload is kept begins anew, until a restart. False where the
        job was deleted."""
        current = self.current(job)
        if current is not None:
            self._jobs[job.id] = current.model_copy(update={"touched_at": datetime.now(UTC)})
        return current is not None

    def all(self, owner: str | None = None) -> list[Job]:
        """Every job, or the owner's, oldest first."""
        jobs = [job for job in self._jobs.values() if owner is None or job.owner == owner]
        return sorted(jobs, key=lambda job: job.created_at)

    def keep(self, job: Job, **changes: object) -> Job:
        """Write the job down with what has changed."""
        job = job.model_copy(update=changes)
        write_whole(self.folder_of(job) / "job.json", job.to_bytes())
        self._jobs[job.id] = job
        return job

    def end(self, job: Job, *, result: LessonResult | None = None, error: str = "") -> Job:
        """The job is over: its recording and what came of it underway are deleted, its numbers are kept."""
        if result is not None:
            write_whole(self.folder_of(job) / "result.json", result.to_bytes())
        job = self.keep(
            job,
            state="done" if result else "failed",
            error=error,
            touched_at=datetime.now(UTC),
            total_s=result.duration_s if result else 0.0,
        )
        self._remove_recording(job)
        return job

    def delete(self, job: Job) -> None:
        """Nothing of it is left."""
        self._jobs.pop(job.id, None)
        shutil.rmtree(self.folder_of(job), ignore_errors=True)

    def sweep(self, now: datetime | None = None) -> None:
        """Delete whatever's time is over."""
        now = now or datetime.now(UTC)
        for job in list(self._jobs.values()):
            expires_at = self.expires_at(job)
            if expires_at is not None and expires_at <= now:
                self.delete(job)

    def expires_at(self, job: Job) -> datetime | None:
        """When the job is deleted, as things are."""
        if job.state in _ENDED:
            return job.touched_at + timedelta(seconds=self.limits.keep_results_s)
        return job.touched_at + timedelta(seconds=self.limits.upload_s) if job.state == "uploading" else None

    def result(self, job: Job) -> LessonResult:
        """JobRefused where there is none, yet or ever."""
        if job.state == "failed":
            raise JobRefused(409, f"the lesson was not scored: {job.error}")
        if job.state != "done":
            raise JobRefused(409, f"the lesson is {job.state}; ask again when its state is 'done'", retry_after_s=5)
        try:
            content = (self.folder_of(job) / "result.json").read_bytes()
        except FileNotFoundError:
            raise JobRefused(404, _NONE) from None  # deleted while it was asked for
        return LessonResult.from_bytes(content, origin="result.json")

    def status(self, job: Job, done_s: float = 0.0, total_s: float = 0.0) -> JobStatus:
        """What its owner is told; done_s and total_s of a running one."""
        is_done = job.state == "done"
        return JobStatus(
            id=job.id,
            state=job.state,
            size_bytes=job.size_bytes,
            uploaded_bytes=self.uploaded_bytes(job),
            done_s=round(job.total_s if is_done else done_s, 3),
            total_s=round(job.total_s if is_done else total_s, 3),
            error=job.error,
            created_at=job.created_at,
            expires_at=self.expires_at(job),
        )

    def uploaded_bytes(self, job: Job) -> int:
        """What has come of the recording: all of it once the job no longer uploads."""
        if job.state != "uploading":
            return job.size_bytes
        try:
            return self.recording(job).stat().st_size
        except OSError:
            return 0

    def folder_of(self, job: Job) -> Path:
        return self.folder / job.id

    def recording(self, job: Job) -> Path:
        """Where the uploaded bytes lie, under a name of ours."""
        return self.folder_of(job) / "recording"

    def _remove_recording(self, job: Job) -> None:
        """All but what is kept, also what a killed process was writing."""
        for path in self.folder_of(job).iterdir() if self.folder_of(job).is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in _KEPT:
                path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        """A job of an earlier service; what cannot be read is of nobody and is deleted."""
        try:
            job = Job.from_bytes((path / "job.json").read_bytes(), origin=path.name)
        except (OSError, ShardError):
            shutil.rmtree(path, ignore_errors=True)
            return
        self._jobs[job.id] = job
        if job.state in _ENDED:  # killed between its end and the deletion
            self._remove_recording(job)
        elif not os.path.exists(self.recording(job)):
            self.delete(job)
