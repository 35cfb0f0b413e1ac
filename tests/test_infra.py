"""What `infra/` offers, run as a person runs it."""

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import psycopg2
import pytest
from mlflow.entities import Metric

from data_shards.errors import StorageError
from data_shards.storage.store import open_store
from tests.conftest import ROOT
from tests.services import processes_of, run_script, settings_of
from training.tracking import mlflow_client

LOOPBACK = ("127.0.0.1", "::1")


def free_base_port() -> int:
    """P with P to P + 4, and those plus 10000, free."""
    for base in range(20100, 29000, 7):
        try:
            for port in (*range(base, base + 5), *range(base + 10000, base + 10005)):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE  # where nobody asks for its exit status


def object_store(action: str, folder: Path, *, base: int, s3_port: int, umask: int = -1) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BASE_PORT": str(base), "S3_PORT": str(s3_port)}
    command = [str(ROOT / "infra/local/object-store"), action, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, umask=umask)


@contextmanager
def running_object_store(folder: Path, *, base: int, s3_port: int) -> Iterator[psutil.Process]:
    """Started by the script, under a umask that hides nothing, and stopped by it."""
    done = object_store("start", folder, base=base, s3_port=s3_port, umask=0o022)
    assert f"S3 at http://127.0.0.1:{s3_port}, bucket rapt" in done.stdout, done.stderr
    process = psutil.Process(int((folder / "pid").read_text()))
    try:
        yield process
        assert object_store("stop", folder, base=base, s3_port=s3_port).returncode == 0
        until_s = time.monotonic() + 20
        while not has_ended(process):  # killed, but the system is not done with it
            assert time.monotonic() < until_s
            time.sleep(0.05)
    finally:
        if not has_ended(process):
            process.kill()


