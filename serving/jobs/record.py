"""What is known of a lesson's job: the HTTP contract's schema, what lies in job.json, and the bounds."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from data_shards.errors import ServiceError
from data_shards.schema import Stored

__all__ = ["Job", "JobLimits", "JobRefused", "JobState", "JobStatus"]

JobState = Literal["uploading", "queued", "running", "done", "failed", "stopped"]


class JobStatus(Stored):
    """A lesson's job. done_s of total_s: seconds of the recording; both 0 before it is watched. error: why it failed, in a
    sentence. expires_at: when it and its result are deleted, None while it waits or runs."""

    id: str
    state: JobState
    size_bytes: int = Field(ge=0)
    uploaded_bytes: int = Field(ge=0)
    done_s: float = 0.0
    total_s: float = 0.0
    error: str = ""
    created_at: datetime
    expires_at: datetime | None = None


class Job(Stored):
    """job.json. owner: the id of the key that it belongs to; touched_at: when its last piece came, or when it ended."""

    id: str
    owner: str
    state: JobState
    size_bytes: int
    total_s: float = 0.0
    error: str = ""
    created_at: datetime
    touched_at: datetime


class JobLimits(Stored):
    """Bounds on jobs. max_bytes: of one recording; keep_results_s: from the end of a job until it is deleted; upload_s: without a
    new piece, until an unfinished upload is; min_free_bytes: of the disk, that no upload takes; the numbers of jobs count those
    that are there, and max_waiting those that are being uploaded, wait or run; no owner has more than half of those places
    [choice]."""

    max_bytes: int = Field(default=4 << 30, gt=0)
    max_jobs_per_owner: int = Field(default=20, gt=0)
    max_jobs: int = Field(default=200, gt=0)
    max_waiting: int = Field(default=16, gt=0)
    keep_results_s: float = Field(default=24 * 3600.0, gt=0)
    upload_s: float = Field(default=3600.0, gt=0)
    min_free_bytes: int = Field(default=1 << 30, ge=0)


class JobRefused(ServiceError):  # noqa: N818  # an answer to a client, of which many are no fault of the service
    """A request for a job that is not met. status: of HTTP; retry_after_s: when asking again may help, None where it will not."""

    def __init__(self, status: int, sentence: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.retry_after_s = status, retry_after_s
