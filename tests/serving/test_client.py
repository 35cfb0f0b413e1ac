"""The client, against the real endpoint, and for lessons against a server that keeps the contract and loses connections."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from data_shards.errors import ClipError, ConfigError, ServiceError
from serving import client as client_module
from serving.access.keys import create_key, utc_now
from serving.answer import Answer
from serving.client import Client
from serving.confined.decode_child import DecodeChild
from serving.http.http_api import build_app
from serving.http.settings import AppSettings
from serving.lesson.record import LessonResult
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from tests.cluster.test_command_line import rapt_run
from tests.serving.certificate import make_certificate
from tests.serving.loopback import served


@pytest.fixture(scope="module")
def clip(simulated_folder: Path) -> Path:
    return min((simulated_folder / "clips").iterdir())


@contextmanager
def endpoint(predictor: Predictor, settings: AppSettings | None = None, **options: str) -> Iterator[str]:
    child = DecodeChild(predictor.recipe)
    with served(build_app(LocalScoring(predictor, child), settings), **options) as port:
        yield f"{'https' if options else 'http'}://127.0.0.1:{port}"
    child.close()


def test_a_clip_gets_the_answer_that_it_gets_without_a_server_over_https_and_with_a_key(
    predictor: Predictor, clip: Path, tmp_path: Path
) -> None:
    _, key = create_key(tmp_path / "keys.json", "school", now=utc_now())
    private, certificate = make_certificate(tmp_path)
    settings = AppSettings(keys_file=tmp_path / "keys.json")
    with endpoint(predictor, settings, ssl_keyfile=str(private), ssl_certfile=str(certificate)) as url:
        with Client(url, key, verify=certificate) as client:
            answer = client.score(clip)
            assert isinstance(answer, Answer)
            assert answer.probabilities == predictor.score_file(clip).probabilities
            assert client.model() == predictor.info
        with Client(url, verify=certificate) as stranger, pytest.raises(ServiceError, match="an API key is needed"):
            stranger.score(clip)
        with Client(url, key, tries=1) as distrustful, pytest.raises(ServiceError, match=r"no connection .*certificate"):
            distrustful.score(clip)
        command = ("score", url, clip, "--ca", certificate, "--json")
        scored = rapt_run(*command, RAPT_KEY=key)
        assert json.loads(scored.stdout)["probabilities"] == answer.probabilities
        refused = rapt_run(*command)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "Error: an API key is needed" in refused.stderr


def test_what_is_no_clip_is_named_with_the_endpoints_sentence(predictor: Predictor, clip: Path, tmp_path: Path) -> None:
    junk = tmp_path / "ada.mp4"
    junk.write_bytes(b"junk")
    with endpoint(predictor) as url:
        with Client(url) as client:
            with pytest.raises(ClipError, match="not a video container but text; send a video file"):
                client.score(junk)
            with pytest.raises(ClipError, match=r"absent\.mp4: cannot be read \(No such file"):
                client.score(tmp_path / "absent.mp4")
        scored = rapt_run("score", url, junk, clip)
    assert scored.returncode == 1
    assert "ada.mp4: not a video container but text" in scored.stderr
    assert re.search(r"score [+-]\d\.\d\d", scored.stdout)


@contextmanager
def patient(url: str, **options: Any) -> Iterator[tuple[Client, list[float]]]:
    """A client whose waits are written down and not waited."""
    waits: list[float] = []
    with Client(url, **options) as client:
        client._sleep = waits.append
        yield client, waits


def test_what_passes_is_tried_again_after_what_the_endpoint_says(predictor: Predictor, clip: Path) -> None:
    answers = [(429, {"Retry-After": "7"}), (503, {}), (503, {"Retry-After": "999999"})]
    model = predictor.info.model_dump(mode="json")

    async def busy(request: Request) -> Response:
        status, headers = answers.pop(0) if answers else (200, {})
        return JSONResponse(model if status == 200 else {"error": "over 3 requests a minute"}, status, headers)

    app = Starlette(routes=[Route("/v1/model", busy), Route("/v1/score", busy, methods=["POST"])])
    with served(app) as port, patient(f"http://127.0.0.1:{port}") as (client, waits):
        assert client.model() == predictor.info
        assert (waits[0], waits[2]) == (7.0, 60.0)
        assert 1.0 <= waits[1] <= 2.0
        answers.extend([(429, {"Retry-After": "7"})] * 9)
        with pytest.raises(ServiceError, match="over 3 requests a minute"):
            client.score(clip)
        assert len(answers) == 5  # four tries


def test_who_does_not_answer_is_named() -> None:
    with patient("http://127.0.0.1:9") as (client, waits), pytest.raises(ServiceError, match=r"127\.0\.0\.1:9: no connection"):
        client.model()
    assert len(waits) == 3
    with pytest.raises(ConfigError, match="no address of an endpoint"):
        Client("ftp://x")


def test_another_server_is_told_from_an_endpoint() -> None:
    async def other(request: Request) -> Response:
        return Response("<html>", 200 if request.method == "GET" else 404)

    with served(Starlette(routes=[Route("/v1/model", other)])) as port, Client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ServiceError, match=r"no answer of this version's .*is it a Rapt endpoint"):
            client.model()
        with pytest.raises(ServiceError, match="answered 404 without a reason"):
            client.delete("a")


class LessonServer:
    """The jobs' part of the contract over memory. faults: by number of the piece, what becomes of it."""

    def __init__(self, faults: dict[int, str]) -> None:
        self.faults, self.pieces, self.recording, self.size_bytes = faults, 0, b"", 0
        self.polls = self.asked = 0
        self.app = Starlette(
            routes=[
                Route("/v1/jobs", self.create, methods=["POST"]),
                Route("/v1/jobs/{id}", self.show),
                Route("/v1/jobs/{id}/recording", self.receive, methods=["PATCH"]),
                Route("/v1/jobs/{id}/result", self.result),
            ]
        )

    def status(self) -> dict[str, Any]:
        whole = len(self.recording) == self.size_bytes
        state = "uploading" if not whole else "queued" if self.polls < 3 else "done"
        return {"id": "abc", "state": state, "size_bytes": self.size_bytes, "uploaded_bytes": len(self.recording)}

    async def create(self, request: Request) -> Response:
        self.size_bytes = (await request.json())["size_bytes"]
        return JSONResponse(self.status(), 201)

    async def show(self, request: Request) -> Response:
        self.asked += 1
        self.polls += len(self.recording) == self.size_bytes
        return JSONResponse(self.status())

    async def receive(self, request: Request) -> Response:
        self.pieces += 1
        fault = self.faults.get(self.pieces)
        if int(request.headers["upload-offset"]) != len(self.recording):
            return JSONResponse({"error": "another offset"}, 409)
        if fault == "busy":
            return JSONResponse({"error": "busy"}, 503, {"Retry-After": "2"})
        if fault == "too often":
            return JSONResponse({"error": "over 60 requests a minute"}, 429, {"Retry-After": "1"})
        if fault == "too slow":
            self.recording += (await request.body())[:1000]
            return JSONResponse({"error": "the upload took more than 60 s"}, 408)
        if fault == "half arrives":
            self.recording += (await request.body())[:1000]
            return StreamingResponse(cut())
        self.recording += await request.body()
        if fault == "answer lost":
            return StreamingResponse(cut())
        return JSONResponse(self.status())

    async def result(self, request: Request) -> Response:
        return JSONResponse({"error": "no such lesson"}, 404)


