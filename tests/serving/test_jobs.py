"""Lessons as jobs over HTTP: uploaded whole or in pieces, only their owner's, bounded, and still there after a kill."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi.testclient import TestClient

from data_shards.errors import ClipError, ConfigError, ServiceError
from serving.jobs import runner
from serving.jobs.record import Job, JobLimits, JobRefused, JobStatus
from serving.jobs.runner import JobRunner
from serving.jobs.store import JobStore, claim
from serving.lesson.record import LessonResult
from serving.scoring import LocalScoring, Scoring
from tests.conftest import ROOT
from tests.serving.job_server import job_app
from tests.serving.lesson_scoring import local_scoring
from tests.serving.test_lesson import num_lines

Start = Callable[[], tuple["subprocess.Popen[bytes]", httpx.Client]]


@pytest.fixture(scope="module")
def scoring(tiny_bundle: Path) -> LocalScoring:
    return local_scoring(tiny_bundle)


@pytest.fixture
def client(scoring: LocalScoring, face_model: Path, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(job_app(scoring, tmp_path / "jobs")) as client:
        yield client


@pytest.fixture
def start(tiny_bundle: Path, face_model: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a real server over the same folder, each time anew."""
    running: list[subprocess.Popen[bytes]] = []

    def start() -> tuple["subprocess.Popen[bytes]", httpx.Client]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "tests.serving.job_server", str(tiny_bundle), str(tmp_path / "jobs"), str(port)]
        running.append(subprocess.Popen(command, cwd=ROOT))
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        for _ in range(600):
            try:
                client.get("/v1/jobs")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        return running[-1], client

    yield start
    for process in running:
        process.kill()
        process.wait()


def ended(client: httpx.Client, job_id: str) -> JobStatus:
    for _ in range(1200):
        status = JobStatus.model_validate(client.get(f"/v1/jobs/{job_id}").json())
        if status.state in ("done", "failed"):
            return status
        time.sleep(0.1)
    raise AssertionError(status)


def upload(client: httpx.Client, path: Path) -> httpx.Response:
    return client.post("/v1/jobs", files={"recording": (path.name, path.read_bytes(), "video/mp4")})


def test_a_lesson_is_handed_in_scored_asked_for_and_deleted(client: TestClient, lesson: Path, tmp_path: Path) -> None:
    answer = upload(client, lesson)
    assert answer.status_code == 202
    status = JobStatus.model_validate(answer.json())
    assert (status.state, status.size_bytes, status.uploaded_bytes) == ("queued", lesson.stat().st_size, lesson.stat().st_size)
    early = client.get(f"/v1/jobs/{status.id}/result")
    assert early.status_code == 409
    assert "ask again when its state is 'done'" in early.json()["error"]
    done = ended(client, status.id)
    assert (done.state, done.error, done.done_s) == ("done", "", done.total_s)
    assert done.expires_at is not None
    assert timedelta(hours=23) < done.expires_at - datetime.now(UTC) <= timedelta(hours=24)
    assert sorted(os.listdir(tmp_path / "jobs" / status.id)) == ["job.json", "result.json"]
    result = LessonResult.model_validate(client.get(f"/v1/jobs/{status.id}/result").json())
    assert len(result.people) == 5
    for name, kind in (("result.csv", "text/csv; charset=utf-8"), ("report", "text/html; charset=utf-8")):
        saved = client.get(f"/v1/jobs/{status.id}/{name}")
        assert (saved.headers["content-type"], saved.headers["content-disposition"][:10]) == (kind, "attachment")
        assert "person" in saved.text
    assert client.delete(f"/v1/jobs/{status.id}").status_code == 204
    assert client.get(f"/v1/jobs/{status.id}").status_code == 404
    assert os.listdir(tmp_path / "jobs") == []


def test_only_the_owner_sees_a_lesson(client: TestClient) -> None:
    job_id = client.post("/v1/jobs", json={"size_bytes": 1000}).json()["id"]
    other = {"X-Owner": "bert"}
    assert [job["id"] for job in client.get("/v1/jobs").json()] == [job_id]
    assert client.get("/v1/jobs", headers=other).json() == []
    requests = [("GET", ""), ("GET", "/result"), ("GET", "/result.csv"), ("GET", "/report"), ("DELETE", "")]
    for method, path in requests:
        answer = client.request(method, f"/v1/jobs/{job_id}{path}", headers=other)
        assert answer.status_code == 404
        assert answer.json() == client.get("/v1/jobs/0123").json()  # as for one that never was
    piece = client.patch(f"/v1/jobs/{job_id}/recording", content=b"x", headers={**other, "Upload-Offset": "0"})
    assert piece.status_code == 404


