"""The endpoint on real Ray Serve, over HTTPS, with an alias that moves and a challenger in shadow.

One Ray instance and one endpoint for the whole file; the last test takes it down.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

from data_shards.errors import ServiceError
from serving.predictor import Predictor
from serving.replicas.endpoint_settings import EndpointSettings, TlsFiles
from serving.scoring import Deadline
from serving.service import drain_service, service_state, start_service, stop_service
from tests.object_server import free_ports
from tests.serving.certificate import make_certificate
from tests.serving.ray_serve import ray_for_endpoint
from tests.serving.versions import holds, register_version
from training.registry import resolve
from training.tracking.client import experiment_id, mlflow_client

pytestmark = pytest.mark.slow
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


class Endpoint(NamedTuple):
    """A running endpoint: its address, a certificate to trust, its registry, two good versions and a damaged one."""

    url: str
    certificate: Path
    uri: str
    versions: tuple[str, str]
    damaged: str
    settings: EndpointSettings

    def client(self) -> httpx.Client:
        import ssl

        trusted = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(base_url=self.url, verify=trusted, timeout=120)

    def score(self, clip: Path) -> httpx.Response:
        with self.client() as client:
            return client.post("/v1/score", files={"clip": (clip.name, clip.read_bytes())})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    key, certificate = make_certificate(tmp_path_factory.mktemp("tls"))
    return TlsFiles(certificate, key)


@pytest.fixture(scope="module")
def endpoint(tiny_bundle: Path, certificate: TlsFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    versions = (
        register_version(uri, tiny_bundle, folder, "one", seed=1),
        register_version(uri, tiny_bundle, folder, "two", seed=2),
    )
    damaged = register_version(uri, tiny_bundle, folder, "damaged", seed=3, damaged=True)
    holds(uri, "champion", versions[0])
    holds(uri, "challenger", versions[1])
    settings = EndpointSettings(
        model="models:/engagement@champion",
        tracking_uri=uri,
        watch_s=0.3,
        challenger="models:/engagement@challenger",
        shadow_share=1.0,
        shadow_every_s=1.0,
        drain_s=20.0,
    )
    with ray_for_endpoint():
        registered = resolve(settings.model, uri)
        port = free_ports(1)[0]
        url = start_service(registered, host="127.0.0.1", port=port, settings=settings, tls=certificate)
        yield Endpoint(url, certificate.certificate, uri, versions, damaged, settings)


@pytest.fixture(scope="module")
def clips(simulated_folder: Path) -> list[Path]:
    return sorted((simulated_folder / "clips").iterdir())[:4]


@pytest.fixture(scope="module")
def expected(endpoint: Endpoint, clips: list[Path]) -> dict[tuple[str, str], dict[str, float]]:
    """(version, clip) to the probabilities that this version's own predictor gives here."""
    found = {}
    for version in endpoint.versions:
        predictor = Predictor(resolve(f"models:/engagement/{version}", endpoint.uri))
        for clip in clips:
            found[version, clip.name] = predictor.score_file(clip).model_dump()["probabilities"]
    return found