async def cut() -> AsyncIterator[bytes]:
    """The body of an answer that never comes whole: the server closes the connection."""
    yield b"{"
    raise ConnectionError("cut on purpose")


def test_an_upload_goes_on_after_lost_connections_and_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_PIECE_BYTES", 10_000)
    recording = tmp_path / "lesson.mp4"
    recording.write_bytes(bytes(range(256)) * 300)
    lessons = LessonServer({2: "half arrives", 4: "answer lost", 5: "busy"})
    seen: list[tuple[int, int]] = []
    with served(lessons.app) as port, patient(f"http://127.0.0.1:{port}") as (client, waits):
        job = client.submit_lesson(recording, lambda there, whole: seen.append((there, whole)))
        assert job.state == "queued"
        assert lessons.recording == recording.read_bytes()
        assert [there for there, _ in seen] == sorted(there for there, _ in seen)
        assert seen[-1] == (76_800, 76_800)
        assert 2.0 in waits
        assert client.wait(job.id).state == "done"
        with pytest.raises(ServiceError, match="no such lesson"):
            client.result(job.id)


def test_an_upload_over_its_keys_rate_waits_and_asks_for_nothing_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_PIECE_BYTES", 10_000)
    recording = tmp_path / "lesson.mp4"
    recording.write_bytes(b"a" * 25_000)
    lessons = LessonServer({2: "too often", 4: "too often", 5: "too slow"})
    with served(lessons.app) as port, patient(f"http://127.0.0.1:{port}") as (client, waits):
        assert client.submit_lesson(recording).state == "queued"
    assert lessons.recording == recording.read_bytes()
    assert (waits, lessons.asked) == ([1.0, 1.0], 1)  # what it asked was how much of the slow piece is there


def test_an_upload_that_another_run_began_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_PIECE_BYTES", 10_000)
    recording = tmp_path / "lesson.mp4"
    recording.write_bytes(b"a" * 25_000)
    lessons = LessonServer({})
    lessons.size_bytes, lessons.recording = 25_000, b"a" * 12_345
    with served(lessons.app) as port, patient(f"http://127.0.0.1:{port}") as (client, _):
        assert client.submit_lesson(recording, job_id="abc").state == "queued"
        assert (lessons.recording, lessons.pieces) == (recording.read_bytes(), 2)
        recording.write_bytes(b"b" * 99)
        with pytest.raises(ClipError, match=r"lesson\.mp4: 99 bytes, but lesson abc began with 25000"):
            client.submit_lesson(recording, job_id="abc")


def test_an_upload_that_gets_nowhere_is_given_up(tmp_path: Path) -> None:
    recording = tmp_path / "lesson.mp4"
    recording.write_bytes(b"a" * 100)
    lessons = LessonServer(dict.fromkeys(range(1, 100), "busy"))
    with served(lessons.app) as port, patient(f"http://127.0.0.1:{port}") as (client, _):
        with pytest.raises(ServiceError, match="lesson abc takes no more of its recording; go on with it later"):
            client.submit_lesson(recording)
        assert lessons.pieces == 4
        with pytest.raises(ConfigError, match="no lesson's id"):
            client.job("../keys")


def test_a_lessons_result_is_read_whole(predictor: Predictor) -> None:
    result = LessonResult(
        duration_s=60.0,
        width_px=640,
        height_px=360,
        window_s=10.0,
        people=(),
        class_timeline=(),
        level_shares=(0.0, 0.0, 0.0, 0.0),
        moments=(),
        took_s=1.0,
        model=predictor.info,
    )

    async def of(request: Request) -> Response:
        return Response(result.to_bytes(), media_type="application/json")

    with served(Starlette(routes=[Route("/v1/jobs/a/result", of)])) as port, Client(f"http://127.0.0.1:{port}") as client:
        assert client.result("a") == result