def test_pieces_are_taken_in_order_and_once(client: TestClient, lesson: Path) -> None:
    content = lesson.read_bytes()
    created = client.post("/v1/jobs", json={"size_bytes": len(content)})
    assert (created.status_code, created.json()["state"]) == (201, "uploading")
    path = f"/v1/jobs/{created.json()['id']}"

    def send(offset: int, piece: bytes) -> httpx.Response:
        return client.patch(f"{path}/recording", content=piece, headers={"Upload-Offset": str(offset)})

    assert send(0, content[:1000]).json()["uploaded_bytes"] == 1000
    again = send(0, content[:1000])
    assert (again.status_code, again.json()) == (409, {"error": "1000 bytes are there; send from Upload-Offset 1000 on"})
    beyond = send(1000, content[1000:] + b"x")
    assert beyond.status_code == 413
    at = client.get(path).json()["uploaded_bytes"]
    whole = send(at, content[at:])
    assert (whole.status_code, whole.json()["state"]) == (200, "queued")
    assert send(len(content), b"x").status_code == 409
    assert client.delete(path).status_code == 204


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 422, "say how long the recording is"),
        (b"[]", 422, "say how long the recording is"),
        (b'{"size_bytes": true}', 422, "say how long the recording is"),
        (b'{"size_bytes": 0}', 422, "the recording is empty"),
        (b'{"size_bytes": 99999999999999}', 413, "cut it in parts"),
        (b"[" * 100_000, 422, "say how long the recording is"),
    ],
)
def test_what_is_no_size_is_refused(client: TestClient, content: bytes, status: int, reason: str) -> None:
    answer = client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert reason in answer.json()["error"]


def test_a_form_that_is_none_or_holds_no_video_is_refused_and_leaves_nothing(client: TestClient, tmp_path: Path) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    head = b"--b\r\nContent-Disposition: form-data; name=recording; filename=a\r\n\r\n"
    answers = [
        client.post("/v1/jobs", content=b"x", headers={"Content-Type": "text/plain"}),
        client.post("/v1/jobs", content=b"x", headers=form),
        client.post("/v1/jobs", content=head + b"never ends", headers=form),
        client.post("/v1/jobs", files={"other": b"x"}),
        client.post("/v1/jobs", files={"recording": b""}),
        client.post("/v1/jobs", files={"recording": b"no video"}),
        client.post("/v1/jobs", data={"much": "x" * 50_000}, files={"recording": b"x"}),
        client.post("/v1/jobs", files={"recording": b"OggS\r\nv=0\r\nc=IN IP4 10.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n"}),
    ]
    assert [answer.status_code for answer in answers] == [415, 422, 422, 422, 422, 422, 422, 422]
    assert all(list(answer.json()) == ["error"] for answer in answers)
    assert "not a video container" in answers[5].json()["error"]
    assert "a list of other files or addresses" in answers[7].json()["error"]
    assert os.listdir(tmp_path / "jobs") == []


def test_a_recording_that_cannot_be_used_is_a_failed_lesson(client: TestClient, lesson: Path, tmp_path: Path) -> None:
    (tmp_path / "short.mp4").write_bytes(lesson.read_bytes()[:2000])
    failed = ended(client, upload(client, tmp_path / "short.mp4").json()["id"])
    assert failed.state == "failed"
    assert "damaged" in failed.error
    answer = client.get(f"/v1/jobs/{failed.id}/result")
    assert (answer.status_code, failed.error in answer.json()["error"]) == (409, True)
    assert not (tmp_path / "jobs" / failed.id / "recording").exists()


def test_bounds_are_answers_at_once(scoring: LocalScoring, face_model: Path, tmp_path: Path) -> None:
    limits = JobLimits(max_jobs_per_owner=2, max_waiting=4, max_bytes=1000)
    with TestClient(job_app(scoring, tmp_path / "jobs", limits)) as client:
        answers = [client.post("/v1/jobs", json={"size_bytes": 10}, headers={"X-Owner": owner}) for owner in "aaabbc"]
        assert [answer.status_code for answer in answers] == [201, 201, 429, 201, 201, 503]
        assert [answer.headers.get("Retry-After") for answer in answers] == [None, None, "60", None, None, "60"]
        assert client.post("/v1/jobs", json={"size_bytes": 1001}).status_code == 413
        client.delete(f"/v1/jobs/{answers[0].json()['id']}", headers={"X-Owner": "a"})
        streamed = client.post("/v1/jobs", files={"recording": b"\x00" * 2000}, headers={"X-Owner": "c"})
        assert streamed.status_code == 413
    full = JobLimits(min_free_bytes=1 << 60)
    with TestClient(job_app(scoring, tmp_path / "full", full)) as client:
        answer = client.post("/v1/jobs", json={"size_bytes": 10})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "600")
        assert "the disk has no room" in answer.json()["error"]


