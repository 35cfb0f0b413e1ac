"""Who is let in to what: the guard before a small app that tells whether it was reached."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from data_shards.errors import ConfigError
from serving.access.audit_log import AUDIT_FILE, AuditLog
from serving.access.guard import AccessGuard, owner_check
from serving.access.keys import create_key, revoke_key, utc_now
from serving.http.metrics import Metrics
from serving.http.request_facts import owner_of
from serving.http.request_log import RequestLog
from serving.http.settings import AppSettings

ROUTES = ("/v1/score", "/v1/model", "/v1/jobs", "/v1/jobs/{job_id}", "/metrics")


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    await JSONResponse({"reached": request.url.path, "owner": owner_of(request)})(scope, receive, send)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@contextmanager
def guarded(keys_file: Path, now_s: list[float] | None = None, **settings: Any) -> Iterator[TestClient]:
    clock = now_s or [0.0]
    guard = AccessGuard(inner, AppSettings(keys_file=keys_file, **settings), now_s=lambda: clock[0])
    log = AuditLog(keys_file.parent / "serving")
    yield TestClient(RequestLog(guard, Metrics(), log, templates=lambda: ROUTES))
    log.close()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_service_is_open_until_a_key_is_made_and_never_again(keys_file: Path) -> None:
    with guarded(keys_file) as client:
        assert client.get("/v1/model").json()["owner"] == "everybody"
        record, key = create_key(keys_file, "school", now=utc_now())
        refused = client.get("/v1/model")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Bearer realm="rapt"'
        assert refused.json()["error"].startswith("an API key is needed; send one as 'Authorization: Bearer KEY'")
        assert client.get("/v1/model", headers=bearer(key)).json()["owner"] == record.id
        assert client.get("/v1/model", headers={"X-API-Key": key}).status_code == 200
        revoke_key(keys_file, "school", now=utc_now())
        assert "was revoked" in client.get("/v1/model", headers=bearer(key)).json()["error"]
        keys_file.unlink()
        assert client.get("/v1/model").status_code == 401


def test_keys_can_be_required_before_there_is_one(keys_file: Path) -> None:
    with guarded(keys_file, require_keys=True) as client:
        assert client.get("/v1/score").status_code == 401


def test_only_the_pages_files_and_the_probes_are_open(keys_file: Path) -> None:
    with guarded(keys_file, require_keys=True) as client:
        for path in ("/", "/page/page.js", "/docs", "/openapi.json", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200, path
        for path in ("/v1/model", "/metrics", "/nothing", "/page/a/b", "/HEALTHZ", "/healthz/x", "/page/"):
            assert client.get(path).status_code == 401, path


@pytest.mark.parametrize("key", ["", "x", "rapt_" + "0" * 12 + "_" + "0" * 64, "\x00", "é"])
def test_what_is_no_key_is_refused_alike(keys_file: Path, key: str) -> None:
    create_key(keys_file, "school", now=utc_now())
    with guarded(keys_file) as client:
        answers = [client.get("/v1/model", headers={b"Authorization": f"Bearer {key}".encode()})]
        answers.append(client.get("/v1/model", headers={b"X-API-Key": key.encode()}))
        answers.append(client.get("/v1/model", headers={b"Authorization": f"Basic {key}".encode()}))
        assert [answer.status_code for answer in answers] == [401, 401, 401]


def test_two_keys_at_once_are_none(keys_file: Path) -> None:
    """A proxy before the endpoint may have looked at the other one."""
    _, key = create_key(keys_file, "school", now=utc_now())
    _, other = create_key(keys_file, "other", now=utc_now())
    with guarded(keys_file) as client:
        for headers in (
            [("Authorization", f"Bearer {key}"), ("X-API-Key", other)],
            [("Authorization", f"Bearer {key}"), ("X-API-Key", key)],
            [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {other}")],
            [("X-API-Key", key), ("X-API-Key", "")],
        ):
            refused = client.get("/v1/model", headers=headers)
            assert (refused.status_code, refused.json()["error"][:12]) == (400, "two API keys")
            assert 'error="invalid_request"' in refused.headers["www-authenticate"]
        from_a_proxy = [("Authorization", "Basic YTpi"), ("X-API-Key", key)]
        assert client.get("/v1/model", headers=from_a_proxy).status_code == 200


def test_an_owner_is_one_as_long_as_the_key_holds(keys_file: Path) -> None:
    may_ask = owner_check(AppSettings(keys_file=keys_file))
    assert may_ask("everybody")
    record, _ = create_key(keys_file, "school", now=utc_now())
    old, _ = create_key(keys_file, "old", now=utc_now() - timedelta(days=2), expires_at=utc_now() - timedelta(days=1))
    assert [may_ask(owner) for owner in (record.id, old.id, "0" * 12, "school", "everybody")] == [True, False, False, False, True]
    revoke_key(keys_file, "school", now=utc_now())
    assert not may_ask(record.id)
    keys_file.write_text("{")
    with pytest.raises(ConfigError, match="no keys file"):
        may_ask(record.id)


def test_an_expired_key_is_told_so(keys_file: Path) -> None:
    _, key = create_key(keys_file, "old", now=utc_now() - timedelta(days=2), expires_at=utc_now() - timedelta(days=1))
    with guarded(keys_file) as client:
        answer = client.get("/v1/model", headers=bearer(key))
        assert answer.status_code == 401
        assert "has expired" in answer.json()["error"]
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_key_reaches_what_its_scopes_say(keys_file: Path) -> None:
    _, scorer = create_key(keys_file, "scorer", now=utc_now(), scopes=("score",))
    _, watcher = create_key(keys_file, "watcher", now=utc_now(), scopes=("metrics",))
    _, teacher = create_key(keys_file, "teacher", now=utc_now(), scopes=("jobs", "score"))
    allowed = {
        scorer: {"/v1/score", "/v1/explain", "/v1/model"},
        watcher: {"/metrics", "/v1/model"},
        teacher: {"/v1/score", "/v1/explain", "/v1/model", "/v1/jobs", "/v1/jobs/a", "/v1/jobs/a/result"},
    }
    with guarded(keys_file) as client:
        for key, paths in allowed.items():
            for path in ("/v1/score", "/v1/explain", "/v1/model", "/metrics", "/v1/jobs", "/v1/jobs/a", "/v1/jobs/a/result"):
                answer = client.get(path, headers=bearer(key))
                assert answer.status_code == (200 if path in paths else 403), path
        refused = client.get("/v1/jobs", headers=bearer(scorer))
        assert refused.json()["error"] == "this API key is for score, not for jobs; use one that has that scope"
        assert 'error="insufficient_scope", scope="jobs"' in refused.headers["www-authenticate"]


def test_over_its_rate_a_key_is_told_when_to_ask_again(keys_file: Path) -> None:
    _, key = create_key(keys_file, "school", now=utc_now(), rate_per_minute=2)
    _, other = create_key(keys_file, "other", now=utc_now())
    now_s = [1000.0]
    with guarded(keys_file, now_s) as client:
        statuses = [client.get("/v1/model", headers=bearer(key)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = client.get("/v1/model", headers=bearer(key))
        assert refused.headers["retry-after"] == "30"
        assert refused.json()["error"] == "over 2 requests a minute; try again in 30 s"
        assert client.get("/v1/model", headers=bearer(other)).status_code == 200
        now_s[0] += 30
        assert client.get("/v1/model", headers=bearer(key)).status_code == 200


def test_a_service_without_keys_has_a_rate_too(keys_file: Path) -> None:
    with guarded(keys_file, open_rate_per_minute=1) as client:
        assert [client.get("/v1/model").status_code for _ in range(2)] == [200, 429]
        assert client.get("/healthz").status_code == 200


def test_a_body_over_the_keys_bound_is_refused_by_its_declared_length(keys_file: Path) -> None:
    _, key = create_key(keys_file, "school", now=utc_now(), max_mib=1)
    with guarded(keys_file) as client:
        assert client.post("/v1/score", headers=bearer(key), content=b"x" * (1 << 20)).status_code == 200
        refused = client.post("/v1/score", headers=bearer(key), content=b"x" * ((1 << 20) + 1))
        assert refused.status_code == 413
        assert refused.json()["error"] == "the upload is over 1 MiB, the most that is taken here; send less at once"


def test_a_key_has_only_so_many_requests_under_way(keys_file: Path) -> None:
    _, key = create_key(keys_file, "school", now=utc_now(), concurrency=2)
    release = anyio.Event()
    answered: list[tuple[int, dict[str, str]]] = []

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await inner(scope, receive, send)

    guard = AccessGuard(waiting, AppSettings(keys_file=keys_file))

    async def ask() -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/v1/model", "query_string": b"", "headers": headers}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.append((message["status"], {name.decode(): value.decode() for name, value in message["headers"]}))

        await guard(scope, lambda: anyio.sleep_forever(), send)

    async def three_and_then_one() -> None:
        async with anyio.create_task_group() as asking:
            for _ in range(3):
                asking.start_soon(ask)
            while not answered:
                await anyio.sleep(0)
            assert [status for status, _ in answered] == [429]
            assert answered[0][1]["retry-after"] == "1"
            release.set()
        assert [status for status, _ in answered] == [429, 200, 200]
        await ask()
        assert answered[-1][0] == 200

    anyio.run(three_and_then_one)


def test_a_foreign_page_may_not_use_an_open_service_through_a_browser(keys_file: Path) -> None:
    with guarded(keys_file, cors_origins=("https://school.example",)) as client:
        answers = {
            origin: client.post("/v1/score", headers={"Origin": origin}).status_code
            for origin in (
                "http://testserver",
                "https://school.example",
                "https://evil.example",
                "null",
                "http://testserver.evil.example",
            )
        }
    assert list(answers.values()) == [200, 200, 403, 403, 403]


def test_a_foreign_name_is_not_answered_to_on_loopback_until_there_are_keys(keys_file: Path) -> None:
    folder = keys_file.parent
    settings = AppSettings.of_endpoint("127.0.0.1", keys_file=keys_file, audit_folder=folder)
    with guarded(keys_file, open_hosts=settings.open_hosts) as client:
        asked = ("127.0.0.1:8000", "localhost", "[::1]:8000", "evil.example:8000", "", "127.0.0.1.evil.example")
        statuses = [client.get("/v1/model", headers={"Host": host}).status_code for host in asked]
        assert statuses == [200, 200, 200, 403, 403, 403]
        _, key = create_key(keys_file, "school", now=utc_now())
        assert client.get("/v1/model", headers={"Host": "rapt.example", **bearer(key)}).status_code == 200


def test_anywhere_but_on_loopback_keys_are_required(keys_file: Path) -> None:
    for host, required in (("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True), ("10.0.0.7", True), ("", True)):
        settings = AppSettings.of_endpoint(host, keys_file=keys_file, audit_folder=keys_file.parent)
        assert settings.require_keys is required, host


def test_keys_that_cannot_be_read_close_the_service(keys_file: Path) -> None:
    with guarded(keys_file) as client:
        keys_file.write_text("{")
        answer = client.get("/v1/model")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
        assert str(keys_file) not in answer.text
        assert client.get("/healthz").status_code == 200


def test_the_audit_log_names_keys_routes_and_reasons_and_nobody(keys_file: Path) -> None:
    record, key = create_key(keys_file, "school", now=utc_now(), rate_per_minute=1)
    with guarded(keys_file) as client:
        answers = [
            client.get("/v1/jobs/ada-lovelace-2026?name=ada", headers={**bearer(key), "X-Forwarded-For": "203.0.113.7"}),
            client.post("/v1/score", headers=bearer(key), content=b"12345"),
            client.get("/somewhere/ada"),
            client.get("/healthz"),
        ]
    text = (keys_file.parent / "serving" / AUDIT_FILE).read_text()
    lines = [json.loads(each) for each in text.splitlines()]
    told = [(line["key_id"], line["method"], line["route"], line["status"], line["refusal"]) for line in lines]
    assert told == [
        (record.id, "GET", "/v1/jobs/{job_id}", 403, "scope"),
        (record.id, "POST", "/v1/score", 200, None),
        (None, "GET", "unknown", 401, "key_missing"),
    ]
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"] for answer in answers[:3]]
    for secret in ("ada", "203.0.113.7", "testclient", key.rpartition("_")[2]):
        assert secret not in text
