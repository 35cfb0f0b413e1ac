"""The endpoint under load for a long time: does it leak, lose or double an answer, or refuse in any other way than it should?

First as many clients as it has places for clips (its capacity), then three times as many, each asking again as soon as it is
answered. An answer is right where it is the predictor's own; a refusal is proper where it is 429 or 503 with Retry-After and a
sentence. Memory is the resident set of all processes of the endpoint, every --every-s; its slope is fitted over the second half
of each phase. Clients and server share this machine's cores.

    python -m benchmarks.soak [--minutes 10] [--every-s 5]
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from rich.table import Table

from benchmarks.bench_serving import random_bundle
from benchmarks.clips import benchmark_clips
from benchmarks.measure import console, machine, save
from cluster.launch import connect_ray, disconnect_ray
from data_shards.preprocess import PreprocessConfig
from serving.http.settings import AppSettings
from serving.predictor import Predictor
from serving.replicas.endpoint_settings import EndpointSettings
from serving.service import start_service, stop_service
from training.recipes import recipe
from training.registry import RegisteredModel

PORT = 8933
PAUSE_S = 0.2  # after a refusal: less than Retry-After asks for, so that the load stays
CAPACITY = AppSettings().max_clips_waiting


@dataclass
class Phase:
    """What was counted: statuses of answers, those that were wrong, refusals that were not proper, ids that came twice."""

    clients: int
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    improper: int = 0
    asked: int = 0
    ids: Counter[str] = field(default_factory=Counter)
    times_s: list[float] = field(default_factory=list)
    memory_mib: list[tuple[float, float]] = field(default_factory=list)

    @property
    def slope_mib_per_hour(self) -> float:
        """Of the memory over the second half of the phase."""
        half = self.memory_mib[len(self.memory_mib) // 2 :]
        times_s, mib = (np.array(values) for values in zip(*half, strict=True))
        return float(np.polyfit(times_s, mib, 1)[0] * 3600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of each of the two phases")
    parser.add_argument("--every-s", type=float, default=5)
    wanted = parser.parse_args()
    what, listed = benchmark_clips()
    with tempfile.TemporaryDirectory(prefix="rapt-soak-") as name, contextlib.ExitStack() as opened:
        paths = [opened.enter_context(clip.video.local()) for clip in listed if clip.video]
        bundle = random_bundle(Path(name) / "bundle", recipe("demo"), PreprocessConfig(num_frames=32, size_px=64))
        registered = RegisteredModel(name="soak", version="", folder=bundle)
        predictor = Predictor(registered)
        expected = [(path.read_bytes(), predictor.score_file(path).model_dump(mode="json")) for path in paths]
        connect_ray(None, num_cpus=max(4, os.cpu_count() or 1))
        try:
            url = start_service(registered, host="127.0.0.1", port=PORT, settings=EndpointSettings(model=str(bundle)))
            phases = [
                asyncio.run(_load(url, expected, clients, wanted.minutes * 60, wanted.every_s))
                for clients in (CAPACITY, 3 * CAPACITY)
            ]
            stop_service()
        finally:
            disconnect_ray()
    _print(phases, what, wanted.minutes)
    save("soak", [_record(phase) for phase in phases])


async def _load(
    url: str, expected: Sequence[tuple[bytes, dict[str, object]]], clients: int, length_s: float, every_s: float
) -> Phase:
    phase, end_s = Phase(clients), time.monotonic() + length_s
    watching = asyncio.create_task(_watch(phase, end_s, every_s))
    await asyncio.gather(*(_client(phase, url, expected, number, end_s) for number in range(clients)))
    await watching
    return phase


async def _client(phase: Phase, url: str, expected: Sequence[tuple[bytes, dict[str, object]]], number: int, end_s: float) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        while time.monotonic() < end_s:
            clip, right = expected[number % len(expected)]
            number += 1
            phase.asked += 1
            begun_s = time.perf_counter()
            try:
                answer = await client.post("/v1/score", files={"clip": ("clip", clip)})
            except httpx.HTTPError as error:
                phase.statuses[type(error).__name__] += 1
                continue
            phase.statuses[str(answer.status_code)] += 1
            phase.ids[answer.headers.get("x-request-id", "")] += 1
            if answer.status_code == 200:
                phase.times_s.append(time.perf_counter() - begun_s)
                phase.wrong += not _is_right(answer.json(), right)
                continue
            proper = answer.status_code in (429, 503) and "retry-after" in answer.headers and answer.json().get("error")
            phase.improper += not proper
            await asyncio.sleep(PAUSE_S)


def _is_right(answer: dict[str, object], right: dict[str, object]) -> bool:
    """The same but for its timings, and for the rounding of sums in a batch."""
    score, expected = answer.pop("score", None), right.get("score")
    same_score = score == expected or (isinstance(score, float) and isinstance(expected, float) and abs(score - expected) < 1e-4)
    return same_score and (answer["status"], answer.get("level")) == (right["status"], right.get("level"))


async def _watch(phase: Phase, end_s: float, every_s: float) -> None:
    while time.monotonic() < end_s:
        phase.memory_mib.append((time.monotonic(), await asyncio.to_thread(_memory_mib)))
        await asyncio.sleep(every_s)


def _memory_mib() -> float:
    """The resident set of all processes that this one has started."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 2**20


def _record(phase: Phase) -> dict[str, object]:
    return {
        "clients": phase.clients,
        "asked": phase.asked,
        "statuses": dict(phase.statuses),
        "wrong": phase.wrong,
        "improper refusals": phase.improper,
        "ids that came twice": sum(count > 1 for count in phase.ids.values()),
        "p50 s": float(np.percentile(phase.times_s, 50)) if phase.times_s else None,
        "memory MiB": [round(mib) for _, mib in phase.memory_mib],
        "slope MiB/h": phase.slope_mib_per_hour,
    }


def _print(phases: Sequence[Phase], what: str, minutes: float) -> None:
    title = f"the endpoint under load, {minutes:g} minutes a phase; {what}"
    table = Table(title=title, caption=f"clients and server on {machine()}; memory of all the endpoint's processes")
    for heading in (
        "clients",
        "asked",
        "answered",
        "wrong",
        "refused",
        "improper",
        "failed",
        "ids twice",
        "p50 s",
        "MiB",
        "MiB/h",
    ):
        table.add_column(heading, justify="right")
    for phase in phases:
        answered = phase.statuses["200"]
        refused = phase.statuses["429"] + phase.statuses["503"]
        mib = [value for _, value in phase.memory_mib]
        table.add_row(
            str(phase.clients), f"{phase.asked:,}", f"{answered:,}", str(phase.wrong), f"{refused:,}", str(phase.improper),
            str(phase.statuses.total() - answered - refused), str(sum(count > 1 for count in phase.ids.values())),
            f"{np.percentile(phase.times_s, 50):.2f}" if phase.times_s else "", f"{mib[0]:,.0f} to {mib[-1]:,.0f}",
            f"{phase.slope_mib_per_hour:+.0f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
