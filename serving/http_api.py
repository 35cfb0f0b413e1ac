"""The HTTP contract as a FastAPI app over a predictor, without Ray: routes, limits, the page, security headers."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, File, UploadFile
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_shards.errors import ClipError
from serving.answer import Answer, ModelInfo, Problem
from serving.decode_child import DecodeChild
from serving.predictor import Predictor

__all__ = ["MAX_UPLOAD_BYTES", "build_app"]

MAX_UPLOAD_BYTES = 100 << 20
_PAGE = Path(__file__).parent / "page"
_ASSETS = {"page.js": "text/javascript", "page.css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def build_app(predictor: Predictor, child: DecodeChild) -> FastAPI:
    """The app of one loaded model. Uploads are decoded in `child` and deleted before the answer is sent."""
    app = FastAPI(
        title="Rapt engagement scoring",
        version="1",
        description="Scores the engagement level of webcam clips. Nothing uploaded is kept.",
        docs_url=None,  # its page loads scripts from elsewhere; /openapi.json is served
        redoc_url=None,
    )
    app.add_middleware(_BodyLimit, max_bytes=MAX_UPLOAD_BYTES)

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Callable[[Request], "Response"]) -> Response:
        response: Response = await call_next(request)  # type: ignore[misc]  # starlette's call_next is a coroutine function
        response.headers.update(_HEADERS)
        return response

    problems: dict[int | str, dict[str, object]] = {
        413: {"model": Problem, "description": "The upload is too large."},
        422: {"model": Problem, "description": "The clip cannot be used."},
    }

    @app.post("/v1/score", responses=problems)
    async def score(clip: Annotated[UploadFile, File(description="A video file")]) -> Answer:
        """Score one clip."""
        content = await clip.read()
        return await run_in_threadpool(_score, predictor, child, content)

    @app.get("/v1/model")
    async def model() -> ModelInfo:
        """Which model answers."""
        return predictor.info

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """A model is loaded and scores can be asked for."""
        return {"status": "ready", "model": predictor.info.name, "version": predictor.info.version}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", media_type="text/html")

    @app.get("/page/{asset}", include_in_schema=False)
    async def page_asset(asset: str) -> Response:
        if asset not in _ASSETS:
            return JSONResponse({"error": f"no page file '{asset}'"}, status_code=404)
        return FileResponse(_PAGE / asset, media_type=_ASSETS[asset])

    @app.exception_handler(ClipError)
    async def unusable(request: Request, error: ClipError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=422)

    return app


def _score(predictor: Predictor, child: DecodeChild, content: bytes) -> Answer:
    if not content:
        raise ClipError("the upload is empty; send a video file as the form field 'clip'")
    begun_s = time.perf_counter()
    # decord reads from a path; the file has a name of ours, never the uploader's, and is gone when the block ends
    with tempfile.TemporaryDirectory(prefix="rapt-upload-") as folder:
        path = Path(folder) / "clip"
        path.write_bytes(content)
        sample = child.sample_of(path, predictor.preprocess)
    return predictor.score_sample(sample, decode_ms=(time.perf_counter() - begun_s) * 1000)


class _BodyLimit:
    """Refuses a request body over max_bytes with 413, by its Content-Length at once and by count while it arrives."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            # to the app it looks as if the client had left; what it then says is not sent
            return message if received <= self._max_bytes else {"type": "http.disconnect"}

        async def unless_refused(message: Message) -> None:
            if received <= self._max_bytes:
                await send(message)

        try:
            await self._app(scope, counted, unless_refused)
        except ClientDisconnect:
            if received <= self._max_bytes:
                raise
        if received > self._max_bytes:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = f"{self._max_bytes >> 20} MiB"
        response = JSONResponse({"error": f"the upload is over {limit}; send a shorter clip"}, status_code=413)
        await response(scope, receive, send)
