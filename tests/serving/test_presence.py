"""Clients that leave, come slowly or come when it is full, over real sockets."""

import json
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from serving.access.audit_log import AUDIT_FILE
from serving.confined.decode_child import DecodeChild
from serving.http.http_api import build_app
from serving.http.settings import AppSettings
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from tests.serving.certificate import make_certificate
from tests.serving.loopback import served


def post_bytes(clip: bytes) -> bytes:
    """A whole request for a clip's score."""
    body = b"--x\r\nContent-Disposition: form-data; name=clip; filename=c\r\n\r\n" + clip + b"\r\n--x--\r\n"
    kind = "Content-Type: multipart/form-data; boundary=x"
    return f"POST /v1/score HTTP/1.1\r\nHost: t\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def waiting(port: int) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("rapt_clips_waiting")).split()[1])


def until(is_so: Callable[[], bool]) -> None:
    """Wait until it is so; the test's own time limit is the end of patience."""
    while not is_so():
        time.sleep(0.02)


def statuses(folder: Path) -> list[int]:
    lines = [json.loads(line) for line in (folder / AUDIT_FILE).read_text().splitlines()]
    return [line["status"] for line in lines if line["route"] == "/v1/score"]


def test_a_client_that_leaves_gives_its_place_back_whether_it_waited_or_was_decoded(
    predictor: Predictor, child: DecodeChild, clip: bytes, tmp_path: Path
) -> None:
    settings = AppSettings(max_clips_waiting=2, audit_folder=tmp_path)
    with served(build_app(LocalScoring(predictor, child, grace_s=60.0), settings)) as port:
        with child._lock:  # the child is at another clip, and stays at it
            sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
            for each in sockets:
                each.sendall(post_bytes(clip))
            until(lambda: waiting(port) == 2)
            full = httpx.post(f"http://127.0.0.1:{port}/v1/score", files={"clip": clip})
            assert (full.status_code, full.headers["retry-after"]) == (503, "5")
            for each in sockets:
                each.close()
            until(lambda: waiting(port) == 0)
            assert sorted(statuses(tmp_path)) == [499, 499, 503]
        assert httpx.post(f"http://127.0.0.1:{port}/v1/score", files={"clip": clip}, timeout=60).status_code == 200


def test_a_decoding_that_nobody_waits_for_is_ended_after_its_grace(
    predictor: Predictor, clip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = DecodeChild(predictor.recipe)
    killed: list[int] = []
    kill = child.kill
    monkeypatch.setattr(child, "kill", lambda: (killed.append(1), kill()))
    settings = AppSettings(audit_folder=tmp_path)
    with served(build_app(LocalScoring(predictor, child, grace_s=0.0), settings)) as port:
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            leaving.sendall(post_bytes(clip))
            until(lambda: waiting(port) == 1)  # while the child starts, which takes longer than to look
        until(lambda: bool(killed))
        # whatever the child was at when it ended, the next clips get their answers from a new one
        until(lambda: httpx.post(f"http://127.0.0.1:{port}/v1/score", files={"clip": clip}, timeout=60).status_code == 200)
    child.close()
    assert statuses(tmp_path)[0] == 499


def test_an_upload_that_finds_no_room_is_refused_before_it_is_sent(predictor: Predictor, child: DecodeChild) -> None:
    with served(build_app(LocalScoring(predictor, child), AppSettings(max_clips_waiting=0))) as port:
        with socket.create_connection(("127.0.0.1", port)) as sending:
            sending.sendall(post_bytes(b"x" * 50_000_000)[:1000])
            assert sending.recv(65536).startswith(b"HTTP/1.1 503")
        whole = httpx.post(f"http://127.0.0.1:{port}/v1/score", files={"clip": b"x" * 5_000_000})
        assert whole.status_code == 503


def test_slow_uploads_keep_nobody_from_being_scored_and_are_given_up(
    predictor: Predictor, child: DecodeChild, clip: bytes, tmp_path: Path
) -> None:
    settings = AppSettings(max_clips_waiting=1, upload_s=1.0, audit_folder=tmp_path)
    with served(build_app(LocalScoring(predictor, child), settings)) as port:
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        for each in slow:
            each.sendall(post_bytes(clip)[:300])
        assert httpx.post(f"http://127.0.0.1:{port}/v1/score", files={"clip": clip}, timeout=60).status_code == 200
        for each in slow:
            answer = each.recv(65536)
            assert answer.startswith(b"HTTP/1.1 408")
            each.close()
    assert sorted(statuses(tmp_path)) == [200, *[408] * 8]


def test_too_many_uploads_at_once_are_refused(predictor: Predictor, child: DecodeChild, clip: bytes) -> None:
    with served(build_app(LocalScoring(predictor, child), AppSettings(max_uploads=1))) as port:
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(post_bytes(clip)[:300])
            until(lambda: "rapt_uploads_receiving 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text)
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/score", files={"clip": clip})
        assert answer.status_code == 503
        assert answer.json()["error"] == "1 uploads are under way already; try again in a few seconds"


def test_a_body_that_comes_at_its_rate_may_take_longer(predictor: Predictor, child: DecodeChild, clip: bytes) -> None:
    settings = AppSettings(upload_s=0.2, min_upload_kib_per_s=1)
    request = post_bytes(clip)
    with (
        served(build_app(LocalScoring(predictor, child), settings)) as port,
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        half = len(request) // 2  # some tens of KiB, worth as many seconds
        slow.sendall(request[:half])
        time.sleep(0.6)
        slow.sendall(request[half:])
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")


def test_over_https_an_answer_asks_to_stay_there(predictor: Predictor, child: DecodeChild, tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    with served(build_app(LocalScoring(predictor, child)), ssl_keyfile=str(key), ssl_certfile=str(certificate)) as port:
        trusted = ssl.create_default_context(cafile=str(certificate))
        answer = httpx.get(f"https://127.0.0.1:{port}/healthz", verify=trusted)
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
