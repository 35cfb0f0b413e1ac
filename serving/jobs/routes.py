"""/v1/jobs: a lesson's recording is uploaded, scored when it is its turn, asked for and deleted. Only its owner sees it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from data_shards.errors import ClipError
from serving.http.openapi_schema import problems
from serving.http.request_facts import facts_of
from serving.jobs.multipart import body_pieces, file_pieces
from serving.jobs.record import Job, JobRefused, JobStatus
from serving.jobs.runner import JobRunner
from serving.jobs.uploads import Uploads
from serving.lesson.record import LessonResult

__all__ = ["job_router"]

_IDLE_S = 30.0
_MAX_ASKED_BYTES = 4096
# short names for the log and the counters
_REASONS = {
    404: "job_unknown",
    408: "slow",
    409: "job_state",
    413: "too_large",
    415: "request",
    422: "request",
    429: "jobs",
    503: "full",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "required": ["recording"], "properties": {"recording": {"type": "string", "format": "binary"}}}
_SIZE = {"type": "object", "required": ["size_bytes"], "properties": {"size_bytes": {"type": "integer", "minimum": 1}}}
_CREATE_BODY = {
    "required": True,
    "content": {"multipart/form-data": {"schema": _FORM}, "application/json": {"schema": _SIZE}},
}
_PIECE_BODY = {"required": True, "content": {"application/octet-stream": _BINARY}}


def job_router(jobs: JobRunner, *, owner_of: Callable[..., Any]) -> APIRouter:
    """The routes. Whoever serves calls jobs.start() before and jobs.close() after. owner_of: a dependency that gives the id of
    the request's key."""
    router = APIRouter(route_class=_Route)
    _add_uploading(router, jobs, owner_of)
    _add_asking(router, jobs, owner_of)
    _add_results(router, jobs, owner_of)
    return router


def _add_uploading(router: APIRouter, jobs: JobRunner, owner_of: Callable[..., Any]) -> None:
    uploads = Uploads(jobs)

    @router.post(
        "/v1/jobs",
        status_code=202,
        response_model=JobStatus,
        responses={
            201: {"model": JobStatus, "description": "Send the recording in pieces."},
            **problems(408, 413, 415, 422, 429, 503),
        },
        openapi_extra={"requestBody": _CREATE_BODY},
    )
    async def create(request: Request, owner: Annotated[str, Depends(owner_of)]) -> Response:
        """Hand in a lesson: the recording as a form (202), or its size as JSON (201) and then the recording in pieces."""
        if request.headers.get("content-type", "").split(";")[0].strip().lower() == "application/json":
            job = jobs.store.create(owner, await _asked_size(request))
            return _status(jobs, job, 201)
        pieces = file_pieces(request, "recording", idle_s=_IDLE_S)
        return _status(jobs, await uploads.take_whole(owner, _said_bytes(request), pieces), 202)

    @router.patch(
        "/v1/jobs/{job_id}/recording",
        responses=problems(404, 408, 409, 413, 422, 503),
        openapi_extra={"requestBody": _PIECE_BODY},
    )
    async def piece(
        request: Request,
        job_id: str,
        owner: Annotated[str, Depends(owner_of)],
        upload_offset: Annotated[int, Header(ge=0, description="How many bytes are there already")],
    ) -> JobStatus:
        """The next piece of the recording, of at most 32 MiB. When all bytes are there the lesson is queued."""
        job = jobs.store.get(job_id, owner)
        pieces = body_pieces(request, idle_s=_IDLE_S)
        return jobs.status(await uploads.take_piece(job, upload_offset, _said_bytes(request), pieces))


