"""What stands before the app: security headers on every answer, bounds on what a request sends and how long it takes."""

import time

import anyio
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BodyLimit", "SecurityHeaders"]

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class SecurityHeaders:
    """Adds the headers to every answer, those of errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class BodyLimit:
    """Refuses a body over max_bytes with 413, by its declared length at once and by count while it comes, and one that
    has not come whole after max_s seconds with 408: a slow client keeps no place."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_s: float) -> None:
        self._app, self._max_bytes, self._max_s = app, max_bytes, max_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = (413, f"the upload is over {self._max_bytes >> 20} MiB; send a shorter clip")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            await _refuse(*too_large, scope, receive, send)
            return
        deadline_s = time.monotonic() + self._max_s
        received, whole = 0, False
        refusal: tuple[int, str] | None = None

        async def bounded() -> Message:
            nonlocal received, whole, refusal
            if whole:
                return await receive()  # what comes after the body is the client leaving
            message: Message = {"type": "http.disconnect"}  # a refused body looks to the app as if the client had left
            with anyio.move_on_after(max(0.0, deadline_s - time.monotonic())) as patience:
                message = await receive()
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if patience.cancelled_caught:
                refusal = (408, f"the upload took more than {self._max_s:.0f} s; send it faster, or a shorter clip")
            elif received > self._max_bytes:
                refusal = too_large
            return message if refusal is None else {"type": "http.disconnect"}

        async def unless_refused(message: Message) -> None:
            if refusal is None:
                await send(message)

        try:
            await self._app(scope, bounded, unless_refused)
        except ClientDisconnect:
            if refusal is None:
                raise
        if refusal is not None:
            await _refuse(*refusal, scope, receive, send)


async def _refuse(status: int, sentence: str, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"error": sentence}, status_code=status)(scope, receive, send)
