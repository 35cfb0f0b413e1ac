"""The face model's file: named, or fetched once over real HTTP from a server on loopback, whole and checked or not at all."""

import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_shards.errors import ConfigError
from data_shards.face_model import FACE_MODEL_SHA256, face_model_path, fetch_face_model

CONTENT = b"a model of a face" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Publisher:
    """Serves `content` to whoever asks; says that it is `too_long` bytes longer than it is."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.too_long = 0
        self.asked: list[str] = []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked.append(self.path)
                if self.path != "/face_landmarker.task":
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(publisher.content) + publisher.too_long))
                self.end_headers()
                self.wfile.write(publisher.content)

            def log_message(self, *arguments: object) -> None:
                """Nothing on the terminal."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/face_landmarker.task"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.server.shutdown()
    publisher.server.server_close()


@pytest.fixture
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPT_FACE_LANDMARKER", raising=False)


def test_a_file_arrives_whole(publisher: Publisher, tmp_path: Path) -> None:
    path = tmp_path / "models" / "face_landmarker.task"
    fetch_face_model(path, url=publisher.url, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["face_landmarker.task"]


@pytest.mark.usefixtures("unnamed")
def test_the_published_model_is_fetched_once_below_rapts_state(publisher: Publisher, real_data: Path, tmp_path: Path) -> None:
    publisher.content = (real_data / "models" / "face_landmarker.task").read_bytes()
    path = face_model_path(None, url=publisher.url)
    assert path == tmp_path / "rapt-home" / "models" / "face_landmarker.task"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == FACE_MODEL_SHA256
    assert face_model_path(None, url=publisher.url) == path
    assert len(publisher.asked) == 1
    path.write_bytes(path.read_bytes()[:-1])  # damaged since: fetched again, not used
    face_model_path(None, url=publisher.url)
    assert len(publisher.asked) == 2
    assert hashlib.sha256(path.read_bytes()).hexdigest() == FACE_MODEL_SHA256


def test_a_named_file_is_taken_and_nobody_is_asked(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "another.task"
    model.write_bytes(b"another model")
    monkeypatch.setenv("RAPT_FACE_LANDMARKER", str(model))
    assert face_model_path(None, url=publisher.url) == model
    option = Path(shutil.copy(model, tmp_path / "option.task"))
    assert face_model_path(str(option), url=publisher.url) == option
    with pytest.raises(ConfigError, match=r"none\.task: no such face model"):
        face_model_path(tmp_path / "none.task", url=publisher.url)
    assert publisher.asked == []


@pytest.mark.parametrize(
    ("content", "too_long", "sentence"),
    [
        (CONTENT[:-1] + b"?", 0, r"17,000 bytes of another sha256 \(.*\) than the published model's .*; nothing was kept"),
        (b"<html>log in to this network</html>", 0, "35 bytes of another sha256"),
        (CONTENT, 500, r"cannot be fetched from http://127.* to .*face_landmarker.task \(peer closed connection"),
        (bytes(17 * 2**20), 0, "more than the 16,777,216 bytes of a face model"),
    ],
    ids=["one byte", "a captive portal", "cut short", "too large"],
)
def test_what_is_not_the_model_is_not_kept(
    publisher: Publisher, tmp_path: Path, content: bytes, too_long: int, sentence: str
) -> None:
    publisher.content, publisher.too_long = content, too_long
    path = tmp_path / "models" / "face_landmarker.task"
    with pytest.raises(ConfigError, match=sentence) as raised:
        fetch_face_model(path, url=publisher.url, sha256=SHA256)
    assert "set RAPT_FACE_LANDMARKER" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(path.parent.iterdir()) == []


@pytest.mark.usefixtures("unnamed")
def test_without_the_publisher_the_sentence_names_the_variable(publisher: Publisher) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/face_landmarker.task"
        with pytest.raises(ConfigError, match=r"cannot be fetched from .* \(.*refused.*\); set RAPT_FACE_LANDMARKER"):
            face_model_path(None, url=url)
    with pytest.raises(ConfigError, match=r"\(Client error '404"):
        face_model_path(None, url=publisher.url.replace(".task", ".gone"))


def test_a_folder_that_cannot_be_written_is_one_sentence(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"cannot be fetched .* \(.*exists.*\); set RAPT_FACE_LANDMARKER"):
        fetch_face_model(tmp_path / "models" / "face_landmarker.task", url=publisher.url, sha256=SHA256)
