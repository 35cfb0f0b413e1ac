"""What is known of a request while it passes the guards and the routes: one record in its ASGI scope."""

import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import Scope

__all__ = ["EVERYBODY", "OPEN_ROUTES", "RequestFacts", "RouteNames", "attach", "facts_of", "owner_of", "path_of", "too_large"]

OPEN_ROUTES = ("/", "/page/{asset}", "/docs", "/openapi.json", "/healthz", "/readyz")
UNKNOWN_ROUTE = "unknown"
EVERYBODY = "everybody"  # no key's id: those are hexadecimal
_NAME = "rapt"


@dataclass
class RequestFacts:
    """route: its template, e.g. /v1/jobs/{id}. arrived_s: by time.time(). key_id: of the key it came with, None without.
    refusal: the short name of why it was refused. max_bytes: what its body may have. deadline_s: by time.time(), until when it is
    to be answered."""

    route: str
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    arrived_s: float = field(default_factory=time.time)
    key_id: str | None = None
    refusal: str | None = None
    max_bytes: int | None = None
    deadline_s: float | None = None


def attach(scope: Scope, facts: RequestFacts) -> None:
    """Lay the facts into the scope, where the guards and the routes find them."""
    scope.setdefault("state", {})[_NAME] = facts


def facts_of(scope: Scope) -> RequestFacts:
    """The request's facts; new ones where no RequestLog stands before the app."""
    if _NAME not in scope.get("state", {}):
        attach(scope, RequestFacts(route=UNKNOWN_ROUTE))
    facts = scope["state"][_NAME]
    assert isinstance(facts, RequestFacts)
    return facts


def owner_of(request: Request) -> str:
    """Whose is what the request makes: the id of its key; of a service without keys, everybody's. A FastAPI dependency."""
    return facts_of(request.scope).key_id or EVERYBODY


def path_of(scope: Scope) -> str:
    """The path that the routes see: without the prefix that the app is mounted at."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(prefix) :] if prefix and path.startswith(prefix) else path


def too_large(max_bytes: int) -> str:
    """The sentence of a 413, whether the length was declared or counted."""
    return f"the upload is over {max_bytes >> 20} MiB, the most that is taken here; send less at once"


class RouteNames:
    """From a path to its route's template, so that what is counted and written down holds no path of a client's making.

    templates: gives them all; asked once, at the first request, when every route has been added.
    """

    def __init__(self, templates: Callable[[], Iterable[str]]) -> None:
        self._templates = templates
        self._patterns: list[tuple[re.Pattern[str], str]] = []

    def of(self, path: str) -> str:
        """The template, or "unknown"."""
        if not self._patterns:
            self._patterns = [(compile_path(template)[0], template) for template in (*OPEN_ROUTES, *self._templates())]
        return next((template for pattern, template in self._patterns if pattern.match(path)), UNKNOWN_ROUTE)
