"""The endpoint's client: clips and lessons to answers, over one connection that is tried again where that can help."""

import os
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from data_shards.errors import ClipError, ConfigError, RaptError, ServiceError
from data_shards.schema import first_problem
from serving.answer import AnyAnswer, Explanation, ModelInfo
from serving.jobs.record import JobState
from serving.lesson.record import LessonResult

__all__ = ["Client", "JobStatus"]

Record = TypeVar("Record")
_ANSWER: TypeAdapter[AnyAnswer] = TypeAdapter(AnyAnswer)
_PIECE_BYTES = 8 << 20  # the endpoint takes up to 32 MiB; a lost one costs this much of the line's time
_PASSING = (429, 502, 503, 504)
_LONGEST_WAIT_S = 60.0
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # it becomes part of an address
_UNUSABLE = (400, 408, 413, 415, 422)  # the fault lies in what was sent


class JobStatus(BaseModel):
    """Where a lesson is. done_s of total_s seconds of it are scored; error: why it failed, a sentence."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer endpoint may tell more

    id: str = Field(pattern=f"^{_JOB_ID.pattern}$")
    state: JobState
    size_bytes: int | None = None
    uploaded_bytes: int = 0
    done_s: float | None = None
    total_s: float | None = None
    error: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ("done", "failed", "stopped")


class Client:
    """An endpoint at `url`, e.g. https://rapt.example:8000. Use it as a context, or close it.

    key: an API key, for a service that wants one. timeout_s: what one request may take, and the deadline that the endpoint
    is asked to keep. verify: the file of the certificate, or of its authority, for one that the system does not know.
    tries: how often a request is sent where the connection fails or the endpoint says to ask again; the waits between grow
    from half a second, or are what Retry-After says, up to a minute. No file name is ever sent.

    Errors are RaptErrors with the endpoint's own sentence: ClipError where what was sent cannot be used, ServiceError where
    the endpoint does not answer, refuses the key, or knows no such job.
    """

    def __init__(
        self, url: str, key: str | None = None, *, timeout_s: float = 120.0, verify: Path | None = None, tries: int = 4
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url}: no address of an endpoint; write http://HOST:PORT or https://HOST:PORT")
        self._url, self._timeout_s, self._tries = url.rstrip("/"), timeout_s, max(1, tries)
        self._sleep: Callable[[float], None] = time.sleep
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            trusted = ssl.create_default_context(cafile=str(verify)) if verify else True
        except OSError as error:
            raise ConfigError(f"{verify}: no certificate that can be read ({error.strerror}); name a PEM file") from None
        self._http = httpx.Client(
            base_url=self._url, headers=headers, verify=trusted, timeout=httpx.Timeout(timeout_s, connect=10.0)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def model(self) -> ModelInfo:
        """Which model answers."""
        return self._read(ModelInfo.model_validate_json, self._ask("GET", "/v1/model"))

    def score(self, path: Path, transcript: Path | None = None) -> AnyAnswer:
        """The answer to a clip; transcript: what is said in it. ClipError where it cannot be used."""
        return self._read(_ANSWER.validate_json, self._send_clip("/v1/score", path, transcript))

    def explain(self, path: Path, at_s: float) -> Explanation:
        """Where the model looked at a moment of a clip. ClipError where the model reads no frames."""
        return self._read(Explanation.model_validate_json, self._send_clip("/v1/explain", path, None, params={"at_s": at_s}))

    def submit_lesson(
        self, path: Path, progress: Callable[[int, int], None] | None = None, *, job_id: str | None = None
    ) -> JobStatus:
        """Upload a lesson's recording in pieces; it is scored when all of it is there. A lost connection is gone on with where
        the endpoint says that it ended. progress: called with (bytes there, bytes in all). job_id: of a lesson whose upload
        an earlier run of the program did not end, to go on with."""
        with _open(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            job = self.job(job_id) if job_id else self._job("POST", "/v1/jobs", json={"size_bytes": size_bytes})
            if job.size_bytes not in (None, size_bytes):
                sentence = f"{size_bytes} bytes, but lesson {job.id} began with {job.size_bytes}; name the file it began with"
                raise ClipError(f"{path.name}: {sentence}")
            lost = 0
            while job.state == "uploading":
                file.seek(job.uploaded_bytes)
                piece, before = file.read(_PIECE_BYTES), job.uploaded_bytes
                if not piece:
                    raise ClipError(f"{path.name}: changed while it was sent; submit it again")
                job = self._send_piece(job, piece)
                lost = 0 if job.uploaded_bytes > before else lost + 1
                if lost >= self._tries:
                    raise ServiceError(f"{self._url}: lesson {job.id} takes no more of its recording; go on with it later")
                if progress is not None:
                    progress(job.uploaded_bytes, size_bytes)
        return job

    def job(self, job_id: str) -> JobStatus:
        """Where a lesson is."""
        return self._job("GET", f"/v1/jobs/{_in_address(job_id)}")

    def jobs(self) -> list[JobStatus]:
        """The lessons that were submitted with this key."""
        return self._read(TypeAdapter(list[JobStatus]).validate_json, self._ask("GET", "/v1/jobs"))

    def wait(self, job_id: str, *, timeout_s: float | None = None, every_s: float = 2.0) -> JobStatus:
        """Where a lesson is when it has ended. ServiceError where it failed or was stopped, or timeout_s seconds passed first;
        it goes on all the same."""
        waited_s = 0.0
        while not (job := self.job(job_id)).has_ended:
            if timeout_s is not None and waited_s >= timeout_s:
                raise ServiceError(f"lesson {job_id} is {job.state} after {timeout_s:g} s; ask again later")
            self._sleep(every_s)
            waited_s += every_s
        if job.state != "done":
            how = "failed" if job.state == "failed" else "was stopped"
            raise ServiceError(f"lesson {job_id} {how}: {job.error or 'the endpoint gives no reason'}")
        return job

    def result(self, job_id: str) -> LessonResult:
        """A lesson's timelines, once it is done."""
        return self._read(LessonResult.model_validate_json, self._ask("GET", f"/v1/jobs/{_in_address(job_id)}/result"))

    def delete(self, job_id: str) -> None:
        """Stop a lesson and remove everything of it."""
        self._ask("DELETE", f"/v1/jobs/{_in_address(job_id)}")

    def _send_clip(
        self, route: str, path: Path, transcript: Path | None, params: Mapping[str, float] | None = None
    ) -> httpx.Response:
        deadline = {"X-Rapt-Deadline-S": f"{self._timeout_s:g}"}

        def send() -> httpx.Response:
            with ExitStack() as opened:  # anew for each try: a sent file is at its end
                files = {"clip": ("clip", opened.enter_context(_open(path)), "application/octet-stream")}
                if transcript is not None:
                    files["transcript"] = ("transcript", opened.enter_context(_open(transcript)), "text/plain")
                return self._http.post(route, files=files, params=params, headers=deadline)

        return self._tried(send)

    def _send_piece(self, job: JobStatus, piece: bytes) -> JobStatus:
        """The job after a piece of its recording was sent, once. Where the connection or the answer was lost, the endpoint has
        another count (409) or the piece came too slowly (408), the job as the endpoint has it; where none of it was looked at
        (429), the job as it was, for to ask would use up what the key has got back meanwhile."""
        headers = {"Upload-Offset": str(job.uploaded_bytes), "Content-Type": "application/octet-stream"}
        try:
            answer = self._http.patch(f"/v1/jobs/{job.id}/recording", content=piece, headers=headers)
        except httpx.TransportError:
            return self.job(job.id)
        if answer.status_code in _PASSING:
            self._sleep(_retry_after_s(answer) or _backoff_s(0))
        if answer.status_code == 429:
            return job
        if answer.status_code in (*_PASSING, 408, 409):
            return self.job(job.id)
        return self._read(JobStatus.model_validate_json, _whole(answer))

    def _job(self, method: str, route: str, **content: Any) -> JobStatus:
        return self._read(JobStatus.model_validate_json, self._ask(method, route, **content))

    def _ask(self, method: str, route: str, **content: Any) -> httpx.Response:
        return self._tried(lambda: self._http.request(method, route, **content))

    def _tried(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """What the endpoint answers at last; nothing that is sent this way does harm when it is sent twice."""
        for attempt in range(self._tries):
            is_last = attempt == self._tries - 1
            try:
                answer = send()
            except httpx.TransportError as error:
                if is_last or isinstance(error, httpx.ReadTimeout | httpx.UnsupportedProtocol):
                    raise ServiceError(f"{self._url}: {_why(error)}; is it running, and is this its address?") from None
                self._sleep(_backoff_s(attempt))
                continue
            if is_last or answer.status_code not in _PASSING:
                return _whole(answer)
            self._sleep(_retry_after_s(answer) or _backoff_s(attempt))
        raise AssertionError("the last try returns or raises")

    def _read(self, parse: Callable[[bytes], Record], answer: httpx.Response) -> Record:
        try:
            return parse(answer.content)
        except ValidationError as error:
            raise ServiceError(
                f"{self._url}: no answer of this version's ({first_problem(error)}); is it a Rapt endpoint?"
            ) from None


def _whole(answer: httpx.Response) -> httpx.Response:
    """The answer, unless it tells of an error."""
    if answer.is_success:
        return answer
    try:
        sentence = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        sentence = f"the address {answer.url.host} answered {answer.status_code} without a reason; is it a Rapt endpoint?"
    kind: type[RaptError] = ClipError if answer.status_code in _UNUSABLE else ServiceError
    raise kind(sentence)


def _retry_after_s(answer: httpx.Response) -> float:
    """What the endpoint asks to wait, at most a minute; 0 where it asks nothing."""
    asked = answer.headers.get("Retry-After", "")
    return min(_LONGEST_WAIT_S, float(asked)) if asked.isascii() and asked.isdigit() else 0.0


def _backoff_s(attempt: int) -> float:
    """Half a second, doubled each time, and up to as much again by chance: clients that failed together come back apart."""
    return float(min(_LONGEST_WAIT_S, 0.5 * 2**attempt) * (1 + random.random()))  # noqa: S311  # no secret


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ClipError(f"{path}: cannot be read ({error.strerror}); check its name") from None


def _in_address(job_id: str) -> str:
    """A lesson's id that is safe to put into an address."""
    if not _JOB_ID.fullmatch(job_id):
        raise ConfigError(f"'{job_id}': no lesson's id; take the one that its submission gave")
    return job_id


def _why(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return f"no connection ({str(error) or type(error).__name__})"