def _add_asking(router: APIRouter, jobs: JobRunner, owner_of: Callable[..., Any]) -> None:
    @router.get("/v1/jobs")
    async def list_jobs(owner: Annotated[str, Depends(owner_of)]) -> list[JobStatus]:
        """Your lessons, oldest first."""
        jobs.store.sweep()
        return [jobs.status(job) for job in jobs.store.all(owner)]

    @router.get("/v1/jobs/{job_id}", responses=problems(404))
    async def status(job_id: str, owner: Annotated[str, Depends(owner_of)]) -> JobStatus:
        """How far a lesson is."""
        return jobs.status(jobs.store.get(job_id, owner))

    @router.delete("/v1/jobs/{job_id}", status_code=204, responses=problems(404))
    async def delete(job_id: str, owner: Annotated[str, Depends(owner_of)]) -> None:
        """Stop a lesson and remove everything of it."""
        await jobs.delete(jobs.store.get(job_id, owner))


def _add_results(router: APIRouter, jobs: JobRunner, owner_of: Callable[..., Any]) -> None:
    # the numbers of an hour with many people are a matter for a thread: others wait for the event loop
    @router.get("/v1/jobs/{job_id}/result", response_model=LessonResult, responses=problems(404, 409))
    async def result(job_id: str, owner: Annotated[str, Depends(owner_of)]) -> Response:
        """A lesson's timelines, once it is done."""
        lesson = await asyncio.to_thread(jobs.store.result, jobs.store.get(job_id, owner))
        return Response(await asyncio.to_thread(lesson.to_bytes), media_type="application/json")

    @router.get("/v1/jobs/{job_id}/result.csv", response_class=_Csv, responses=problems(404, 409))
    async def result_csv(job_id: str, owner: Annotated[str, Depends(owner_of)]) -> Response:
        """The same as CSV."""
        from serving.report import lesson_csv

        lesson = await asyncio.to_thread(jobs.store.result, jobs.store.get(job_id, owner))
        headers = {"Content-Disposition": 'attachment; filename="lesson.csv"'}
        return _Csv(await asyncio.to_thread(lesson_csv, lesson), headers=headers)

    @router.get("/v1/jobs/{job_id}/report", response_class=HTMLResponse, responses=problems(404, 409))
    async def report(job_id: str, owner: Annotated[str, Depends(owner_of)]) -> HTMLResponse:
        """The same as one HTML file for a teacher."""
        from serving.report import lesson_page

        lesson = await asyncio.to_thread(jobs.store.result, jobs.store.get(job_id, owner))
        # saved, not shown: its style is in it, which the policy of what this service shows forbids
        headers = {"Content-Disposition": 'attachment; filename="lesson.html"'}
        return HTMLResponse(await asyncio.to_thread(lesson_page, lesson), headers=headers)


class _Csv(Response):
    media_type = "text/csv"


class _Route(APIRoute):
    """Answers a refusal as a Problem with its status, whatever app it is in, and names it for the log and the counters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except JobRefused as error:
                facts_of(request.scope).refusal = _REASONS[error.status]
                headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
                return JSONResponse({"error": str(error)}, status_code=error.status, headers=headers)
            except ClipError as error:
                facts_of(request.scope).refusal = "clip"
                return JSONResponse({"error": str(error)}, status_code=422)

        return answered


def _status(jobs: JobRunner, job: Job, code: int) -> JSONResponse:
    headers = {"Location": f"/v1/jobs/{job.id}"}
    return JSONResponse(jobs.status(job).model_dump(mode="json"), status_code=code, headers=headers)


def _said_bytes(request: Request) -> int | None:
    said = request.headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() else None


async def _asked_size(request: Request) -> int:
    """size_bytes of a small JSON body."""
    content = b""
    async for piece in body_pieces(request, idle_s=_IDLE_S):
        content += piece
        if len(content) > _MAX_ASKED_BYTES:
            break
    try:
        asked = json.loads(content[: _MAX_ASKED_BYTES + 1])
    except (ValueError, RecursionError):
        asked = None
    size = asked.get("size_bytes") if isinstance(asked, dict) else None
    if not isinstance(size, int) or isinstance(size, bool):
        raise JobRefused(422, 'say how long the recording is, as JSON: {"size_bytes": 123456}')
    return size
