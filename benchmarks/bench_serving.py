"""The endpoint against the predictor in one process, which is `rapt score`, and against the same work behind bare uvicorn.

Clients and server share this machine's cores. 10 s clips in turn, as many at a time as are asked; p50 and p95 of a clip, and
clips a second. Aims: p50 within 20 ms of the predictor's, throughput within 0.9 of it. Each is warmed up for --warm-s before,
so that the endpoint has as many decoders as it wants: it adds one after ten seconds of load. Then dynamic batching: a scorer
without HTTP and without decoding, given many clips at a time, in batches of 8 and one by one.

    python -m benchmarks.bench_serving [--clips 40] [--rounds 3] [--warm-s 40] [--at 1,4,16] [--frames 32] [--size 64]
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from rich.table import Table

from benchmarks.bundles import random_bundle
from benchmarks.clips import benchmark_clips
from benchmarks.measure import console, machine, save
from data_shards.extraction.clip_sample import clip_sample
from data_shards.preprocess import PreprocessConfig
from serving.predictor import Predictor
from serving.replicas.endpoint_settings import EndpointSettings
from serving.replicas.score_replica import ScoreReplica
from serving.scoring import Deadline
from serving.service import start_service
from tests.serving.ray_serve import ray_for_endpoint
from training.recipes import recipe
from training.registry import RegisteredModel

PORT, BARE_PORT = 8931, 8932
REFUSED_PAUSE_S = 0.05
Ask = Callable[[Path], int]  # scores a clip; how many times it was refused before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=40, help="clips a round, at each concurrency")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-s", type=float, default=40)
    parser.add_argument("--at", default="1,4,16", help="how many clips at a time")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    wanted = parser.parse_args()
    what, listed = benchmark_clips()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as name, contextlib.ExitStack() as opened:
        paths = [opened.enter_context(clip.video.local()) for clip in listed if clip.video]
        small = random_bundle(
            Path(name) / "small", recipe("demo"), PreprocessConfig(num_frames=wanted.frames, size_px=wanted.size)
        )
        with servers(small) as asks:
            results = []
            for at in map(int, wanted.at.split(",")):
                for ask in asks.values():
                    _warm_up(ask, paths, at, wanted.warm_s)
                results.append(_compare(asks, paths, what, at, wanted.clips, wanted.rounds))
        bundle = random_bundle(Path(name) / "large", recipe("resnet_tcn"), PreprocessConfig(num_frames=8, size_px=112))
        results.append(_batching(bundle, paths[0], wanted.rounds))
    save("serving", results)


@contextlib.contextmanager
def servers(bundle: Path) -> Iterator[dict[str, Ask]]:
    """The endpoint, the bare app and the predictor, each as what scores one clip. Those that are not asked are idle."""
    registered = RegisteredModel(name="benchmark", version="", folder=bundle)
    predictor = Predictor(registered)

    def alone(path: Path) -> int:
        predictor.score_file(path)
        return 0

    bare = subprocess.Popen([sys.executable, "-m", "benchmarks.bare_app", str(bundle), str(BARE_PORT)])
    try:
        with ray_for_endpoint(num_cpus=max(4, os.cpu_count() or 1)):
            settings = EndpointSettings(model=str(bundle))
            url = start_service(registered, host="127.0.0.1", port=PORT, settings=settings)
            yield {
                "predictor": alone,
                "bare uvicorn": _poster(f"http://127.0.0.1:{BARE_PORT}"),
                "endpoint": _poster(url),
            }
    finally:
        bare.terminate()


def _poster(url: str) -> Ask:
    clients = threading.local()  # one connection a thread, as a client that stays has

    def ask(path: Path) -> int:
        if not hasattr(clients, "http"):
            clients.http = httpx.Client(base_url=url, timeout=300)
        for refused in itertools.count():
            with contextlib.suppress(httpx.ConnectError):  # the bare app is still starting
                answer = clients.http.post("/v1/score", files={"clip": (path.name, path.read_bytes())})
                if answer.status_code not in (429, 503):
                    answer.raise_for_status()
                    return refused
            time.sleep(REFUSED_PAUSE_S)
        raise AssertionError

    return ask


def _warm_up(ask: Ask, paths: list[Path], at: int, warm_s: float) -> None:
    end_s = time.monotonic() + warm_s
    with ThreadPoolExecutor(at) as pool:
        while time.monotonic() < end_s:
            list(pool.map(ask, (paths[place % len(paths)] for place in range(at))))


def _compare(asks: dict[str, Ask], paths: list[Path], what: str, at: int, num_clips: int, rounds: int) -> dict[str, object]:
    """All three in turn, `at` clips at a time."""
    times_s: dict[str, list[list[float]]] = {name: [] for name in asks}
    rates: dict[str, list[float]] = {name: [] for name in asks}
    refused = dict.fromkeys(asks, 0)
    clips = [paths[place % len(paths)] for place in range(num_clips)]
    for _ in range(rounds):
        for name, ask in asks.items():
            begun_s = time.perf_counter()
            with ThreadPoolExecutor(at) as pool:
                found = list(pool.map(lambda path, ask=ask: _timed(ask, path), clips))
            rates[name].append(len(clips) / (time.perf_counter() - begun_s))
            times_s[name].append([took_s for took_s, _ in found])
            refused[name] += sum(times for _, times in found)
    p50_ms = {name: [1000 * float(np.percentile(each, 50)) for each in times_s[name]] for name in asks}
    p95_ms = {name: [1000 * float(np.percentile(each, 95)) for each in times_s[name]] for name in asks}
    title = f"{at} clips at a time; {what}"
    table = Table(
        title=title, caption=f"medians of {rounds} rounds of {num_clips} clips in turn; clients and server on {machine()}"
    )
    for heading in ("", "p50 ms", "p95 ms", "clips/s", "p50 over the predictor", "throughput / predictor", "refused"):
        table.add_column(heading, justify="right" if heading else "left")
    summary: dict[str, object] = {"title": title, "concurrency": at, "p50_ms": p50_ms, "p95_ms": p95_ms, "clips_per_s": rates}
    for name in asks:
        over = statistics.median(ours - alone for ours, alone in zip(p50_ms[name], p50_ms["predictor"], strict=True))
        ratio = statistics.median(ours / alone for ours, alone in zip(rates[name], rates["predictor"], strict=True))
        medians = [statistics.median(each[name]) for each in (p50_ms, p95_ms, rates)]
        cells = (f"{medians[0]:.0f}", f"{medians[1]:.0f}", f"{medians[2]:.1f}", f"{over:+.0f} ms", f"{ratio:.2f}")
        table.add_row(name, *cells, str(refused[name]), style="bold" if name == "endpoint" else None)
        summary |= {f"{name}: p50 over the predictor, ms": over, f"{name}: throughput ratio": ratio}
    console.print(table)
    return {**summary, "refused": refused}


def _timed(ask: Ask, path: Path) -> tuple[float, int]:
    begun_s = time.perf_counter()
    refused = ask(path)
    return time.perf_counter() - begun_s, refused


def _batching(bundle: Path, clip: Path, rounds: int) -> dict[str, object]:
    """A scorer with 16 clips waiting, in batches of 8 and one by one, in turn."""
    registered = RegisteredModel(name="benchmark", version="", folder=bundle)
    sample = clip_sample(clip, Predictor(registered).recipe)
    rates: dict[int, list[float]] = {8: [], 1: []}

    async def score(replica: ScoreReplica) -> None:
        await asyncio.gather(*(replica.score(sample, registered, Deadline.within(600)) for _ in range(16)))

    replicas = {size: ScoreReplica(EndpointSettings(model=str(bundle), batch_size=size)) for size in rates}
    for number in range(rounds + 1):
        for size, replica in replicas.items():
            begun_s = time.perf_counter()
            asyncio.run(score(replica))
            if number:
                rates[size].append(16 / (time.perf_counter() - begun_s))
    gain = statistics.median(together / single for together, single in zip(rates[8], rates[1], strict=True))
    title = "dynamic batching, ResNet+TCN as published on 8 frames of 112x112, 16 clips waiting"
    table = Table(title=title, caption=f"medians of {rounds} rounds in turn; {machine()}")
    for heading in ("", "clips/s"):
        table.add_column(heading, justify="right" if heading else "left")
    for size, values in rates.items():
        table.add_row(f"batches of {size}", f"{statistics.median(values):.1f}")
    table.add_row("gain", f"{gain:.2f}", style="bold")
    console.print(table)
    return {"title": title, "clips_per_s": {str(size): values for size, values in rates.items()}, "gain": gain}


if __name__ == "__main__":
    main()
