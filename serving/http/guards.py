"""What stands before the app: security headers on every answer, bounds on what a request sends and how long it takes."""

import time

import anyio
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.request_facts import facts_of, too_large

__all__ = ["MAX_HEADERS", "MAX_HEADERS_BYTES", "BodyLimit", "HeadLimit", "SecurityHeaders"]

MAX_HEADERS = 64
MAX_HEADERS_BYTES = 16 << 10
_MAX_TARGET_BYTES = 2 << 10
# the page shows the clip that was chosen and the webcam (blob:), and pictures that it draws itself (data: and blob:)
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self' blob:; "
        "img-src 'self' data: blob:; worker-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), display-capture=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OVER_TLS = {"Strict-Transport-Security": "max-age=31536000"}  # of this name alone: what its subdomains are is not ours to say


class SecurityHeaders:
    """Adds the headers to every answer, those of errors too. tls: it is reached over HTTPS, even where this hop is not."""

    def __init__(self, app: ASGIApp, *, tls: bool = False) -> None:
        self._app, self._tls = app, tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _HEADERS | (_OVER_TLS if self._tls or scope.get("scheme") == "https" else {})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class HeadLimit:
    """Refuses a request whose head is too large, with 431 or 414.

    A bound on what the routes see. What a server reads before it gives the request on is the server's to bound.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        facts_of(scope).refusal = "head"
        await _refuse(*refusal, scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        if len(raw) > MAX_HEADERS or sum(len(name) + len(value) for name, value in raw) > MAX_HEADERS_BYTES:
            return 431, f"over {MAX_HEADERS} headers or {MAX_HEADERS_BYTES >> 10} KiB of them; send fewer"
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _MAX_TARGET_BYTES:
            return 414, f"an address of over {_MAX_TARGET_BYTES >> 10} KiB; send a shorter one"
        return None


class BodyLimit:
    """Refuses a body over max_bytes with 413, by count while it comes (the AccessGuard has looked at its declared length), and
    one that comes too slowly with 408, so that a slow client keeps no place: it has max_s seconds, and more only while it
    brings min_bytes_per_s on the average."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_s: float, min_bytes_per_s: float = 256 << 10) -> None:
        self._app, self._max_bytes, self._max_s, self._min_bytes_per_s = app, max_bytes, max_s, min_bytes_per_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts = facts_of(scope)
        max_bytes = self._max_bytes if facts.max_bytes is None else facts.max_bytes
        begun_s = time.monotonic()
        received, whole = 0, False
        refusal: tuple[int, str, str] | None = None

        async def bounded() -> Message:
            nonlocal received, whole, refusal
            if whole:
                return await receive()  # what comes after the body is the client leaving
            message: Message = {"type": "http.disconnect"}  # a refused body looks to the app as if the client had left
            allowed_s = max(self._max_s, received / self._min_bytes_per_s)
            with anyio.move_on_after(max(0.0, begun_s + allowed_s - time.monotonic())) as patience:
                message = await receive()
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if patience.cancelled_caught:
                refusal = (408, "slow", f"the upload took more than {allowed_s:.0f} s; send it faster, or less at once")
            elif received > max_bytes:
                refusal = (413, "too_large", too_large(max_bytes))
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
            status, facts.refusal, sentence = refusal
            await _refuse(status, sentence, scope, receive, send)


async def _refuse(status: int, sentence: str, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"error": sentence}, status_code=status)(scope, receive, send)
