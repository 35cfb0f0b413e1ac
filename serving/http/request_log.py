"""The outermost layer: a request gets its id, and is counted and written down when it is over, however that came."""

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access.audit_log import AuditLine, AuditLog
from serving.http.metrics import Metrics
from serving.http.request_facts import OPEN_ROUTES, RequestFacts, RouteNames, attach, path_of

__all__ = ["CLIENT_LEFT", "RequestLog"]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CLIENT_LEFT = 499  # what proxies write where the client left before its answer; nobody is sent it


class RequestLog:
    """Gives each request an id, X-Request-Id in the answer, and tells the metrics and the audit log of its end.

    [choice] An id that the request brings is taken where it is a UUID, as Ray Serve's proxy gives one to each, and no other:
    it could name a person, and the audit log names nobody. The open routes are counted and not written down, unless they are
    refused: probes would push everything else out of the log. templates: gives every route's template.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, audit: AuditLog | None, *, templates: Callable[[], Iterable[str]]) -> None:
        self._app, self._metrics, self._audit = app, metrics, audit
        self._names = RouteNames(templates)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts = RequestFacts(route=self._names.of(path_of(scope)))
        brought = Headers(scope=scope).get("x-request-id", "")
        if _UUID.fullmatch(brought):
            facts.request_id = brought
        attach(scope, facts)
        begun_s = time.perf_counter()
        status, bytes_in, bytes_out = CLIENT_LEFT, 0, 0

        async def counting() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def noting(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = facts.request_id
            bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counting, noting)
        finally:
            if status == CLIENT_LEFT:  # also where the server cancelled what was at work on it
                facts.refusal = facts.refusal or "client_left"
            ms = (time.perf_counter() - begun_s) * 1000
            self._note(scope["method"], facts, status=status, bytes_in=bytes_in, bytes_out=bytes_out, ms=ms)

    def _note(self, method: str, facts: RequestFacts, *, status: int, bytes_in: int, bytes_out: int, ms: float) -> None:
        self._metrics.answered(method, facts.route, status, bytes_in=bytes_in, refusal=facts.refusal)
        if self._audit is None or (facts.route in OPEN_ROUTES and facts.refusal is None):
            return
        line = AuditLine(
            time=datetime.now(UTC),
            request_id=facts.request_id,
            key_id=facts.key_id,
            method=method[:16],
            route=facts.route,
            status=status,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            ms=round(ms, 1),
            refusal=facts.refusal,
        )
        try:
            self._audit.write(line)
        except OSError:  # a full disk stops no answer; the counter tells of it
            self._metrics.lost_a_line()
