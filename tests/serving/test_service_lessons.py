"""Lessons at the endpoint on real Ray Serve: a large class through the bounded queues, and one that is broken off by a drain."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.lesson_recording import Scene, grid, longer, write_gallery
from data_shards.face_model import FACE_MODEL_VARIABLE
from serving.jobs.record import Job
from serving.replicas.endpoint_settings import EndpointSettings
from serving.service import drain_service, start_service
from tests.object_server import free_ports
from tests.serving.ray_serve import ray_for_endpoint
from training.registry import RegisteredModel

pytestmark = pytest.mark.slow
SIZE = (1280, 720)
NUM_PEOPLE = 20  # more than the scorers' queue holds


@pytest.fixture(scope="module")
def settings(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> EndpointSettings:
    return EndpointSettings(model=str(tiny_bundle), jobs_folder=tmp_path_factory.mktemp("jobs"), drain_s=60.0)


@pytest.fixture(scope="module")
def client(settings: EndpointSettings, real_data: Path) -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FACE_MODEL_VARIABLE, str(real_data / "models" / "face_landmarker.task"))
        with ray_for_endpoint():
            bundle = RegisteredModel(name="tiny", version="", folder=Path(settings.model))
            url = start_service(bundle, host="127.0.0.1", port=free_ports(1)[0], settings=settings)
            with httpx.Client(base_url=url, timeout=120) as client:
                yield client


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenes = (Scene(0, 10, grid(list(range(NUM_PEOPLE)), 5, SIZE)),)
    return write_gallery(tmp_path_factory.mktemp("large") / "lesson.mp4", scenes, size=SIZE, fps=6)


def handed_in(client: httpx.Client, path: Path) -> str:
    answer = client.post("/v1/jobs", files={"recording": (path.name, path.read_bytes())})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def until_state(client: httpx.Client, job_id: str, *states: str, done_s: float = 0.0) -> dict[str, object]:
    """Until it is in one of the states, and as far as done_s."""
    for _ in range(1200):
        status: dict[str, object] = client.get(f"/v1/jobs/{job_id}").json()
        if status["state"] in states and float(str(status["done_s"])) >= done_s:
            return status
        time.sleep(0.1)
    raise AssertionError(status)


def test_a_large_class_goes_through_the_scorers_queue(client: httpx.Client, lesson: Path) -> None:
    begun_s = time.monotonic()
    job_id = handed_in(client, lesson)
    assert until_state(client, job_id, "done", "failed")["state"] == "done"
    (window,) = client.get(f"/v1/jobs/{job_id}/result").json()["class_timeline"]
    assert window["num_scored"] == NUM_PEOPLE
    assert time.monotonic() - begun_s < 60, "a refusal on the way would be waited out"


def test_a_drain_does_not_wait_for_a_lesson_and_the_next_start_goes_on_with_it(
    client: httpx.Client, lesson: Path, settings: EndpointSettings, tmp_path: Path
) -> None:
    job_id = handed_in(client, longer(lesson, tmp_path / "longer.mp4", 30))
    until_state(client, job_id, "running", done_s=0.1)  # it is being watched
    begun_s = time.monotonic()
    assert drain_service(settings).num_left == 0
    assert time.monotonic() - begun_s < 20
    assert settings.jobs_folder is not None
    job = Job.from_bytes((settings.jobs_folder / job_id / "job.json").read_bytes(), origin="job.json")
    assert job.state == "running"
