"""The structure that the design promises, read from the code: who imports what, and what must never be there."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from data_shards.manifest import Manifest
from tests.conftest import LONGEST_S, ROOT, TINY_SETTINGS

PACKAGES = ("data_shards", "training", "serving", "cluster")
# one third-party system, one importing module
IMPORTERS = {
    "decord": {"data_shards/decode.py"},
    "mediapipe": {"data_shards/face_landmarks.py"},
    "boto3": {"data_shards/storage/object_client.py"},
    "botocore": {"data_shards/storage/object_client.py"},
    "webdataset": {"data_shards/building/shard_writer.py"},
    "mlflow": {
        "training/lineage.py",
        "training/registry.py",
        "training/tracking/client.py",
        "training/tracking/delivery.py",
        "training/tracking/model_files.py",
        "training/tracking/registration.py",
        "training/tracking/system_metrics.py",
    },
    "psutil": {"cluster/local_cluster.py"},
    "sklearn": {"training/reproduction/regressors.py"},
    "threadpoolctl": {"training/reproduction/regressors.py"},
    "imagehash": {"data_shards/audit/frame_hash.py"},
    "jinja2": {"data_shards/browse/page.py", "serving/report/page.py"},
    "parselmouth": {"data_shards/extraction/acoustics.py"},
    "cv2": {"data_shards/extraction/flow.py"},
    "transformers": {"data_shards/extraction/hugging_face.py"},
    "prometheus_client": {"serving/http/metrics.py"},
    "httpx": {"cluster/demo.py", "cluster/local_cluster.py", "data_shards/face_model.py", "serving/client.py"},
    "fastapi": {"serving/http/http_api.py", "serving/jobs/routes.py"},
    "python_multipart": {"serving/jobs/multipart.py"},
    "captum": {"serving/gradcam.py"},
    "deepspeed": {"cluster/deepspeed_engine.py"},
    "ray": {
        "cluster/jobs.py",
        "cluster/launch.py",
        "cluster/ray_build.py",
        "cluster/ray_failures.py",
        "cluster/ray_link.py",
        "cluster/ray_run.py",
        "cluster/ray_worker.py",
        # Ray Serve: what is deployed, how it is called, what Serve opens, and start and stop
        "serving/replicas/deployments.py",
        "serving/replicas/handle_scoring.py",
        "serving/replicas/replica_port.py",
        "serving/service.py",
    },
    "grpc": {"cluster/ray_address.py"},
    "torchvision": set(),
    "torchaudio": set(),
    "pickle": set(),
}


@cache
def parsed(path: Path) -> ast.Module:
    """Parsed once, for all tests of the code."""
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Top-level names of everything that a file imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return frozenset(found)


@pytest.mark.parametrize("system", IMPORTERS)
def test_a_system_is_imported_where_it_belongs(system: str) -> None:
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert {path.relative_to(ROOT).as_posix() for path in modules if system in imports_of(path)} == IMPORTERS[system]


ABSENT_ON_A_BARE_GPU_MACHINE = (
    "ray", "mlflow", "decord", "av", "webdataset", "boto3", "mediapipe", "cv2", "deepspeed", "transformers", "kornia",
    "imagehash", "fastapi", "prometheus_client", "httpx", "parselmouth", "threadpoolctl", "click", "rich", "matplotlib", "captum",
)  # fmt: skip


def test_training_and_reading_run_without_everything_else(simulated_shards: tuple[Path, Manifest], tmp_path: Path) -> None:
    program = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT_ON_A_BARE_GPU_MACHINE}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from pathlib import Path
from training.config import with_settings
from training.loop import train
from training.recipes import recipe
import data_shards.building.verify
import training.reproduction.tables
run = with_settings(recipe("demo"), {TINY_SETTINGS})
print(train(run, {str(simulated_shards[0])!r}, Path({str(tmp_path)!r}), run_id="bare", stop_after_step=2))
assert not {{"sklearn", "scipy"}} & set(sys.modules)  # torch asks whether they are there, so they cannot be taken away
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_the_test_files_that_are_begun_first_exist() -> None:
    assert [name for name in LONGEST_S if not (ROOT / "tests" / name).is_file()] == []


def test_no_large_file_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if name]
    assert [name for name in names if (ROOT / name).exists() and (ROOT / name).stat().st_size > 1_000_000] == []
