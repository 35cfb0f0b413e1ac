"""The HTTP contract, over a real predictor and a real decode child, without Ray."""

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from data_shards.errors import ClipError, ModelError
from data_shards.extraction.clip_sample import ClipRecipe
from data_shards.preprocess import PreprocessConfig
from serving.confined.decode_child import LONGEST_S, DecodeChild
from serving.http import http_api
from serving.http.guards import BodyLimit
from serving.http.http_api import build_app
from serving.http.settings import AppSettings
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from tests.serving.endpoint import endpoint


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with endpoint(predictor) as client:
        yield client


@pytest.fixture(scope="module")
def clip(simulated_folder: Path) -> Path:
    return sorted((simulated_folder / "clips").iterdir())[0]


def post(client: TestClient, content: bytes, name: str = "clip.mp4"):  # type: ignore[no-untyped-def]
    return client.post("/v1/score", files={"clip": (name, content, "video/mp4")})


def test_a_clip_is_scored_as_without_a_server(client: TestClient, predictor: Predictor, clip: Path) -> None:
    answer = post(client, clip.read_bytes())
    assert answer.status_code == 200
    alone = predictor.score_file(clip).model_dump(mode="json")
    content = answer.json()
    for record in (content, alone):
        record.pop("timings")
    assert content == alone


def test_the_real_daisee_clip_is_scored(client: TestClient, real_data: Path) -> None:
    answer = post(client, (real_data / "videos" / "5100462069.avi").read_bytes())
    assert answer.status_code == 200
    assert answer.json()["duration_s"] == pytest.approx(10.0)


def test_the_model_and_its_limits_can_be_asked_for(client: TestClient) -> None:
    model = client.get("/v1/model").json()
    assert model["levels"] == ["very low", "low", "high", "very high"]
    assert "No emotion is inferred" in model["limits"]
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json()["status"] == "ready"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the upload is empty"),
        (b"not a video at all", "not a video container"),
        (b"#EXTM3U\nfile:///etc/passwd", "not a video container"),
        (b"\x00\x00\x00\x20ftypisom" + b"\x00" * 500, "damaged"),
        (b"PK\x03\x04" + b"\x00" * 500, "not a video container"),
    ],
)
def test_what_is_no_clip_gets_a_reason(client: TestClient, content: bytes, reason: str) -> None:
    answer = post(client, content)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]


def test_a_clip_cut_short_gets_a_reason_and_the_next_is_scored(client: TestClient, clip: Path) -> None:
    content = clip.read_bytes()
    for share in (0.2, 0.5, 0.95):
        assert post(client, content[: int(len(content) * share)]).status_code == 422
    assert post(client, content).status_code == 200


def test_the_shared_damaged_clip_gets_a_reason(client: TestClient, real_data: Path) -> None:
    answer = post(client, (real_data / "videos" / "corrupted.mp4").read_bytes())
    assert answer.status_code == 422
    assert "damaged" in answer.json()["error"]


def test_a_missing_form_field_is_refused(client: TestClient) -> None:
    for answer in (client.post("/v1/score", files={"other": b"x"}), client.post("/v1/score")):
        assert answer.status_code == 422
        assert "form field 'clip'" in answer.json()["error"]


def test_too_much_is_refused_by_its_declared_and_by_its_real_length(predictor: Predictor) -> None:
    child = DecodeChild(predictor.recipe)
    with TestClient(build_app(LocalScoring(predictor, child), AppSettings(max_upload_mib=1))) as small:
        declared = post(small, b"\x00" * 2_000_000)
        # without a Content-Length the bytes are counted as they come
        body = b"--x\r\nContent-Disposition: form-data; name=clip; filename=a\r\n\r\n" + b"\x00" * 2_000_000 + b"\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        streamed = small.post("/v1/score", content=iter([body[:5000], body[5000:]]), headers=headers)
        nonsense = small.post("/v1/score", content=b"", headers={"Content-Length": "-5"})
    child.close()
    assert [answer.status_code for answer in (declared, streamed, nonsense)] == [413, 413, 413]
    assert {answer.json()["error"] for answer in (declared, streamed)} == {
        "the upload is over 1 MiB, the most that is taken here; send less at once"
    }


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b.mp4", "x" * 3000, "\u202egp4.exe", "nul\x00l.mp4"])
def test_an_uploads_name_means_nothing(client: TestClient, clip: Path, name: str) -> None:
    assert post(client, clip.read_bytes(), name=name).status_code == 200


