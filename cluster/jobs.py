"""Training runs as jobs of Ray's Jobs API: submit, list, follow, stop, and the same run again as a new job."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.ray_address import JobServer
from data_shards.errors import ConfigError, RaptError, ServiceError

__all__ = ["Job", "JobRequest", "Jobs"]

_RUN, _RECIPE = "rapt_run", "rapt_recipe"  # of a job's metadata
_ENDED = ("succeeded", "failed", "stopped")
_PATIENCE_S = 600.0  # how long a dashboard may be away before whoever follows a job gives up
_QUIET_S = 10.0  # without a word: is the job still there?
_ANSWER_S = 60.0
STOP_GRACE_S = 120  # from SIGTERM to SIGKILL; Ray's own 3 s are too short for a checkpoint


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What is submitted. pack: a zip of the code, None where the cluster has it; image: a container image's name, or ""."""

    run_id: str
    recipe: str
    entrypoint: str
    commit: str = ""
    pack: Path | None = None
    image: str = ""
    cluster_home: str = ""

    @property
    def runtime_env(self) -> dict[str, Any]:
        """For Ray, and so for everybody who sees the dashboard: it holds no credential."""
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_GRACE_S)}
        if self.commit:
            variables["RAPT_COMMIT"] = self.commit
        if self.cluster_home:
            variables["RAPT_HOME"] = self.cluster_home
        environment: dict[str, Any] = {"env_vars": variables}
        if self.pack:
            environment["working_dir"] = str(self.pack)
        if self.image:
            environment["image_uri"] = self.image
        return environment


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as Ray has it. state: pending, running, succeeded, failed or stopped; times in seconds, None where not yet."""

    job_id: str
    run_id: str
    recipe: str
    state: str
    started_s: float | None
    ended_s: float | None
    exit_code: int | None
    message: str = field(repr=False, default="")
    entrypoint: str = field(repr=False, default="")
    runtime_env: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDED

    @property
    def shell_code(self) -> int:
        """What a command that stood for the job would exit with: 0, or the driver's own code, 1 where it has none."""
        if self.state == "succeeded":
            return 0
        code = self.exit_code or 1
        return 128 - code if code < 0 else code  # a signal's number is negative