def test_what_is_over_is_deleted_when_its_time_is_over(tmp_path: Path) -> None:
    store = JobStore(tmp_path, JobLimits(upload_s=60, keep_results_s=600))
    uploading, failed = store.create("anna", 10), store.create("anna", 10)
    failed = store.end(failed, error="no")
    queued = store.keep(store.create("anna", 10), state="queued")
    now = datetime.now(UTC)
    store.sweep(now + timedelta(seconds=61))
    assert [job.id for job in store.all()] == [failed.id, queued.id]
    store.sweep(now + timedelta(seconds=601))
    assert [job.id for job in store.all()] == [queued.id]
    with pytest.raises(JobRefused, match="no such lesson"):
        store.get(uploading.id, "anna")
    assert os.listdir(tmp_path) == [queued.id]
    assert os.stat(tmp_path / queued.id).st_mode & 0o077 == 0


def test_a_disk_that_takes_no_more_is_a_sentence(client: TestClient, tmp_path: Path) -> None:
    job_id = client.post("/v1/jobs", json={"size_bytes": 5}).json()["id"]
    recording = tmp_path / "jobs" / job_id / "recording"
    recording.unlink()
    recording.symlink_to("/dev/full")
    answer = client.patch(f"/v1/jobs/{job_id}/recording", content=b"12345", headers={"Upload-Offset": "0"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "600")
    assert answer.json()["error"] == "the recording cannot be written (No space left on device); try again later"


def test_one_owner_has_at_most_half_of_the_places(tmp_path: Path) -> None:
    store = JobStore(tmp_path, JobLimits(max_waiting=4))
    mine = [store.create("anna", 10) for _ in range(2)]
    with pytest.raises(JobRefused, match="half of all places"):
        store.create("anna", 10)
    assert store.create("bert", 10).owner == "bert"
    store.end(mine[0], error="no")
    assert store.create("anna", 10).owner == "anna"


def test_a_folder_of_lessons_is_one_endpoints(tmp_path: Path) -> None:
    first = claim(tmp_path / "jobs")
    assert first is not None
    assert claim(tmp_path / "jobs") is None
    os.close(first)
    again = claim(tmp_path / "jobs")
    assert again is not None
    os.close(again)


def test_an_upload_is_kept_while_its_pieces_come(tmp_path: Path) -> None:
    store = JobStore(tmp_path, JobLimits(upload_s=60))
    job = store.create("anna", 10)
    store.keep(job, touched_at=job.touched_at - timedelta(seconds=59))
    assert store.touch(job)
    store.sweep(datetime.now(UTC) + timedelta(seconds=50))
    assert store.all() != []
    store.delete(job)
    assert not store.touch(job)
    assert store.all() == []


def test_an_upload_of_unsaid_length_promises_no_room_to_others(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    os.truncate(store.recording(store.create("anna", 1)), 1 << 40)
    with pytest.raises(JobRefused, match="no room for the recording"):
        store.check_room(shutil.disk_usage(tmp_path).free)


def test_a_folder_that_is_no_job_or_ended_half_is_put_right(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    ended_half = store.create("anna", 10)
    store.keep(ended_half, state="failed", error="no")  # killed before its recording was deleted
    (tmp_path / ("0" * 32)).mkdir()
    (tmp_path / ("0" * 32) / "job.json").write_text("{")
    again = JobStore(tmp_path)
    assert [job.id for job in again.all()] == [ended_half.id]
    assert os.listdir(tmp_path / ended_half.id) == ["job.json"]
    assert os.listdir(tmp_path) == [ended_half.id]


def test_a_running_lesson_that_is_deleted_is_stopped(client: TestClient, lesson: Path, tmp_path: Path) -> None:
    first, second = (upload(client, lesson).json()["id"] for _ in range(2))
    while client.get(f"/v1/jobs/{first}").json()["done_s"] == 0:
        time.sleep(0.02)
    assert client.get(f"/v1/jobs/{second}").json()["state"] == "queued"
    assert client.delete(f"/v1/jobs/{first}").status_code == 204
    assert not (tmp_path / "jobs" / first).exists()
    assert ended(client, second).state == "done"


class Jobs:
    """Lessons that are scored by `score` instead of for real."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, score: Callable[..., Any], **options: Any) -> None:
        monkeypatch.setattr(runner, "score_lesson", score)
        self.runner = JobRunner(JobStore(folder), cast("Scoring", None), wait_s=0.01, **options)
        self.store = self.runner.store

    async def submitted(self) -> Job:
        """A lesson that has been taken up."""
        await self.runner.start()
        job = self.runner.enqueue(self.store.create("anna", 10))
        while self.store.get(job.id, "anna").state == "queued":
            await asyncio.sleep(0.01)
        return job

    async def ended(self, job: Job) -> Job:
        while self.store.get(job.id, "anna").state == "running":
            await asyncio.sleep(0.01)
        return self.store.get(job.id, "anna")


def test_a_deletion_that_is_given_up_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def score(path: Path, scoring: Scoring, folder: Path, **_: object) -> LessonResult:
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.1)  # as ending its child takes
            folder.mkdir(exist_ok=True)
            (folder / "watch.json").touch()
        raise AssertionError("it is ended before")

    async def check() -> None:
        jobs = Jobs(tmp_path, monkeypatch, score)
        deleting = asyncio.ensure_future(jobs.runner.delete(await jobs.submitted()))
        await asyncio.sleep(0.01)
        deleting.cancel()  # the client has left
        await asyncio.sleep(0.3)
        assert (jobs.store.all(), os.listdir(tmp_path)) == ([], [])
        await jobs.runner.close()

    asyncio.run(check())


def test_a_lesson_whose_end_cannot_be_written_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def score(*_: object, **__: object) -> LessonResult:
        raise ClipError("damaged")

    async def check() -> None:
        jobs = Jobs(tmp_path, monkeypatch, score)
        end, full = jobs.store.end, [OSError("the disk is full")]

        def end_when_there_is_room(job: Job, **how: Any) -> Job:
            if full:
                raise full.pop()
            return end(job, **how)

        monkeypatch.setattr(jobs.store, "end", end_when_there_is_room)
        assert (await jobs.ended(await jobs.submitted())).error == "damaged"
        await jobs.runner.close()

    asyncio.run(check())


def test_a_lessons_owner_is_told_of_no_path_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def score(*_: object, **__: object) -> LessonResult:
        raise ConfigError("/home/ada/.rapt/models: no such face model file; name another")

    async def check() -> None:
        jobs = Jobs(tmp_path, monkeypatch, score)
        error = (await jobs.ended(await jobs.submitted())).error
        assert error == "the service could not watch the lesson (ConfigError); tell who runs it, and submit it again"
        await jobs.runner.close()

    asyncio.run(check())


def test_a_lesson_whose_key_was_revoked_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = [ConfigError("the keys cannot be read")]

    async def score(*_: object, **__: object) -> LessonResult:
        raise AssertionError("it is not begun")

    def may_ask(owner: str) -> bool:
        if unknown:
            raise unknown.pop()  # it waits, and is asked for again
        return owner != "anna"

    async def check() -> None:
        jobs = Jobs(tmp_path, monkeypatch, score, may_ask=may_ask)
        job = await jobs.ended(await jobs.submitted())
        assert (job.state, unknown) == ("failed", [])
        assert job.error.startswith("the lesson's API key was revoked or had expired when its turn came")
        assert os.listdir(tmp_path / job.id) == ["job.json"]
        await jobs.runner.close()

    asyncio.run(check())


def test_a_lesson_that_gets_further_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_TRIES", 3)
    got_to_s = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0]

    async def score(*_: object, progress: Callable[[float, float], None], **__: object) -> LessonResult:
        progress(got_to_s.pop(0), 9.0)
        raise ServiceError("the queue is full")

    async def check() -> None:
        jobs = Jobs(tmp_path, monkeypatch, score)
        assert (await jobs.ended(await jobs.submitted())).error == "the queue is full"
        assert got_to_s == []
        await jobs.runner.close()

    asyncio.run(check())


def test_an_upload_that_broke_off_and_a_killed_service_go_on(start: Start, lesson: Path, tmp_path: Path) -> None:
    content = lesson.read_bytes()
    process, client = start()
    job_id = client.post("/v1/jobs", json={"size_bytes": len(content)}).json()["id"]
    path = f"/v1/jobs/{job_id}"

    def breaks_off() -> Iterator[bytes]:
        yield content[: len(content) // 3]
        raise KeyboardInterrupt  # the client is gone in mid-piece

    with pytest.raises(KeyboardInterrupt):
        client.patch(f"{path}/recording", content=breaks_off(), headers={"Upload-Offset": "0"})
    for _ in range(100):  # until the server has seen that the client is gone
        at = client.get(path).json()["uploaded_bytes"]
        assert at <= len(content) // 3
        answer = client.patch(f"{path}/recording", content=content[at:], headers={"Upload-Offset": str(at)})
        if answer.status_code != 409:
            break
        time.sleep(0.05)
    assert answer.json()["state"] == "queued"
    while num_lines(tmp_path / "jobs" / job_id) < 4:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()

    _, client = start()
    assert ended(client, job_id).state == "done"
    result = LessonResult.model_validate(client.get(f"{path}/result").json())
    assert [len(person.windows) for person in result.people] == [7, 9, 7, 9, 2]
    assert sorted(os.listdir(tmp_path / "jobs" / job_id)) == ["job.json", "result.json"]
