"""Object storage when the network and the server misbehave: a real S3 server behind a proxy that drops, delays and lies."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from data_shards.errors import ShardError, StorageError
from data_shards.storage.multipart import PART_BYTES
from data_shards.storage.object_client import Connecting
from data_shards.storage.object_storage import S3Store
from tests.conftest import ROOT
from tests.fault_proxy import Fault, FaultProxy, Kind
from tests.object_server import BUCKET, ObjectServer, free_ports

NUM_PARTS = 4
SIZE = NUM_PARTS * PART_BYTES - 12_345
IMPATIENT = Connecting(num_connections=4, num_attempts=3, connect_timeout_s=2.0, read_timeout_s=20.0)


@pytest.fixture
def store(proxy: FaultProxy, bucket: str) -> S3Store:
    """An empty store that is reached through the proxy."""
    return S3Store(bucket, IMPATIENT)


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, str]:
    """A file that goes in parts, and its sha256."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(SIZE))
    return path, sha256_of(path)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unfinished(server: ObjectServer, bucket: str) -> int:
    """How many uploads below the URI are begun and neither joined nor aborted."""
    client = boto3.client("s3", endpoint_url=server.endpoint)
    prefix = bucket.removeprefix(f"s3://{BUCKET}/")
    return len(client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", []))


# --- uploads ---


@pytest.mark.parametrize("size_bytes", [1000, SIZE])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", "PUT", times=2, status=500),
        Fault("status", "PUT", times=2, status=503),
        Fault("drop-upload", "PUT", times=1),
        Fault("lose-answer", "PUT", times=1),
        Fault("corrupt-upload", "PUT", times=1),
        Fault("status", "HEAD", times=1, status=503),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.method}-{fault.status}",
)
def test_an_upload_gets_through(store: S3Store, proxy: FaultProxy, tmp_path: Path, fault: Fault, size_bytes: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size_bytes))
    proxy.faults = [Fault(fault.kind, fault.method, times=fault.times, status=fault.status)]
    store.put(source, "x")
    assert proxy.faults[0].times == 0
    assert store.read("x") == source.read_bytes()


@pytest.mark.parametrize("size_bytes", [1000, SIZE])
@pytest.mark.parametrize("kind", ["status", "drop-upload", "corrupt-upload"])
def test_an_upload_that_fails_for_good_leaves_what_was_there(
    store: S3Store, proxy: FaultProxy, tmp_path: Path, kind: Kind, size_bytes: int
) -> None:
    store.write("x", b"from before")
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size_bytes))
    proxy.faults = [Fault(kind, "PUT")]
    with pytest.raises(StorageError, match=r"3 (attempts|times)"):
        store.put(source, "x")
    proxy.faults = []
    assert store.names() == {"x": 11}
    assert store.read("x") == b"from before"


def test_the_answer_to_the_joining_may_be_lost(
    store: S3Store, proxy: FaultProxy, object_server: ObjectServer, bucket: str, large: tuple[Path, str]
) -> None:
    proxy.faults = [Fault("lose-answer", "POST", "uploadId", times=1)]
    store.put(large[0], "x")
    assert store.names() == {"x": SIZE}
    assert len(proxy.of("PUT")) == NUM_PARTS
    assert unfinished(object_server, bucket) == 0


@pytest.mark.parametrize("size_bytes", [1000, SIZE])
def test_an_etag_that_is_no_md5_means_reading_back(store: S3Store, proxy: FaultProxy, tmp_path: Path, size_bytes: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size_bytes))
    proxy.faults = [Fault("etag", "HEAD")]
    store.put(source, "x")
    assert size_bytes in {request.received_bytes for request in proxy.of("GET")}


def test_what_reads_back_as_something_else_is_taken_away(store: S3Store, proxy: FaultProxy, large: tuple[Path, str]) -> None:
    proxy.faults = [Fault("etag", "HEAD"), Fault("corrupt", "GET", "/x")]
    with pytest.raises(StorageError, match="not what was sent"):
        store.put(large[0], "x")
    proxy.faults = []
    assert store.names() == {}