class Jobs:
    """The Jobs API of a cluster. Making one checks that a Ray answers there and takes the token."""

    def __init__(self, server: JobServer) -> None:
        self._server = server
        # Ray's client takes these two before the address that it is given
        os.environ["RAY_API_SERVER_ADDRESS"] = server.url
        if urlsplit(server.url).hostname in ("127.0.0.1", "localhost", "::1"):
            os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"
        headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
        with self._plainly():
            self._client = _client_class()(server.url, headers=headers)

    @property
    def url(self) -> str:
        return self._server.url

    def submit(self, request: JobRequest) -> str:
        """Start a job; returns its id. ConfigError where a job of the same run has not ended: two would spoil it."""
        of_run = [job for job in self.submitted() if job.run_id == request.run_id]
        for job in of_run:
            if not job.has_ended:
                raise ConfigError(
                    f"run {request.run_id}: job {job.job_id} is {job.state}; stop it first: rapt jobs stop {job.job_id}"
                )
        job_id = f"{request.run_id}-job{len(of_run) + 1}"
        with self._plainly():
            self._client.submit_job(
                entrypoint=request.entrypoint,
                submission_id=job_id,
                runtime_env=request.runtime_env,
                metadata={_RUN: request.run_id, _RECIPE: request.recipe},
            )
        return job_id

    def submitted(self) -> list[Job]:
        """The jobs that `rapt submit` made there, the first one first."""
        with self._plainly():
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if details.submission_id and _RUN in (details.metadata or {})]
        return sorted(jobs, key=lambda job: job.started_s or 0.0)

    def find(self, name: str) -> Job:
        """The job of that id, or the last one of the run of that name. ConfigError where there is none."""
        jobs = self.submitted()
        for job in reversed(jobs):
            if name in (job.job_id, job.run_id):
                return job
        raise ConfigError(f"no job or run '{name}' on {self.url}; `rapt jobs list` has those that are there")

    def logs(self, job_id: str) -> str:
        """All that the job has said so far."""
        with self._plainly():
            return str(self._client.get_job_logs(job_id))

    def stop(self, job: Job) -> Job:
        """SIGTERM to the job's driver, and wait until it has ended."""
        if job.has_ended:
            return job
        with self._plainly():
            self._client.stop_job(job.job_id)
        deadline_s = time.monotonic() + STOP_GRACE_S + 30
        while not (job := self.find(job.job_id)).has_ended:
            if time.monotonic() > deadline_s:
                raise ServiceError(f"job {job.job_id}: still {job.state} after {STOP_GRACE_S + 30} s; look at `rapt jobs logs`")
            time.sleep(0.5)
        return job

    def again(self, job: Job, packs: Path) -> str:
        """The job's own command, with its own code, as a new job of the same run; `packs`: where its code lies here."""
        environment = job.runtime_env
        variables = environment.get("env_vars", {})
        uri = str(environment.get("working_dir", ""))
        pack = packs / uri.removeprefix("gcs://") if uri else None
        if pack and not pack.exists():
            raise ConfigError(
                f"job {job.job_id}: its code ({pack.name}) is no longer in {packs}; submit the run again with the code you have: "
                f"rapt submit {job.recipe} --run {job.run_id}, and its other options"
            )
        return self.submit(
            JobRequest(
                run_id=job.run_id,
                recipe=job.recipe,
                entrypoint=job.entrypoint,
                commit=variables.get("RAPT_COMMIT", ""),
                pack=pack,
                image=environment.get("image_uri", ""),
                cluster_home=variables.get("RAPT_HOME", ""),
            )
        )

    def follow(self, job_id: str, say: Callable[[str], None], notice: Callable[[str], None]) -> Job:
        """Hand the job's log to `say` as it grows, from its start, until the job ends.

        Where the dashboard is away for a while, `notice` is told, and the log goes on where it was. ServiceError where it
        stays away.
        """
        return asyncio.run(self._follow(job_id, say, notice))

    async def _follow(self, job_id: str, say: Callable[[str], None], notice: Callable[[str], None]) -> Job:
        said, lost_s = 0, None
        while True:
            try:
                seen = 0  # the dashboard tells a log from its start again
                async with aclosing(self._chunks(job_id)) as chunks:
                    async for chunk in chunks:
                        lost_s = None
                        if seen + len(chunk) > said:
                            say(chunk[max(0, said - seen) :])
                            said = seen + len(chunk)
                        seen += len(chunk)
                job = await asyncio.to_thread(self.find, job_id)
                if job.has_ended:
                    whole = await asyncio.to_thread(self.logs, job_id)
                    say(whole[said:])
                    return job
            except ServiceError as error:
                if lost_s is None:
                    lost_s = time.monotonic()
                    notice(f"{self.url} does not answer; the job goes on, waiting for it")
                if time.monotonic() - lost_s > _PATIENCE_S:
                    raise ServiceError(f"{error}; the job may go on: rapt jobs logs {job_id} --follow") from None
            await asyncio.sleep(1.0)

    async def _chunks(self, job_id: str) -> AsyncGenerator[str, None]:
        """The job's log from its start, until the job ends or the connection does."""
        with suppress(OSError, RuntimeError, *_web_errors()):
            async with aclosing(self._client.tail_job_logs(job_id)) as tail:
                pending = asyncio.ensure_future(anext(tail, None))
                try:
                    while True:
                        # a connection that hangs says nothing, and neither does a job that thinks
                        while not (await asyncio.wait({pending}, timeout=_QUIET_S))[0]:
                            if (await asyncio.to_thread(self.find, job_id)).has_ended:
                                return
                        if (chunk := pending.result()) is None:
                            return
                        yield chunk
                        pending = asyncio.ensure_future(anext(tail, None))
                finally:
                    pending.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await pending

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """What Ray's client raises, as one sentence."""
        from ray.exceptions import AuthenticationError

        web_errors = _web_errors()
        try:
            yield
        except RaptError:
            raise
        except AuthenticationError:
            what = "does not take this token" if self._server.token else "asks for a token"
            raise ServiceError(
                f"Ray at {self.url}: {what}; set RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
            ) from None
        except web_errors as error:
            if isinstance(error, ValueError) or getattr(error, "response", None) is not None:
                raise self._no_ray() from None
            raise ServiceError(f"Ray's dashboard at {self.url}: does not answer; check the address") from None
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            if "Version check" in str(error) or not isinstance(error, RuntimeError):
                raise self._no_ray() from None
            raise ServiceError(f"Ray at {self.url}: refuses ({_first_line(error)})") from None

    def _no_ray(self) -> ServiceError:
        return ServiceError(f"{self.url}: answers, but not as Ray's dashboard does; name that, e.g. http://127.0.0.1:8265")


def _client_class() -> Any:
    import logging

    from ray.job_submission import JobSubmissionClient

    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they tell a person what their client uploads and closes

    class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types
        """Ray's own waits for an answer for ever."""

        def _do_request(self, *arguments: Any, **named: Any) -> Any:
            return super()._do_request(*arguments, **({"timeout": _ANSWER_S} | named))

    return Client


def _web_errors() -> tuple[type[Exception], ...]:
    import aiohttp
    import requests

    return (ConnectionError, aiohttp.ClientError, requests.RequestException)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _job(details: Any) -> Job:
    return Job(
        job_id=details.submission_id,
        run_id=details.metadata[_RUN],
        recipe=details.metadata.get(_RECIPE, ""),
        state=str(details.status.value).lower(),
        started_s=details.start_time / 1000 if details.start_time else None,
        ended_s=details.end_time / 1000 if details.end_time else None,
        exit_code=details.driver_exit_code,
        message=details.message or "",
        entrypoint=details.entrypoint,
        runtime_env=details.runtime_env or {},
    )
