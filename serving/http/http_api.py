"""The HTTP contract as an ASGI app over a Scoring, without Ray: routes, limits, the page, security headers."""

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from data_shards.errors import ClipError, RaptError, ServiceError
from serving.access.audit_log import AuditLog
from serving.access.guard import AccessGuard
from serving.answer import AnyAnswer, Explanation, ModelInfo
from serving.http.api_docs import docs_page
from serving.http.client_presence import while_present
from serving.http.clip_form import CLIP_FORM, ClipForm, read_clip_form
from serving.http.guards import BodyLimit, HeadLimit, SecurityHeaders
from serving.http.metrics import METRICS_TYPE, Metrics
from serving.http.openapi_schema import complete, problems
from serving.http.places import NoRoom, Places
from serving.http.request_facts import facts_of, owner_of
from serving.http.request_log import CLIENT_LEFT, RequestLog
from serving.http.settings import AppSettings
from serving.jobs.routes import job_router
from serving.jobs.runner import JobRunner
from serving.scoring import Deadline, Scoring

__all__ = ["build_app"]

_RETRY_AFTER_S = 5
_LOG = logging.getLogger("rapt.serving")
_PAGE = Path(__file__).parent.parent / "page"
_SCRIPTS = ("ask.js", "clip.js", "lesson.js", "live.js", "look.js", "page.js", "timeline.js", "upload.js")
_ASSETS = {**dict.fromkeys(_SCRIPTS, "text/javascript"), "levels.css": "text/css", "page.css": "text/css"}
_CORS_HEADERS = ("Authorization", "X-API-Key", "X-Rapt-Deadline-S", "Upload-Offset", "Content-Type")
_READ_HEADERS = ("Retry-After", "X-Request-Id", "WWW-Authenticate")
_NOWHERE = {
    404: "nothing is at this address; /docs says what there is",
    405: "this address takes other methods; /docs says which",
}
AskedSeconds = Annotated[float | None, Header(gt=0, allow_inf_nan=False, description="Answer within so many seconds, or refuse")]


def build_app(scoring: Scoring, settings: AppSettings | None = None, *, jobs: JobRunner | None = None) -> ASGIApp:
    """The app over what scores. Uploads are deleted before the answer is sent.

    jobs: what takes lessons, started and ended with the app; no lessons are taken where it is None.
    """
    settings = settings or AppSettings()
    app = FastAPI(
        lifespan=_running(jobs) if jobs else None,
        title="Rapt engagement scoring",
        version="1",
        description="Scores the engagement level of webcam clips. No uploaded clip is kept.",
        docs_url=None,  # its page loads scripts from elsewhere; ours is at the same place
        redoc_url=None,
    )
    metrics = Metrics()
    _add_scoring(app, scoring, settings, metrics)
    _add_service(app, scoring, metrics, jobs)
    if jobs:
        app.include_router(job_router(jobs, owner_of=owner_of))
    _add_pages(app)
    _add_error_answers(app)
    _complete_openapi(app, settings)
    return _guarded(app, settings, metrics, max_recording_bytes=jobs.store.limits.max_bytes if jobs else None)


def _running(jobs: JobRunner) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await jobs.start()
        try:
            yield
        finally:
            await jobs.close()

    return lifespan


def _guarded(app: FastAPI, settings: AppSettings, metrics: Metrics, *, max_recording_bytes: int | None) -> ASGIApp:
    """The guards before the app, the outermost last: what can be refused without reading a body is."""
    audit = AuditLog(settings.audit_folder) if settings.audit_folder else None
    guarded: ASGIApp = BodyLimit(
        app,
        max_bytes=settings.max_upload_mib << 20,
        max_s=settings.upload_s,
        min_bytes_per_s=settings.min_upload_kib_per_s << 10,
    )
    guarded = AccessGuard(guarded, settings, max_recording_bytes=max_recording_bytes)
    if settings.cors_origins:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "PATCH", "DELETE"),
            allow_headers=_CORS_HEADERS,
            expose_headers=_READ_HEADERS,
        )
    guarded = HeadLimit(guarded)
    guarded = RequestLog(guarded, metrics, audit, templates=lambda: app.openapi()["paths"])
    return SecurityHeaders(guarded, tls=settings.tls)


def _add_scoring(app: FastAPI, scoring: Scoring, settings: AppSettings, metrics: Metrics) -> None:
    places = Places(max_clips=settings.max_clips_waiting, max_uploads=settings.max_uploads, metrics=metrics)

    @app.post("/v1/score", responses=problems(400, 408, 413, 415, 422, 503), openapi_extra=dict(CLIP_FORM))
    async def score(request: Request, x_rapt_deadline_s: AskedSeconds = None) -> AnyAnswer:
        """Score one clip. The request is given up where the client leaves or its time is over."""
        deadline = _deadline(request, settings, x_rapt_deadline_s)
        with places.upload():
            form = await _received(request, deadline, metrics)
        with places.clip():
            answer = await while_present(request, _score(scoring, form, deadline, metrics))
        metrics.scored(answer.status)
        return answer

    @app.post("/v1/explain", responses=problems(400, 408, 413, 415, 422, 503), openapi_extra=dict(CLIP_FORM))
    async def explain(
        request: Request,
        at_s: Annotated[float, Query(ge=0, le=86_400, allow_inf_nan=False, description="Seconds from the clip's start")],
        x_rapt_deadline_s: AskedSeconds = None,
    ) -> Explanation:
        """Where the model looked at a moment of the clip (Grad-CAM), as numbers. 422 where it reads no frames."""
        deadline = _deadline(request, settings, x_rapt_deadline_s)
        with places.upload():
            form = await _received(request, deadline, metrics)
        with places.clip():
            return await while_present(request, _explain(scoring, form, at_s, deadline))


