"""Shards of features, without a frame, that several test files train on; a tracking server."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_shards.building.build import build_shards
from data_shards.listing import ENGAGEMENT_LEVELS, NO_LEVEL, ListedClip, Listing
from data_shards.manifest import Manifest
from data_shards.preprocess import PreprocessConfig
from tests.object_server import free_ports


def clip(number: int, split: str, rng: np.random.Generator) -> ListedClip:
    """Noise of OpenFace's scales; the level is in the trend over time of one column in sixty."""
    level = number % 4
    values = rng.normal(size=(15, 60)) * np.logspace(0, 6, 60)
    values[:, 3] = np.linspace(0, (level - 1.5) * 4, 15) + rng.normal(size=15) * 0.2
    labels = {"engagement": NO_LEVEL if number % 13 == 5 else level}
    name = f"{split}-{number}"
    features = {"openface_15": values.astype(np.float32)}
    return ListedClip(clip_id=name, subject=name, split=split, labels=labels, features=features)


@pytest.fixture(scope="session")
def feature_shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    rng = np.random.default_rng(0)
    counts = {"train": 96, "validation": 32, "test": 32}
    clips = tuple(clip(number, split, rng) for split, count in counts.items() for number in range(count))
    listing = Listing(dataset="made up", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=clips)
    folder = tmp_path_factory.mktemp("features")
    return folder, build_shards(listing, folder, preprocess=PreprocessConfig(), num_workers=2)


@pytest.fixture(scope="session")
def tracking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `mlflow server` on loopback with sqlite and a folder of artifacts, which it serves; yields its address."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")),
    ]
    with (folder / "log").open("wb") as log:
        # without its seven processes for jobs that nothing here asks for
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=quiet, start_new_session=True)
        try:
            _wait_until_healthy(f"http://127.0.0.1:{port}/health", server, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # its own session: uvicorn is a process below it
            server.wait()


def _wait_until_healthy(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until_s = time.monotonic() + 180
    while server.poll() is None and time.monotonic() < until_s:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"mlflow server did not start: {log.read_text()[-2000:]}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)
