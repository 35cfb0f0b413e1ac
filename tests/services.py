"""The services of infra/local/up for tests: a real MLflow server with PostgreSQL and SeaweedFS, without Ray."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent

__all__ = ["processes_of", "run_script", "services", "settings_of", "tracking_server"]


def run_script(name: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """infra/local/NAME FOLDER, with this interpreter's environment, under a umask that hides nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_", "RAY_"))}
    environment |= {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), "RAY": "no", **settings}
    command = [str(ROOT / "infra/local" / name), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False, umask=0o022)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Everything that runs for the services of `folder`: what `up` noted, and their descendants."""
    found: set[psutil.Process] = set()
    for path in (folder / "mlflow.pid", folder / "postgres.pid", folder / "object-store" / "pid"):
        with suppress(OSError, psutil.NoSuchProcess):
            process = psutil.Process(int(path.read_text().split()[0]))
            found |= {process, *process.children(recursive=True)}
    return sorted(found, key=lambda process: process.pid)


def settings_of(folder: Path) -> dict[str, str]:
    """What `. FOLDER/env` sets."""
    return dict(re.findall(r"export (\w+)=(\S+)", (folder / "env").read_text()))


@pytest.fixture(scope="session")
def services() -> Iterator[Path]:
    """The folder of running services. Not below pytest's own, which root's PostgreSQL, another user, could not enter."""
    if not (list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")):
        pytest.skip("needs PostgreSQL, which is not installed here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="rapt-services-"))
    try:
        done = run_script("up", folder)
        assert done.returncode == 0, done.stderr
        yield folder
    finally:
        for process in processes_of(folder):  # killed, for the data are thrown away: SeaweedFS takes ten seconds to stop
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tracking_server(services: Path) -> str:
    """The address of an MLflow server with PostgreSQL for its records and SeaweedFS for its artifacts."""
    return settings_of(services)["MLFLOW_TRACKING_URI"]