def read_patiently(uri: str, name: str) -> bytes:
    """A store that was killed looks through its volumes for a while before it reads from them again."""
    until_s = time.monotonic() + 120
    while True:
        try:
            return open_store(uri).read(name)
        except StorageError:
            if time.monotonic() > until_s:
                raise


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What `. FOLDER/env` sets, set here."""
    settings = dict(re.findall(r"export (\w+)=(\S+)", (folder / "env").read_text()))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.mark.slow
def test_the_object_store_starts_on_loopback_keeps_its_data_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, base = tmp_path / "store", free_base_port()
    with running_object_store(folder, base=base, s3_port=base + 3) as process:
        listening = {c.laddr.ip for c in process.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}
        assert listening <= set(LOOPBACK)
        first = use(folder, monkeypatch)
        open_store("s3://rapt/kept").write("a.txt", b"still here")
    with running_object_store(folder, base=base, s3_port=base + 4):  # its keys stay, its address is the new one
        assert use(folder, monkeypatch) == {**first, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{base + 4}"}
        assert read_patiently("s3://rapt/kept", "a.txt") == b"still here"


@pytest.mark.slow
def test_without_the_key_nobody_reads_or_deletes_what_the_object_store_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, base = tmp_path / "store", free_base_port()
    (folder / "data").mkdir(parents=True, mode=0o755)
    master, volume, filer, s3 = (f"http://127.0.0.1:{base + offset}" for offset in range(4))
    with running_object_store(folder, base=base, s3_port=base + 3) as process:
        use(folder, monkeypatch)
        open_store("s3://rapt/faces").write("a.txt", b"a face")
        for url in (f"{filer}/buckets/rapt/faces/a.txt", f"{s3}/rapt/faces/a.txt", f"{volume}/1,0100000000"):
            assert {httpx.request(method, url).status_code for method in ("GET", "DELETE")} <= {401, 403, 404}, url
        assert httpx.get(f"{volume}/1,0100000000").status_code == 401
        for path in ("dir/assign", "dir/lookup?volumeId=1&read=yes", "vol/vacuum", "col/delete?collection=rapt"):
            assert httpx.post(f"{master}/{path}").status_code == 404, path
        stranger = ssl.create_default_context()
        stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
        for port in range(base + 10000, base + 10004):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
                pytest.raises(ssl.SSLError, match=r"certificate.required"),
                stranger.wrap_socket(plain) as connection,
            ):
                connection.recv(1)
        sockets = {Path(c.laddr) for c in process.net_connections(kind="unix") if c.status == psutil.CONN_NONE and c.laddr}
        assert sockets
        private = [*sockets, *folder.iterdir()]
        assert [path for path in private if path.stat().st_mode & 0o077] == []
        assert open_store("s3://rapt/faces").read("a.txt") == b"a face"


def test_the_object_store_leaves_a_process_alone_that_got_its_number(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (tmp_path / "pid").write_text(f"{stranger.pid}\n")
        done = object_store("stop", tmp_path, base=20100, s3_port=20103)
        assert (done.returncode, done.stderr) == (1, "object-store: does not run\n")
        assert stranger.poll() is None


@pytest.mark.parametrize("offset", [3, 10003])
def test_an_object_store_on_a_taken_port_writes_nothing(tmp_path: Path, offset: int) -> None:
    base = free_base_port()
    with socket.create_server(("127.0.0.1", base + offset)):
        done = object_store("start", tmp_path / "store", base=base, s3_port=base + 3)
    assert done.returncode == 1
    assert f"port {base + offset} is taken; set S3_PORT or BASE_PORT" in done.stderr
    assert not (tmp_path / "store").exists()


def test_the_object_store_says_how_it_is_called() -> None:
    done = subprocess.run([str(ROOT / "infra/local/object-store")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "infra/local/object-store start" in done.stdout


@pytest.mark.slow
def test_a_run_lies_in_postgresql_and_seaweedfs_and_is_there_after_down_and_up(
    services: Path, tracking_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mlflow_client(tracking_server)
    run_id = client.create_run(client.create_experiment("services")).info.run_id
    client.log_batch(run_id, metrics=[Metric("loss", 0.5, 1, 1), Metric("loss", 0.25, 2, 2)])
    (tmp_path / "card.txt").write_text("what came out")
    client.log_artifact(run_id, str(tmp_path / "card.txt"))
    for name, value in settings_of(services).items():
        monkeypatch.setenv(name, value)
    place = client.get_run(run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    assert open_store(f"s3://rapt/mlflow/{place}").read("card.txt") == b"what came out"
    assert metrics_in_postgresql(services, run_id) == [("loss", 0.5, 1), ("loss", 0.25, 2)]

    first = processes_of(services)
    theirs = {process.pid for process in first}  # PostgreSQL's short helpers among them may have ended
    listening = [c.laddr for c in psutil.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN and c.pid in theirs]
    assert {ip for ip, _ in listening} == {"127.0.0.1"}
    assert len({port for _, port in listening}) == 10  # MLflow, PostgreSQL, and SeaweedFS's four with their four
    assert [path.name for path in services.iterdir() if path.is_file() and path.stat().st_mode & 0o077] == []
    password = (services / "postgres-password").read_text()
    assert password not in subprocess.run(["ps", "-ww", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert httpx.get(f"{tracking_server}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"}).status_code == 403
    noted = {path: path.read_text() for path in (services / "mlflow.pid", services / "postgres.pid")}
    again = run_script("up", services)
    assert (again.returncode, {path: path.read_text() for path in noted}) == (0, noted), again.stderr

    done = run_script("down", services)
    assert (done.returncode, done.stdout.count(" stopped")) == (0, 3), done.stderr
    assert [process for process in first if not has_ended(process)] == []
    done = run_script("up", services)
    assert done.returncode == 0, done.stderr
    assert settings_of(services)["MLFLOW_TRACKING_URI"] == tracking_server
    assert [(m.value, m.step) for m in client.get_metric_history(run_id, "loss")] == [(0.5, 1), (0.25, 2)]
    assert Path(client.download_artifacts(run_id, "card.txt", str(tmp_path))).read_text() == "what came out"


def metrics_in_postgresql(services: Path, run_id: str) -> list[tuple[str, float, int]]:
    port = re.search(r"POSTGRES_PORT=(\d+)", (services / "ports").read_text())
    assert port
    account = {"user": "rapt", "password": (services / "postgres-password").read_text(), "dbname": "mlflow"}
    with closing(psycopg2.connect(host="127.0.0.1", port=port[1], **account)) as database, database.cursor() as cursor:
        cursor.execute("select key, value, step from metrics where run_uuid = %s order by step", (run_id,))
        return cursor.fetchall()


def test_down_leaves_a_process_alone_that_got_a_number_of_the_services(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        for name in ("mlflow", "postgres"):
            (tmp_path / f"{name}.pid").write_text(f"{stranger.pid} 1\n")
        done = run_script("down", tmp_path)
        assert (done.returncode, done.stdout.count("does not run")) == (0, 3), done.stderr
        assert stranger.poll() is None


@pytest.mark.parametrize(("name", "said"), [("up", "infra/local/up [FOLDER]"), ("down", "infra/local/down [FOLDER]")])
def test_up_and_down_say_how_they_are_called(name: str, said: str) -> None:
    done = run_script(name, Path("--help"))
    assert done.returncode == 2
    assert said in done.stdout


def test_up_says_which_package_is_missing(tmp_path: Path) -> None:
    done = run_script("up", tmp_path / "services", POSTGRES_BIN=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("up: no PostgreSQL here; apt-get install postgresql")
    assert not (tmp_path / "services").exists()
