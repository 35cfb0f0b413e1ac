"""Fixtures that several test files share. Everything is made below pytest's temporary folders."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_shards.building.build import build_shards
from data_shards.datasets import DATASETS
from data_shards.manifest import Manifest
from data_shards.preprocess import PreprocessConfig
from data_shards.simulation import SimulationSettings, generate
from data_shards.storage.source import Source
from data_shards.worker_pool import one_torch_thread
from tests.fault_proxy import proxy  # noqa: F401  # fixture
from tests.object_server import bucket, object_server  # noqa: F401  # fixtures
from tests.services import services, tracking_server  # noqa: F401  # fixtures
from training.config import RunConfig, with_settings
from training.loop import train
from training.recipes import recipe

# Ray reads it when it is first imported, by whichever test: its processes then listen on loopback (cluster/launch.py)
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ.setdefault("RAY_worker_niceness", "0")  # else its workers wait for the tests of the other processes
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that tests start, as `one_thread` here
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background: what tests start would not hear Ctrl-C either
    signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data"
TINY_PREPROCESS = PreprocessConfig(num_frames=6, size_px=32)
TINY_SETTINGS = (
    "model.widths=[4,8]",
    "model.levels=2",
    "model.hidden=8",
    "model.kernel=3",
    "loop.epochs=1",
    "loop.global_batch=8",
)
# what the longest files take, about, on two idle cores
LONGEST_S = {
    "cluster/test_ray_faults.py": 450,
    "cluster/test_ray.py": 300,
    "cluster/test_jobs.py": 230,
    "test_readme.py": 200,
    "cluster/test_exactness.py": 110,
    "cluster/test_strategies.py": 100,
    "serving/test_service.py": 100,
    "serving/test_lesson.py": 90,
    "data_shards/test_remote_sets.py": 90,
    "cluster/test_command_line.py": 90,
    "test_infra.py": 80,
    "cluster/test_deepspeed_engine.py": 70,
    "data_shards/test_add_features.py": 70,
    "test_multimodal.py": 60,
    "training/test_tracking_faults.py": 60,
    "serving/test_service_lessons.py": 60,
    "serving/test_jobs.py": 50,
    "data_shards/test_shards.py": 40,
    "cluster/test_reproduce.py": 40,
}


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a state folder of its own, and no settings of the person who runs it."""
    monkeypatch.setenv("RAPT_HOME", str(tmp_path / "rapt-home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real clips and label files, which lie beside the checkout and never in it."""
    if not REAL_DATA.is_dir():
        pytest.skip("needs the real clips of ../shared/data, which are not here")
    return REAL_DATA


@pytest.fixture(scope="session")
def simulated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 small simulated clips with labels.csv."""
    folder = tmp_path_factory.mktemp("simulated")
    settings = SimulationSettings(num_clips=64, seed=3, fps=6, width_px=160, height_px=120)
    generate(settings, folder, num_workers=2)
    return folder


@pytest.fixture(scope="session")
def simulated_shards(simulated_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The simulated clips as shards of 6 frames of 32x32, and their manifest."""
    folder = tmp_path_factory.mktemp("shards")
    listing = DATASETS["simulated"](Source(simulated_folder))
    manifest = build_shards(listing, folder, preprocess=TINY_PREPROCESS, clips_per_shard=16, num_workers=2)
    return folder, manifest


@pytest.fixture(scope="session")
def tiny_run() -> RunConfig:
    """The demo's recipe, very small: one epoch takes about a second."""
    return with_settings(recipe("demo"), TINY_SETTINGS)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: RunConfig, simulated_shards: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a really trained, very small model."""
    bundle = train(tiny_run, simulated_shards[0], tmp_path_factory.mktemp("run"), run_id="tiny")
    assert bundle is not None
    return bundle


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then the others with slow tests, so that none of them is left to one worker at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    took_s = {ROOT / "tests" / name: seconds for name, seconds in LONGEST_S.items()}
    items.sort(key=lambda item: (-took_s.get(item.path, 0), item.path not in slow))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Of many small models in several test processes on two cores: more threads would wait for each other, and spin."""
    with one_torch_thread():
        yield