def until(condition: object, *, seconds: float = 180.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end_s, "it did not come to pass"
        time.sleep(0.05)


def replicas(deployment: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if title.startswith("ray::ServeRepl") and deployment in title:
                found.append(process)
    return found


def test_a_clip_is_scored_over_https_and_nothing_listens_beyond_loopback(
    endpoint: Endpoint, clips: list[Path], expected: dict[tuple[str, str], dict[str, float]]
) -> None:
    answer = endpoint.score(clips[0])
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["model"]["version"] == endpoint.versions[0]
    assert content["probabilities"] == pytest.approx(expected[endpoint.versions[0], clips[0].name], abs=2e-6)
    with pytest.raises(httpx.HTTPError):
        httpx.get(endpoint.url.replace("https", "http") + "/healthz", timeout=10)
    beyond = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            for each in process.net_connections(kind="tcp"):
                if each.status == psutil.CONN_LISTEN and each.laddr.ip not in LOOPBACK:
                    beyond.add((process.name(), each.laddr))
    assert beyond == set()


class Stream:
    """Requests one after another from several threads for as long as the block lasts, each answer with when it was asked."""

    def __init__(self, endpoint: Endpoint, clips: list[Path], *, threads: int = 2) -> None:
        self._endpoint, self._clips = endpoint, clips
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(threads)]
        self.answers: list[tuple[str, int, dict[str, object]]] = []

    def __enter__(self) -> "Stream":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        with self._endpoint.client() as client:
            while not self._stop.is_set():
                clip = self._clips[number % len(self._clips)]
                number += 1
                answer = client.post("/v1/score", files={"clip": (clip.name, clip.read_bytes())})
                self.answers.append((clip.name, answer.status_code, answer.json()))


def test_an_alias_moves_back_and_forth_under_requests_and_none_fails(
    endpoint: Endpoint, clips: list[Path], expected: dict[tuple[str, str], dict[str, float]]
) -> None:
    one, two = endpoint.versions
    seen = []
    with Stream(endpoint, clips) as stream:
        for version in (two, one, two, one):
            before = len(stream.answers)
            until(lambda before=before: len(stream.answers) > before + 2)  # some are answered by each version
            holds(endpoint.uri, "champion", version)
            until(lambda version=version: service_state().model == f"models:/engagement/{version}")
            seen.append(len(stream.answers))
        last = len(stream.answers)
        until(lambda: len(stream.answers) > last + 4)
    assert {status for _, status, _ in stream.answers} == {200}
    answered_by = [content["model"]["version"] for _, _, content in stream.answers]  # type: ignore[index]
    assert set(answered_by) == {one, two}
    assert set(answered_by[last + 2 :]) == {one}, "a request that began after the swap gets the new version"
    for name, _, content in stream.answers:
        version = content["model"]["version"]  # type: ignore[index]
        assert content["probabilities"] == pytest.approx(expected[version, name], abs=2e-6), "an answer is one version's own"


def test_a_version_that_cannot_be_loaded_is_told_and_the_old_one_goes_on(endpoint: Endpoint, clips: list[Path]) -> None:
    def is_warned() -> bool:
        with endpoint.client() as client:
            ready = client.get("/readyz")
        assert ready.status_code == 200
        assert "models:/" not in ready.text, "anybody may ask"
        return "warning" in ready.json()

    holds(endpoint.uri, "champion", endpoint.damaged)
    until(is_warned)
    warning = service_state().warning
    assert "cannot be read" in warning
    assert f"models:/engagement/{endpoint.damaged} cannot answer" in warning
    assert f"models:/engagement/{endpoint.versions[0]} goes on" in warning
    assert endpoint.score(clips[0]).json()["model"]["version"] == endpoint.versions[0]
    holds(endpoint.uri, "champion", endpoint.versions[0])
    until(lambda: not is_warned())


def test_replicas_die_and_no_request_fails_or_hangs(endpoint: Endpoint, clips: list[Path]) -> None:
    with Stream(endpoint, clips) as stream:
        until(lambda: len(stream.answers) > 2)
        victims = [*replicas("decoders"), *replicas("scorers")]
        assert len(victims) >= 2
        for victim in victims:
            victim.kill()
        killed = len(stream.answers)
        until(lambda: len(stream.answers) > killed + 4)
    assert {status for _, status, _ in stream.answers} == {200}, [content for _, code, content in stream.answers if code != 200]


def test_what_a_full_queue_does_not_hold_is_refused_at_once_and_the_rest_decoded(endpoint: Endpoint, clips: list[Path]) -> None:
    from ray import serve

    from serving.replicas.handle_scoring import HandleScoring

    scoring = HandleScoring(
        serve.get_deployment_handle("decoders", "rapt"), serve.get_deployment_handle("scorers", "rapt"), endpoint.settings
    )
    clip = clips[0].read_bytes()

    async def ask(number: int, deadline: Deadline) -> str:
        begun_s = time.monotonic()
        try:
            await scoring.decode(clip, None, scoring.current(), deadline)
        except ServiceError as error:
            return f"{error} {'at once' if time.monotonic() - begun_s < 2 else 'late'}"
        return "decoded"

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(ask(number, Deadline.within(100)) for number in range(60)))

    scoring.take(resolve("models:/engagement@champion", endpoint.uri))
    outcomes = asyncio.run(all_at_once())
    refused = {outcome for outcome in outcomes if outcome != "decoded"}
    assert refused == {"too many clips to decode are waiting already; try again in a few seconds at once"}
    assert outcomes.count("decoded") >= 16
    assert "time is over" in asyncio.run(ask(0, Deadline.within(0.001)))


def test_clips_of_clients_that_left_are_never_scored(endpoint: Endpoint, clips: list[Path], real_data: Path) -> None:
    from ray import serve

    def num_scored() -> int:
        sizes = serve.get_deployment_handle("scorers", "rapt").batch_sizes.remote().result()
        return sum(size * times for size, times in sizes.items())

    before = num_scored()
    long = real_data / "videos" / "crowd_1080p.mp4"
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda _: leave_early(endpoint, long), range(6))) == ["left"] * 6
    for clip in clips:
        assert endpoint.score(clip).status_code == 200
    assert num_scored() - before < len(clips) + 6, "what was not yet decoded has left the queue"


def leave_early(endpoint: Endpoint, clip: Path) -> str:
    with endpoint.client() as client:
        try:
            client.post("/v1/score", files={"clip": (clip.name, clip.read_bytes())}, timeout=httpx.Timeout(60, read=0.3))
        except httpx.ReadTimeout:
            return "left"
    return "answered"


def test_the_endpoint_drains_and_the_shadow_is_in_mlflow(endpoint: Endpoint, clips: list[Path], real_data: Path) -> None:
    for _ in range(2):
        for clip in clips:
            assert endpoint.score(clip).status_code == 200
            time.sleep(0.2)  # the shadow takes one at a time, and drops what comes meanwhile
    with ThreadPoolExecutor(2) as pool, endpoint.client() as client:
        under_way = [pool.submit(endpoint.score, real_data / "videos" / "crowd_1080p.mp4") for _ in range(2)]  # seconds each
        until(lambda: "rapt_clips_waiting 2.0" in client.get("/metrics").text)
        stopping = drain_service(endpoint.settings)
        assert [each.result().status_code for each in under_way] == [200, 200]
    with endpoint.client() as client:
        assert client.get("/readyz").status_code == 503
        refused = endpoint.score(clips[0])
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert "is stopping" in refused.json()["error"]
        assert client.get("/healthz").status_code == 200
    assert stopping.num_left == 0
    one, two = (f"engagement/{version}" for version in endpoint.versions)
    assert f"{two} in shadow of {one}: " in stopping.summary
    stop_service()
    client = mlflow_client(endpoint.uri)
    runs = client.search_runs([experiment_id(client, endpoint.uri)], filter_string="tags.recipe = 'shadow'")
    (run,) = [run for run in runs if run.data.tags["champion"] == one]
    assert run.data.tags["challenger"] == two
    assert run.info.status == "FINISHED"
    figures = run.data.metrics
    assert figures["shadow_clips"] >= 3
    assert figures["shadow_clips"] + figures["shadow_dropped"] >= 8
    assert figures["shadow_failed"] == 0
    assert 0 <= figures["shadow_level_agreement"] <= 1
    assert 0 < figures["shadow_score_mae"] <= 2
    assert figures["shadow_challenger_p50_ms"] > 0