def test_errors_are_problems_with_the_security_headers(client: TestClient) -> None:
    answers = [client.get("/nothing"), client.get("/v1/score"), post(client, b"junk"), client.get("/page/x.js")]
    assert [answer.status_code for answer in answers] == [404, 405, 422, 404]
    for answer in answers:
        assert list(answer.json()) == ["error"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_error_nobody_foresaw_is_a_problem_too(predictor: Predictor, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "_score", lambda *_: 1 / 0)
    with TestClient(build_app(LocalScoring(predictor, DecodeChild(predictor.recipe))), raise_server_exceptions=False) as client:
        answer = post(client, clip.read_bytes())
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "an error that was not foreseen (ZeroDivisionError); try again, or tell who runs the service"
    }
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_too_many_waiting_clips_are_refused_at_once(predictor: Predictor, clip: Path) -> None:
    scoring = LocalScoring(predictor, DecodeChild(predictor.recipe))
    with TestClient(build_app(scoring, AppSettings(max_clips_waiting=0))) as full:
        answer = post(full, clip.read_bytes())
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert full.get("/healthz").status_code == 200


def test_a_client_that_sends_slowly_is_given_up(predictor: Predictor) -> None:
    guarded = BodyLimit(build_app(LocalScoring(predictor, DecodeChild(predictor.recipe))), max_bytes=1 << 20, max_s=0.2)
    sent: list[Message] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/score",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", b"5000")],
    }

    async def receive() -> Message:
        if not sent and not getattr(receive, "begun", False):
            receive.begun = True  # type: ignore[attr-defined]
            return {"type": "http.request", "body": b"--x", "more_body": True}
        await anyio.sleep(30)
        raise AssertionError("nobody waits so long")

    async def send(message: Message) -> None:
        sent.append(message)

    anyio.run(guarded, scope, receive, send)
    assert sent[0]["status"] == 408
    assert b"took more than" in sent[1]["body"]


def test_nothing_uploaded_is_left_on_disk(client: TestClient, clip: Path) -> None:
    def left() -> set[str]:
        return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(("rapt-upload-", "rapt-decode-"))}

    before = left()
    post(client, clip.read_bytes())
    post(client, b"junk")
    assert left() == before


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for asset in ("/page/page.js", "/page/page.css"):
        assert asset in page.text
        assert client.get(asset).status_code == 200
    for text in (page.text, client.get("/page/page.js").text, client.get("/page/page.css").text):
        assert "http://" not in text
        assert "https://" not in text
    assert client.get("/page/../http_api.py").status_code == 404
    assert client.get("/page/index.html").status_code == 404


def test_the_page_takes_a_transcript_where_the_model_reads_speech_and_says_what_is_lacking(client: TestClient) -> None:
    page, script = client.get("/").text, client.get("/page/clip.js").text
    assert '<label for="transcript">' in page
    assert 'form.append("transcript", words)' in script
    assert 'reads.includes("speech")' in script
    assert "answer.lacking" in script


def test_a_clip_has_longer_where_it_goes_through_extractors_and_the_request_outlasts_that() -> None:
    frames = DecodeChild(ClipRecipe(PreprocessConfig()))
    whole = DecodeChild(ClipRecipe(None, {"acoustics": {"extractor": "acoustics"}}))
    assert frames._timeout_s < whole._timeout_s <= LONGEST_S / 2


def test_a_child_that_cannot_load_what_it_needs_is_an_error_each_time(clip: Path) -> None:
    child = DecodeChild(ClipRecipe(None, {"acoustics": {"extractor": "no such thing"}}))
    for _ in range(2):
        with pytest.raises(ModelError, match="which this Rapt does not have"):
            child.sample_of(clip)
    child.close()


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What the service's own logger is told, whatever a test before has made of the root's handlers and its level."""
    log, handler = logging.getLogger("rapt.serving"), _Lines()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    yield handler.lines
    log.setLevel(level)
    log.removeHandler(handler)


def test_what_its_operator_has_to_mend_is_for_the_log_alone(predictor: Predictor, clip: Path, log_lines: list[str]) -> None:
    child = DecodeChild(ClipRecipe(None, {"acoustics": {"extractor": "no such thing"}}))
    with TestClient(build_app(LocalScoring(predictor, child))) as client:
        answer = post(client, clip.read_bytes())
    child.close()
    assert answer.status_code == 500
    assert answer.json() == {"error": "the model cannot answer; tell who runs the service, whose log says why"}
    (line,) = log_lines
    assert line.startswith(f"request {answer.headers['x-request-id']}: ")
    assert "which this Rapt does not have" in line


def test_the_openapi_description_names_every_route(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/score", "/v1/explain", "/v1/model", "/healthz", "/readyz", "/metrics"}


def test_a_clip_that_takes_too_long_is_given_up_and_the_child_comes_back(clip: Path, tmp_path: Path) -> None:
    child = DecodeChild(ClipRecipe(PreprocessConfig(num_frames=4, size_px=32)), timeout_s=0.001)
    with pytest.raises(ClipError, match=r"took more than 0 s, the longest that a clip may take here; send a shorter one"):
        child.sample_of(clip)
    child._timeout_s = 1.0  # in which no process starts and imports a decoder: that is not on the clip's account
    assert len(child.sample_of(clip).sample.meta.frame_times_s) == 4
    child.close()
