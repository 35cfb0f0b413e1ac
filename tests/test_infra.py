"""What `infra/` offers, run as a person runs it."""

import os
import re
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from data_shards.store import open_store
from tests.conftest import ROOT

LOOPBACK = ("127.0.0.1", "::1")


def free_base_port() -> int:
    """P with P to P + 2, and those plus 10000, free."""
    for base in range(20100, 29000, 7):
        try:
            for port in (base, base + 1, base + 2, base + 3, base + 10000, base + 10001, base + 10002, base + 10003):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE  # where nobody asks for its exit status


@pytest.mark.slow
def test_the_object_store_starts_on_loopback_keeps_its_data_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, base = tmp_path / "store", free_base_port()
    environment = {**os.environ, "BASE_PORT": str(base), "S3_PORT": str(base + 3)}

    def call(action: str) -> str:
        command = [str(ROOT / "infra/local/object-store"), action, str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    assert f"S3 at http://127.0.0.1:{base + 3}, bucket rapt" in call("start")
    process = psutil.Process(int((folder / "pid").read_text()))
    try:
        assert oct((folder / "env").stat().st_mode & 0o777) == "0o600"
        listening = {c.laddr.ip for c in process.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}
        assert listening <= set(LOOPBACK)
        for name, value in re.findall(r"export (\w+)=(\S+)", (folder / "env").read_text()):
            monkeypatch.setenv(name, value)
        open_store("s3://rapt/kept").write("a.txt", b"still here")
        call("stop")
        assert has_ended(process)
        call("start")
        process = psutil.Process(int((folder / "pid").read_text()))
        assert open_store("s3://rapt/kept").read("a.txt") == b"still here"
        call("stop")
    finally:
        if not has_ended(process):
            process.kill()


def test_the_object_store_says_how_it_is_called() -> None:
    done = subprocess.run([str(ROOT / "infra/local/object-store")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "infra/local/object-store start" in done.stdout
