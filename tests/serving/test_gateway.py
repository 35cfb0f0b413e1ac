"""The app's bounds, headers, figures and descriptions, over a real predictor."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from serving.access.audit_log import AUDIT_FILE
from serving.access.keys import create_key, utc_now
from serving.confined.decode_child import DecodeChild
from serving.http.guards import MAX_HEADERS
from serving.http.http_api import build_app
from serving.http.settings import AppSettings
from serving.jobs.record import JobLimits
from serving.jobs.runner import JobRunner
from serving.jobs.store import JobStore
from serving.predictor import Predictor
from serving.scoring import LocalScoring

Apps = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture
def app(predictor: Predictor, child: DecodeChild) -> Apps:
    @contextmanager
    def client(settings: AppSettings | None = None, **options: str) -> Iterator[TestClient]:
        with TestClient(build_app(LocalScoring(predictor, child), settings), **options) as client:
            yield client

    return client


def figures(client: TestClient) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_the_figures_tell_of_requests_answers_stages_refusals_and_the_model(app: Apps, clip: bytes, predictor: Predictor) -> None:
    with app() as client:
        assert client.post("/v1/score", files={"clip": clip}).status_code == 200
        assert client.post("/v1/score", files={"clip": b"junk"}).status_code == 422
        client.get("/ada/lovelace")
        client.request("PROPFIND", "/v1/model")
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "ada" not in answer.text
        found = figures(client)
    assert found["rapt_requests_total", "POST", "/v1/score", "200"] == 1
    assert found["rapt_requests_total", "POST", "/v1/score", "422"] == 1
    assert found["rapt_requests_total", "GET", "unknown", "404"] == 1
    assert found["rapt_requests_total", "other", "/v1/model", "405"] == 1
    assert found["rapt_refusals_total", "clip"] == 1
    assert found["rapt_answers_total", "scored"] == 1
    assert found["rapt_clips_waiting",] == found["rapt_uploads_receiving",] == 0
    for stage in ("decode", "model", "total"):
        assert found["rapt_stage_seconds_count", stage] == 1
    assert found["rapt_stage_seconds_sum", "total"] > found["rapt_stage_seconds_sum", "model"] > 0
    assert found["rapt_received_bytes_total",] > len(clip)
    assert found["rapt_model_info", predictor.info.data_digest, "engagement", "1"] == 1
    assert found["process_resident_memory_bytes",] > 0


def test_refusals_of_lessons_are_named_too(predictor: Predictor, child: DecodeChild, tmp_path: Path) -> None:
    scoring = LocalScoring(predictor, child)
    jobs = JobRunner(JobStore(tmp_path / "jobs", JobLimits(max_bytes=1 << 20, max_jobs_per_owner=1)), scoring)
    with TestClient(build_app(scoring, AppSettings(audit_folder=tmp_path), jobs=jobs)) as client:
        answers = [
            client.get("/v1/jobs/none"),
            client.post("/v1/jobs", json={"size_bytes": "many"}),
            client.post("/v1/jobs", files={"recording": b"no video"}),
            client.post("/v1/jobs", files={"recording": b"\x00" * (2 << 20)}),
            created := client.post("/v1/jobs", json={"size_bytes": 1000}),
            client.get(f"/v1/jobs/{created.json()['id']}/result"),
            client.post("/v1/jobs", json={"size_bytes": 1000}),
        ]
        assert [answer.status_code for answer in answers] == [404, 422, 422, 413, 201, 409, 429]
        assert figures(client)["rapt_refusals_total", "job_state"] == 1
    lines = [json.loads(line) for line in (tmp_path / AUDIT_FILE).read_text().splitlines()]
    assert [line["refusal"] for line in lines if line["route"].startswith("/v1/jobs")] == [
        *["job_unknown", "request", "clip", "too_large", None, "job_state", "jobs"]
    ]


def test_the_figures_tell_how_many_lessons_wait(predictor: Predictor, child: DecodeChild, tmp_path: Path) -> None:
    scoring = LocalScoring(predictor, child)
    jobs = JobRunner(JobStore(tmp_path), scoring)
    client = TestClient(build_app(scoring, jobs=jobs))  # never started, so that none is begun
    assert client.post("/v1/jobs", json={"size_bytes": 10}).status_code == 201
    for _ in range(2):
        jobs.enqueue(jobs.store.create("school", 10))
    figures(client)  # what is asked for twice is not counted twice
    found = figures(client)
    assert [found["rapt_lessons", state] for state in ("uploading", "queued", "running")] == [1, 2, 0]


def test_what_is_to_be_mended_is_told_to_nobody_who_asks_for_it(predictor: Predictor, child: DecodeChild) -> None:
    class Warned(LocalScoring):
        def warning(self) -> str:
            return "/home/ada/.rapt/models/7 cannot be read"

    with TestClient(build_app(Warned(predictor, child))) as client:
        ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert ready.json()["warning"] == "something is to be mended; the endpoint's log says what"


def test_two_apps_of_a_process_count_for_themselves(app: Apps) -> None:
    with app() as one, app() as other:
        one.get("/v1/model")
        assert ("rapt_requests_total", "GET", "/v1/model", "200") in figures(one)
        assert ("rapt_requests_total", "GET", "/v1/model", "200") not in figures(other)


def test_each_answer_has_an_id_that_names_nobody(app: Apps) -> None:
    brought = str(uuid.uuid4())
    with app() as client:
        answers = [client.get(path, headers={"X-Request-Id": "ada"}) for path in ("/v1/model", "/nothing", "/", "/healthz")]
        assert client.get("/v1/model", headers={"X-Request-Id": brought}).headers["x-request-id"] == brought
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 4
    assert all(str(uuid.UUID(each)) == each for each in ids)


def test_security_headers_and_https(app: Apps) -> None:
    with app() as plain, app(base_url="https://testserver") as over_tls, app(AppSettings(tls=True)) as behind_a_proxy:
        headers = plain.get("/").headers
        assert "strict-transport-security" not in headers
        for client in (over_tls, behind_a_proxy):
            assert client.get("/").headers["strict-transport-security"] == "max-age=31536000"
    assert "camera=(self), microphone=(self)" in headers["permissions-policy"]
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    for part in ("default-src 'none'", "media-src 'self' blob:", "img-src 'self' data: blob:", "worker-src 'none'"):
        assert part in policy
    assert "unsafe" not in policy


def test_other_origins_are_told_nothing_unless_they_are_named(app: Apps) -> None:
    asked = {"Origin": "https://school.example", "Access-Control-Request-Method": "POST"}
    with app() as closed, app(AppSettings(cors_origins=("https://school.example",), require_keys=True)) as named:
        refused = closed.options("/v1/score", headers=asked)
        assert "access-control-allow-origin" not in refused.headers
        allowed = named.options("/v1/score", headers={**asked, "Access-Control-Request-Headers": "authorization"})
        assert allowed.headers["access-control-allow-origin"] == "https://school.example"
        assert "access-control-allow-credentials" not in allowed.headers
        other = named.options("/v1/score", headers={**asked, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_too_large_a_head_is_refused(app: Apps) -> None:
    with app() as client:
        many = client.get("/healthz", headers={f"X-{number}": "" for number in range(MAX_HEADERS + 1)})
        large = client.get("/healthz", headers={"X-Large": "x" * 20_000})
        long = client.get("/healthz?" + "x" * 3000)
        assert [answer.status_code for answer in (many, large, long)] == [431, 431, 414]
        assert all(list(answer.json()) == ["error"] for answer in (many, large, long))


def form(*parts: bytes) -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + b"--x--\r\n"


def part(name: bytes, content: bytes = b"", *, headers: bytes = b"", filename: bytes | None = b"f") -> bytes:
    file = b"; filename=" + filename if filename is not None else b""
    return b"Content-Disposition: form-data; name=" + name + file + b"\r\n" + headers + b"\r\n" + content


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (form(*[part(b"clip")] * 3), 400, "Too many files"),
        (form(*[part(b"a%d" % number, filename=None) for number in range(5000)]), 400, "Too many fields"),
        (form(part(b"clip", b"x" * 70_000, filename=None)), 400, "Part exceeded maximum size"),
        (form(part(b"clip", headers=b"X-%s: x\r\n" % (b"y" * 5000))), 400, "Invalid multipart"),
        (form(part(b"clip", headers=b"X-A: x\r\n" * 100)), 400, "Invalid multipart"),
        (form(b"Content-Disposition: form-data\r\n\r\n"), 400, "name"),
        (b"--x\r\n" * 20_000, 400, "Invalid multipart"),
        (b"nothing of a form", 400, "Invalid multipart"),
        (form(part(b"clip", b"junk"), part(b"clip", b"junk")), 422, "more than one 'clip'"),
        (form(part(b"clip", b"junk"), part(b"other", b"junk", filename=None)), 422, "more than one 'clip'"),
        (form(part(b"clip", b"words", filename=None)), 422, "holds no file"),
        (form(part(b"clip", form(part(b"clip", b"deep")).replace(b"--x", b"--y"))), 422, "text; send a video"),
        (form(part(b"clip", b"\x00junk"), part(b"transcript", b"x" * (4 << 20) + b"x")), 422, "the transcript is over 4 MiB"),
    ],
)
def test_a_form_of_another_make_is_refused(app: Apps, body: bytes, status: int, reason: str) -> None:
    with app() as client:
        answer = client.post("/v1/score", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert reason in answer.json()["error"]


def test_a_body_of_another_kind_is_refused(app: Apps, clip: bytes) -> None:
    with app() as client:
        for kind in ("video/mp4", "application/json", "application/x-www-form-urlencoded", "multipart/mixed; boundary=x"):
            assert client.post("/v1/score", content=clip, headers={"Content-Type": kind}).status_code == 415
        answer = client.post("/v1/score", content=clip, headers={"Content-Type": "multipart/form-data"})
        assert answer.status_code == 400


def test_a_deadline_that_is_none_is_refused_and_a_longer_one_is_the_services(app: Apps, clip: bytes) -> None:
    with app() as client:
        for asked in ("0", "-1", "nan", "inf", "soon"):
            answer = client.post("/v1/score", files={"clip": clip}, headers={"X-Rapt-Deadline-S": asked})
            assert answer.status_code == 422, asked
            assert "/docs says what may be sent" in answer.json()["error"]
        assert client.post("/v1/score", files={"clip": clip}, headers={"X-Rapt-Deadline-S": "9999"}).status_code == 200


def test_a_request_over_its_deadline_is_given_up_and_the_next_is_scored(
    app, child: DecodeChild, clip: bytes, tmp_path: Path
) -> None:
    with app(AppSettings(audit_folder=tmp_path)) as client:
        assert client.post("/v1/score", files={"clip": clip}).status_code == 200
        with child._lock:  # the child is at another clip
            late = client.post("/v1/score", files={"clip": clip}, headers={"X-Rapt-Deadline-S": "0.3"})
        assert (late.status_code, late.headers["retry-after"]) == (503, "5")
        assert "time is over" in late.json()["error"]
        assert client.post("/v1/score", files={"clip": clip}).status_code == 200
    lines = [json.loads(line) for line in (tmp_path / AUDIT_FILE).read_text().splitlines()]
    assert [line["refusal"] for line in lines] == [None, "deadline", None]


def test_an_upload_that_takes_all_of_its_time_is_told_so(app: Apps, clip: bytes) -> None:
    def slowly() -> Iterator[bytes]:
        body = form(part(b"clip", clip))
        yield body[:1000]
        time.sleep(0.05)
        yield body[1000:]

    headers = {"Content-Type": "multipart/form-data; boundary=x", "X-Rapt-Deadline-S": "0.01"}
    with app() as client:
        answer = client.post("/v1/score", content=slowly(), headers=headers)
    assert answer.status_code == 408
    assert "took all of the time" in answer.json()["error"]


def test_the_schema_tells_of_keys_and_of_every_guards_answers(app: Apps) -> None:
    with app() as client, app(AppSettings(require_keys=True)) as closed:
        schema, strict = client.get("/openapi.json").json(), closed.get("/openapi.json").json()
    score = schema["paths"]["/v1/score"]["post"]
    assert set(score["responses"]) == {
        *["200", "400", "401", "403", "408", "413", "414", "415", "422", "429", "431", "500", "503"]
    }
    for code, answer in score["responses"].items():
        if code != "200":
            assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert "Retry-After" in score["responses"]["429"]["headers"]
    assert "WWW-Authenticate" in score["responses"]["401"]["headers"]
    assert score["requestBody"]["content"]["multipart/form-data"]["schema"]["required"] == ["clip"]
    assert score["security"] == [{}, {"bearer": []}, {"header": []}]
    assert strict["paths"]["/v1/score"]["post"]["security"] == [{"bearer": []}, {"header": []}]
    assert strict["paths"]["/healthz"]["get"]["security"] == []
    assert set(schema["paths"]["/healthz"]["get"]["responses"]) == {"200", "400", "414", "431", "500"}
    assert "HTTPValidationError" not in json.dumps(schema["paths"])


def test_the_page_of_the_schema_needs_nothing_from_elsewhere(app: Apps) -> None:
    with app() as client:
        page = client.get("/docs")
        assert page.status_code == 200
        assert client.get("/page/page.css").status_code == 200
    for words in ("POST /v1/score", "x-rapt-deadline-s", "Problem", "429", "/page/page.css"):
        assert words in page.text
    for foreign in ("http://", "https://", "<script", "style="):
        assert foreign not in page.text


def test_a_405_says_what_is_allowed(app: Apps) -> None:
    with app() as client:
        assert client.get("/v1/score").headers["allow"] == "POST"


def test_with_a_key_a_clip_is_scored_and_its_request_written_down(app: Apps, clip: bytes, tmp_path: Path) -> None:
    record, key = create_key(tmp_path / "keys.json", "school", now=utc_now())
    with app(AppSettings(keys_file=tmp_path / "keys.json", audit_folder=tmp_path)) as client:
        assert client.post("/v1/score", files={"clip": clip}).status_code == 401
        answer = client.post("/v1/score", files={"clip": ("ada.mp4", clip)}, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
    text = (tmp_path / AUDIT_FILE).read_text()
    refused, scored = (json.loads(line) for line in text.splitlines())
    assert (refused["refusal"], refused["bytes_in"]) == ("key_missing", 0)
    assert (scored["key_id"], scored["status"], scored["route"]) == (record.id, 200, "/v1/score")
    assert scored["bytes_in"] > len(clip)
    assert scored["bytes_out"] == len(answer.content)
    assert "ada" not in text
