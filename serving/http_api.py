"""The HTTP contract as an ASGI app over a Scoring, without Ray: routes, limits, the page, security headers."""

import time
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, File, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from data_shards.errors import ClipError, RaptError, ServiceError
from serving.answer import AnyAnswer, ModelInfo, Problem
from serving.guards import BodyLimit, SecurityHeaders
from serving.scoring import Deadline, Scoring

__all__ = ["MAX_UPLOAD_BYTES", "build_app"]

MAX_UPLOAD_BYTES = 100 << 20
MAX_UPLOAD_S = 60.0
MAX_CLIPS_WAITING = 8
DEADLINE_S = 300.0
_PAGE = Path(__file__).parent / "page"
_ASSETS = {"page.js": "text/javascript", "page.css": "text/css"}


def build_app(scoring: Scoring) -> ASGIApp:
    """The app over what scores. Uploads are deleted before the answer is sent."""
    app = FastAPI(
        title="Rapt engagement scoring",
        version="1",
        description="Scores the engagement level of webcam clips. Nothing uploaded is kept.",
        docs_url=None,  # its page loads scripts from elsewhere; /openapi.json is served
        redoc_url=None,
    )
    _add_routes(app, scoring)
    _add_error_answers(app)
    return SecurityHeaders(BodyLimit(app, max_bytes=MAX_UPLOAD_BYTES, max_s=MAX_UPLOAD_S))


def _add_routes(app: FastAPI, scoring: Scoring) -> None:
    waiting = 0
    problems: dict[int | str, dict[str, object]] = {
        400: {"model": Problem, "description": "The form cannot be read."},
        408: {"model": Problem, "description": "The upload took too long."},
        413: {"model": Problem, "description": "The upload is too large."},
        422: {"model": Problem, "description": "The clip cannot be used."},
        503: {"model": Problem, "description": "Too many clips are waiting; Retry-After says when to ask again."},
    }

    @app.post("/v1/score", responses=problems)
    async def score(
        clip: Annotated[UploadFile, File(description="A video file")],
        transcript: Annotated[UploadFile | None, File(description="What is said in it: WebVTT, SRT or JSON")] = None,
    ) -> AnyAnswer:
        """Score one clip."""
        nonlocal waiting
        if waiting >= MAX_CLIPS_WAITING:
            raise ServiceError(f"{waiting} clips are waiting already; try again in a few seconds")
        waiting += 1
        try:
            words = await transcript.read() if transcript else None
            return await _score(scoring, await clip.read(), words)
        finally:
            waiting -= 1

    @app.get("/v1/model")
    async def model() -> ModelInfo:
        """Which model answers."""
        return scoring.current().info

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """A model is loaded and scores can be asked for."""
        info = scoring.current().info
        return {"status": "ready", "model": info.name, "version": info.version}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", media_type="text/html")

    @app.get("/page/{asset}", include_in_schema=False)
    async def page_asset(asset: str) -> Response:
        if asset not in _ASSETS:
            return _problem(404, f"no page file '{asset}'")
        return FileResponse(_PAGE / asset, media_type=_ASSETS[asset])


def _add_error_answers(app: FastAPI) -> None:
    """Every error is a Problem: one plain sentence as JSON."""

    @app.exception_handler(RaptError)
    async def known(request: Request, error: RaptError) -> JSONResponse:
        if isinstance(error, ClipError):
            return _problem(422, str(error))
        return _problem(503, str(error), retry_after_s=5) if isinstance(error, ServiceError) else _problem(500, str(error))

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return _problem(422, f"{place}: {first['msg']}; send a video file as the form field 'clip'")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        return _problem(500, f"an error that was not foreseen ({type(error).__name__}); the clip was not scored")


def _problem(status: int, sentence: str, *, retry_after_s: int | None = None) -> JSONResponse:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)


async def _score(scoring: Scoring, clip: bytes, words: bytes | None) -> AnyAnswer:
    if not clip:
        raise ClipError("the upload is empty; send a video file as the form field 'clip'")
    begun_s = time.perf_counter()
    deadline = Deadline.within(DEADLINE_S)
    model = scoring.current()
    sample = await scoring.decode(clip, words, model, deadline)
    decode_ms = (time.perf_counter() - begun_s) * 1000
    (answer,) = await scoring.score([sample], model, deadline, decode_ms=decode_ms)
    return answer
