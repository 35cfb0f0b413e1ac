"""The OpenAPI schema as the whole app behaves: the guards' answers and the keys, which the routes know nothing of."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from serving.answer import Problem
from serving.http.request_facts import OPEN_ROUTES

__all__ = ["complete", "problems"]

_MEANINGS = {
    400: "The request cannot be read.",
    401: "No API key, or one that is unknown, revoked or expired.",
    403: "The API key has not the scope; or a service without keys is called by another origin's page, or by a foreign name.",
    404: "There is no such lesson of this key.",
    408: "The upload came too slowly, or nothing for too long.",
    409: "The lesson is not at that point.",
    413: "The upload is too large.",
    414: "The address is too long.",
    415: "The body is of another kind.",
    422: "The clip, the recording or a value of the request cannot be used.",
    429: "The API key's rate or concurrency is used up, or it has too many lessons here.",
    431: "The headers are too many or too large.",
    500: "An error that was not foreseen.",
    503: "No room, no model, or no time left: ask again.",
}
_ALL = (400, 414, 431, 500)
_KEYED = (401, 403, 429, 503)
_WITH_BODY = (408, 413, 415, 422)
_RETRY = {"Retry-After": {"description": "Seconds after which to ask again", "schema": {"type": "integer", "minimum": 1}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "Bearer, and what is wrong with the key", "schema": {"type": "string"}}}
_HEADERS = {401: _CHALLENGE, 429: _RETRY, 503: _RETRY}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, rapt_ID_SECRET, made by `rapt keys create`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key in a header of its own"},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route answers with a Problem, beside what the guards before all routes do."""
    return {status: {"model": Problem, "description": _MEANINGS[status]} for status in statuses}


def complete(schema: dict[str, Any], *, require_keys: bool) -> dict[str, Any]:
    """The routes' schema, with the guards' answers and the security of each route that is not open.

    require_keys: False where the service is open as long as no key was made; no key is then one of the ways.
    """
    components = schema.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    ways: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                _without_null(parameter)
            if path in OPEN_ROUTES:
                operation["security"] = []
                _describe(operation, _ALL)
                continue
            operation["security"] = ways if require_keys else [{}, *ways]
            _describe(operation, (*_ALL, *_KEYED, *(_WITH_BODY if "requestBody" in operation else ())))
    return schema


def _without_null(parameter: dict[str, Any]) -> None:
    """A parameter that may be lacking has the kind of its values: FastAPI adds null, which no header or query can say."""
    schema = parameter["schema"]
    kinds = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
    if len(kinds) == 1:
        schema.update(kinds[0])
    elif kinds:
        schema["anyOf"] = kinds


def _describe(operation: dict[str, Any], statuses: Iterable[int]) -> None:
    """Add the statuses that are not told of yet, and the headers that come with some. Every refusal is a Problem as JSON, also
    of a route whose answer is a table or a page."""
    answers = operation["responses"]
    for status in statuses:
        answers.setdefault(str(status), {"description": _MEANINGS[status]})
    for code, answer in answers.items():
        answer.setdefault("description", HTTPStatus(int(code)).phrase)
        if int(code) >= HTTPStatus.BAD_REQUEST:
            answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        if int(code) in _HEADERS:
            answer["headers"] = _HEADERS[int(code)]
