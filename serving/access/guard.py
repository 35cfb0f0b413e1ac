"""The guard before the routes: who asks, whether they may, how often, how much. It refuses before a body is read."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from data_shards.errors import ConfigError
from serving.access.keys import KeyRecord, Keyring, KeyScope, utc_now
from serving.access.limits import Limits
from serving.http.request_facts import EVERYBODY, OPEN_ROUTES, facts_of, path_of, too_large
from serving.http.settings import AppSettings

__all__ = ["AccessGuard", "owner_check"]

_SCOPES: dict[str, KeyScope] = {"/v1/score": "score", "/v1/explain": "score", "/v1/jobs": "jobs", "/metrics": "metrics"}
_BUSY_RETRY_S = 1


@dataclass(frozen=True)
class _Refusal:
    status: int
    reason: str  # its short name, for the log and the counter
    sentence: str
    retry_after_s: int | None = None
    challenge: str | None = None


class AccessGuard:
    """Answers 400, 401, 403, 413 and 429 in place of the app. Everything but OPEN_ROUTES needs a key where keys are required.

    max_recording_bytes: what a lesson's recording may have, None where none is taken; now_s: a clock that never goes back, for
    the limits.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: AppSettings,
        *,
        max_recording_bytes: int | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._settings, self._now_s = app, settings, now_s
        self._max_upload_bytes = settings.max_upload_mib << 20
        self._max_recording_bytes = max_recording_bytes or self._max_upload_bytes
        self._keyring = Keyring(settings.keys_file, required=settings.require_keys)
        self._limits = Limits(open_rate_per_minute=settings.open_rate_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts, path, headers = facts_of(scope), path_of(scope), Headers(scope=scope)
        scope_name = _scope_of(path)
        facts.max_bytes = self._max_recording_bytes if scope_name == "jobs" else self._max_upload_bytes
        key: KeyRecord | None = None
        if facts.route in OPEN_ROUTES:
            refusal = None
        else:
            key, refusal = self._judge(headers, scope_name)
        if key is not None:
            facts.key_id = key.id
            facts.max_bytes = min(facts.max_bytes, key.max_mib << 20)
        if refusal is None:
            refusal = _refuse_length(headers, facts.max_bytes)
        if refusal is not None:
            facts.refusal = refusal.reason
            await _answer(refusal)(scope, receive, send)
            return
        await self._admit(key, scope, receive, send)

    async def _admit(self, key: KeyRecord | None, scope: Scope, receive: Receive, send: Send) -> None:
        if key is None:
            await self._app(scope, receive, send)
            return
        self._limits.enter(key)
        try:
            await self._app(scope, receive, send)
        finally:
            self._limits.leave(key)

    def _judge(self, headers: Headers, scope_name: KeyScope | None) -> tuple[KeyRecord | None, _Refusal | None]:
        """The key that the request came with, and why it is refused."""
        try:
            required = self._keyring.required
        except ConfigError:  # closed rather than open: who is let in cannot be known
            return None, _Refusal(503, "keys", "the API keys cannot be read; tell who runs the service", retry_after_s=60)
        if not required:
            return None, self._refuse_open(headers)
        presented = _presented(headers)
        if len(presented) > 1:  # which one counts would be a matter of who reads them, here and in what stands before
            sentence = "two API keys; send one, as 'Authorization: Bearer KEY' or as X-API-Key"
            challenge = 'Bearer realm="rapt", error="invalid_request"'
            return None, _Refusal(400, "two_keys", sentence, challenge=challenge)
        key = self._keyring.find(presented[0]) if presented else None
        return key, self._refuse_keyed(key, scope_name, has_one=any(presented))

    def _refuse_open(self, headers: Headers) -> _Refusal | None:
        """A service without keys: a page of another origin must not use it through its visitor's browser."""
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._settings.open_hosts and name not in self._settings.open_hosts:
            sentence = f"without keys this service answers to no name but this machine's own, not to '{name[:100]}'"
            return _Refusal(403, "host", f"{sentence}; make a key with `rapt keys create`, and any name will do")
        origin = headers.get("origin")
        if origin is not None and not self._is_welcome(origin, host):
            sentence = f"pages of {origin[:100]} may not call this service; name the origin where the service is started"
            return _Refusal(403, "origin", sentence)
        wait_s = self._limits.take_open(self._now_s())
        return _too_often(self._settings.open_rate_per_minute, wait_s) if wait_s else None

    def _is_welcome(self, origin: str, host: str) -> bool:
        return origin in self._settings.cors_origins or urlsplit(origin).netloc == host

    def _refuse_keyed(self, key: KeyRecord | None, scope_name: KeyScope | None, *, has_one: bool) -> _Refusal | None:
        if key is None:
            what = "this API key is not known" if has_one else "an API key is needed"
            sentence = f"{what}; send one as 'Authorization: Bearer KEY' (who runs the service makes it with `rapt keys create`)"
            challenge = 'Bearer realm="rapt"' + (', error="invalid_token"' if has_one else "")
            return _Refusal(401, "key_unknown" if has_one else "key_missing", sentence, challenge=challenge)
        state = key.state(utc_now())
        if state != "valid":
            challenge = 'Bearer realm="rapt", error="invalid_token"'
            how = "was revoked" if state == "revoked" else "has expired"
            return _Refusal(401, f"key_{state}", f"this API key {how}; ask who runs the service for another", challenge=challenge)
        if scope_name is not None and scope_name not in key.scopes:
            sentence = f"this API key is for {' and '.join(key.scopes)}, not for {scope_name}; use one that has that scope"
            return _Refusal(403, "scope", sentence, challenge=f'Bearer error="insufficient_scope", scope="{scope_name}"')
        if not self._limits.has_room(key):
            sentence = f"this API key has {key.concurrency} requests under way, as many as it may; wait for one of them"
            return _Refusal(429, "concurrency", sentence, retry_after_s=_BUSY_RETRY_S)
        wait_s = self._limits.take(key, self._now_s())
        return _too_often(key.rate_per_minute, wait_s) if wait_s else None


def owner_check(settings: AppSettings) -> Callable[[str], bool]:
    """Whether an owner (`request_facts.owner_of`) may ask now; ConfigError where the keys cannot be read. What everybody handed
    in while there were no keys is nobody's to revoke."""
    keyring = Keyring(settings.keys_file, required=settings.require_keys)
    return lambda owner: owner == EVERYBODY or keyring.admits(owner, utc_now())


def _scope_of(path: str) -> KeyScope | None:
    """The scope that a path needs; None where any key will do."""
    return next((name for route, name in _SCOPES.items() if path == route or path.startswith(f"{route}/")), None)


def _presented(headers: Headers) -> list[str]:
    """What the request came with as its key: one, or none; more where it was said more than once."""
    schemes = [value.partition(" ") for value in headers.getlist("authorization")]
    bearers = [token.strip() for kind, _, token in schemes if kind.lower() == "bearer"]
    return bearers + [value.strip() for value in headers.getlist("x-api-key")]


def _refuse_length(headers: Headers, max_bytes: int) -> _Refusal | None:
    declared = headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and len(declared) < 20 and int(declared) <= max_bytes:
        return None
    return _Refusal(413, "too_large", too_large(max_bytes))


def _too_often(rate_per_minute: int, wait_s: int) -> _Refusal:
    sentence = f"over {rate_per_minute} requests a minute; try again in {wait_s} s"
    return _Refusal(429, "rate", sentence, retry_after_s=wait_s)


def _answer(refusal: _Refusal) -> JSONResponse:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.challenge is not None:
        headers["WWW-Authenticate"] = refusal.challenge
    return JSONResponse({"error": refusal.sentence}, status_code=refusal.status, headers=headers)