def test_a_killed_upload_is_continued_and_never_seen(
    store: S3Store, proxy: FaultProxy, object_server: ObjectServer, bucket: str, large: tuple[Path, str]
) -> None:
    proxy.faults = [Fault("delay", "PUT", "partNumber", skip=2, delay_s=300)]
    code = (
        "import sys; from pathlib import Path; from data_shards.storage.store import open_store; "
        "open_store(sys.argv[1]).put(Path(sys.argv[2]), 'x')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, bucket, str(large[0])], cwd=ROOT)
    try:
        wait_for(lambda: len(proxy.of("PUT")) == 2)
        assert store.names() == {}
        with pytest.raises(FileNotFoundError):
            store.read("x")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    proxy.faults = []
    assert unfinished(object_server, bucket) == 1
    before = len(proxy.of("PUT"))
    store.put(large[0], "x")
    again = proxy.of("PUT")[before:]
    assert len(again) == NUM_PARTS - 2
    assert sum(request.sent_bytes for request in proxy.of("PUT")) == SIZE
    assert hashlib.sha256(store.read("x")).hexdigest() == large[1]
    assert unfinished(object_server, bucket) == 0


def test_a_broken_off_upload_of_another_content_is_aborted(
    store: S3Store, proxy: FaultProxy, object_server: ObjectServer, bucket: str, large: tuple[Path, str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(large[0].read_bytes()[:PART_BYTES] + os.urandom(SIZE - PART_BYTES))
    proxy.faults = [Fault("status", "POST", "uploadId")]  # the parts arrive and are not joined
    with pytest.raises(StorageError):
        store.put(other, "x")
    assert unfinished(object_server, bucket) == 1
    proxy.faults = []
    before = len(proxy.of("PUT"))
    store.put(large[0], "x")
    assert len(proxy.of("PUT")) - before == NUM_PARTS
    assert hashlib.sha256(store.read("x")).hexdigest() == large[1]
    assert unfinished(object_server, bucket) == 0


def test_two_writers_of_one_file_end_with_the_file(proxy: FaultProxy, bucket: str, large: tuple[Path, str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(S3Store(bucket, IMPATIENT).put, large[0], "x") for _ in range(2)]:
            done.result()
    assert hashlib.sha256(S3Store(bucket, IMPATIENT).read("x")).hexdigest() == large[1]


# --- downloads ---


@pytest.mark.parametrize("size_bytes", [1000, SIZE])
@pytest.mark.parametrize("given", ["sha256", "nothing"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", times=2, status=500),
        Fault("status", times=2, status=503),
        Fault("drop", times=2),
        Fault("lose-answer", times=1),
        Fault("short", times=2),
        Fault("long", times=2),
        Fault("corrupt", times=1),
        Fault("status", "HEAD", times=2, status=503),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.method}-{fault.status}",
)
def test_a_download_gets_through(
    store: S3Store, proxy: FaultProxy, tmp_path: Path, fault: Fault, given: str, size_bytes: int
) -> None:
    if fault.kind == "corrupt" and size_bytes == SIZE and given == "nothing":
        pytest.skip("parts have no checksum: only the sha256 can tell")
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size_bytes))
    store.put(source, "x")
    proxy.faults = [Fault(fault.kind, fault.method, times=fault.times, status=fault.status)]
    store.fetch("x", tmp_path / "back", sha256=sha256_of(source) if given == "sha256" else None)
    assert proxy.faults[0].times == 0
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("size_bytes", [1000, SIZE])
@pytest.mark.parametrize(
    ("kind", "method"),
    [("status", "GET"), ("drop", "GET"), ("short", "GET"), ("long", "GET"), ("corrupt", "GET"), ("short", "HEAD")],
)
def test_a_download_that_fails_for_good_leaves_nothing(
    store: S3Store, proxy: FaultProxy, tmp_path: Path, kind: Kind, method: str, size_bytes: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size_bytes))
    store.put(source, "x")
    proxy.faults = [Fault(kind, method)]
    with pytest.raises((StorageError, ShardError), match=f"{store.uri}/x: .*; "):
        store.fetch("x", tmp_path / "there" / "back", sha256=sha256_of(source))
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("kind", ["status", "drop", "short", "long", "corrupt"])
def test_a_small_object_is_read_whole_or_not_at_all(store: S3Store, proxy: FaultProxy, kind: Kind) -> None:
    store.write("manifest.json", b"0123456789" * 100)
    proxy.faults = [Fault(kind, times=2)]
    assert store.read("manifest.json") == b"0123456789" * 100
    proxy.faults = [Fault(kind)]
    with pytest.raises(StorageError):
        store.read("manifest.json")


def test_a_broken_download_goes_on_where_it_broke(
    store: S3Store, proxy: FaultProxy, large: tuple[Path, str], tmp_path: Path
) -> None:
    store.put(large[0], "x")
    proxy.faults = [Fault("drop", times=3)]
    store.fetch("x", tmp_path / "back", sha256=large[1])
    assert sum(request.received_bytes for request in proxy.of("GET")) <= SIZE + 3 * (1 << 20)


def test_a_slow_server_is_asked_again(proxy: FaultProxy, bucket: str, tmp_path: Path) -> None:
    hasty = S3Store(bucket, Connecting(num_attempts=3, connect_timeout_s=2.0, read_timeout_s=1.0))
    proxy.faults = [Fault("delay", "PUT", times=1, delay_s=30), Fault("delay", "GET", times=1, delay_s=30)]
    hasty.write("x", b"12345")
    hasty.fetch("x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"12345"
    proxy.faults = [Fault("delay", delay_s=30)]
    with pytest.raises(StorageError, match=r"no usable answer from 127\.0\.0\.1:\d+ \(ReadTimeoutError, 3 attempts\)"):
        hasty.read("x")


def test_an_object_that_is_replaced_midway_is_not_mixed(
    store: S3Store, proxy: FaultProxy, object_server: ObjectServer, bucket: str, large: tuple[Path, str], tmp_path: Path
) -> None:
    store.put(large[0], "x")
    proxy.faults = [Fault("delay", skip=1, delay_s=5)]
    fetching = threading.Thread(target=store.fetch, args=("x", tmp_path / "back"))
    fetching.start()
    wait_for(lambda: len(proxy.of("GET")) == 1)
    new = os.urandom(SIZE)
    key = bucket.removeprefix(f"s3://{BUCKET}/") + "/x"
    boto3.client("s3", endpoint_url=object_server.endpoint).put_object(Bucket=BUCKET, Key=key, Body=new)
    proxy.faults[0].times = 0
    fetching.join()
    assert (tmp_path / "back").read_bytes() == new


def test_connections_are_bounded_over_all_threads(
    proxy: FaultProxy, bucket: str, large: tuple[Path, str], tmp_path: Path
) -> None:
    store = S3Store(bucket, Connecting(num_connections=2))
    store.put(large[0], "x")
    assert proxy.most_open <= 2 + 1
    proxy.most_open = 0
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(store.fetch, "x", tmp_path / str(number)) for number in range(3)]:
            done.result()
    assert proxy.most_open <= 2 + 3  # parts, and what the callers ask themselves


# --- who may, and where ---


def test_wrong_credentials_are_said_without_showing_them(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, large: tuple[Path, str], tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-is-the-secret")
    for call in every_call(store, large[0], tmp_path / "out"):
        with pytest.raises(StorageError, match=r"refused access \(\w+\); check the credentials") as caught:
            call()
        assert "hunter2" not in str(caught.value)
        assert os.environ["AWS_ACCESS_KEY_ID"] not in str(caught.value)


def test_no_credentials_at_all(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"NoCredentialsError\); set AWS_ACCESS_KEY_ID"):
        S3Store(bucket, IMPATIENT).names()


def test_a_missing_bucket(bucket: str, large: tuple[Path, str], tmp_path: Path) -> None:
    for call in every_call(S3Store("s3://no-such-bucket-here/x", IMPATIENT), large[0], tmp_path / "out"):
        with pytest.raises(StorageError, match=r"no such bucket at 127\.0\.0\.1:\d+; make it"):
            call()


def test_nobody_answers(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://me:hunter2@127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(StorageError, match=r"no usable answer from 127\.0\.0\.1:\d+ .*check AWS_ENDPOINT_URL_S3") as caught:
        S3Store(bucket, IMPATIENT).names()
    assert "hunter2" not in str(caught.value)


def test_an_endpoint_that_is_no_address(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "me:hunter2@nowhere")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL_S3 is no address") as caught:
        S3Store(bucket, IMPATIENT).names()
    assert "hunter2" not in str(caught.value)


def test_more_names_than_one_page(store: S3Store, object_server: ObjectServer, bucket: str) -> None:
    client = boto3.client("s3", endpoint_url=object_server.endpoint)
    prefix = bucket.removeprefix(f"s3://{BUCKET}/")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.put_object(Bucket=BUCKET, Key=f"{prefix}/{n:05d} +ü", Body=b""), range(1005)))
    client.put_object(Bucket=BUCKET, Key=f"{prefix}-beside/x", Body=b"")
    assert list(store.names()) == [f"{n:05d} +ü" for n in range(1005)]


def every_call(store: S3Store, source: Path, target: Path) -> list:
    return [
        store.names,
        lambda: store.read("x"),
        lambda: store.fetch("x", target),
        lambda: store.put(source, "x"),
        lambda: store.write("x", b"x"),
    ]


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not happen within a minute"
        time.sleep(0.02)