def _add_service(app: FastAPI, scoring: Scoring, metrics: Metrics, jobs: JobRunner | None) -> None:
    @app.get("/v1/model", responses=problems(503))
    async def model() -> ModelInfo:
        """Which model answers."""
        return scoring.current().info

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", responses=problems(503))
    async def readyz() -> dict[str, str]:
        """A model is loaded and scores can be asked for."""
        info = scoring.current().info
        ready = {"status": "ready", "model": info.name, "version": info.version}
        # anybody may ask, and what is to be mended names files and servers
        return ready | {"warning": "something is to be mended; the endpoint's log says what"} if scoring.warning() else ready

    @app.get("/metrics", response_class=PlainTextResponse)
    async def figures() -> Response:
        """What a Prometheus server reads."""
        try:
            info = scoring.current().info
        except ServiceError:
            info = None
        if jobs:
            metrics.has_lessons(Counter(job.state for job in jobs.store.all()))
        return Response(metrics.page(info), media_type=METRICS_TYPE)


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", media_type="text/html")

    @app.get("/page/{asset}", include_in_schema=False)
    async def page_asset(asset: str) -> Response:
        if asset not in _ASSETS:
            return _problem(404, f"no page file '{asset}'")
        return FileResponse(_PAGE / asset, media_type=_ASSETS[asset])

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))


def _add_error_answers(app: FastAPI) -> None:
    """Every error is a Problem: one plain sentence as JSON. Its short name goes to the log and the counters."""

    @app.exception_handler(RaptError)
    async def known(request: Request, error: RaptError) -> JSONResponse:
        facts = facts_of(request.scope)
        if isinstance(error, ClipError):
            facts.refusal = "clip"
            return _problem(422, str(error))
        if not isinstance(error, ServiceError):  # its operator's matter, whose words may name files and servers
            facts.refusal = "error"
            _LOG.warning("request %s: %s", facts.request_id, error)
            return _problem(500, "the model cannot answer; tell who runs the service, whose log says why")
        is_late = facts.deadline_s is not None and time.time() >= facts.deadline_s
        facts.refusal = "full" if isinstance(error, NoRoom) else "deadline" if is_late else "unavailable"
        return _problem(503, str(error), {"Retry-After": str(_RETRY_AFTER_S)})

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> JSONResponse:
        facts_of(request.scope).refusal = "request"
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        return _problem(422, f"{place}: {first['msg']}; /docs says what may be sent")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        facts_of(request.scope).refusal = {400: "request", 408: "slow", 415: "request"}.get(error.status_code)
        return _problem(error.status_code, _NOWHERE.get(error.status_code, str(error.detail)), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        facts_of(request.scope).refusal = "client_left"
        return Response(status_code=CLIENT_LEFT)  # for the log: nobody is there to read it

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        facts_of(request.scope).refusal = "error"
        return _problem(500, f"an error that was not foreseen ({type(error).__name__}); try again, or tell who runs the service")


def _complete_openapi(app: FastAPI, settings: AppSettings) -> None:
    of_routes = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = complete(of_routes(), require_keys=settings.require_keys)
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]  # as FastAPI's documentation says it is done


def _problem(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)


def _deadline(request: Request, settings: AppSettings, asked_s: float | None) -> Deadline:
    """From the request's arrival, which is before its body's."""
    facts = facts_of(request.scope)
    deadline = Deadline(facts.arrived_s + min(settings.deadline_s, asked_s or settings.deadline_s))
    facts.deadline_s = deadline.at_s
    return deadline


async def _received(request: Request, deadline: Deadline, metrics: Metrics) -> ClipForm:
    begun_s = time.perf_counter()
    form = await read_clip_form(request)
    metrics.took("upload", time.perf_counter() - begun_s)
    if time.time() >= deadline.at_s:
        raise HTTPException(
            408, "the upload took all of the time that the answer was asked within; send it faster, or allow more"
        )
    return form


async def _score(scoring: Scoring, form: ClipForm, deadline: Deadline, metrics: Metrics) -> AnyAnswer:
    begun_s = time.perf_counter()
    model = scoring.current()
    sample = await scoring.decode(form.clip, form.transcript, model, deadline)
    decode_s = time.perf_counter() - begun_s
    metrics.took("decode", decode_s)
    (answer,) = await scoring.score([sample], model, deadline, decode_ms=decode_s * 1000)
    total_s = time.perf_counter() - begun_s
    metrics.took("model", total_s - decode_s)
    metrics.took("total", total_s)
    return answer


async def _explain(scoring: Scoring, form: ClipForm, at_s: float, deadline: Deadline) -> Explanation:
    model = scoring.current()
    clip = await scoring.decode(form.clip, form.transcript, model, deadline)
    return await scoring.explain(clip, at_s, model, deadline)
