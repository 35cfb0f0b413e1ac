"""The endpoint under load for a long time: does it leak, lose or double an answer, or refuse in any other way than it should?

First as many clients as it has places for clips (its capacity), then three times as many, each asking again as soon as it is
answered. An answer is right where it is the predictor's own; a refusal is proper where it is 429 or 503 with Retry-After and a
sentence. Memory is that of all processes of the endpoint, every --every-s; its slope is fitted over the second half of each
phase. Clients and server share this machine's cores.

    python -m benchmarks.soak [--minutes 10] [--every-s 5]
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from rich.table import Table

from benchmarks.bundles import random_bundle
from benchmarks.clips import benchmark_clips
from benchmarks.measure import console, machine, save
from data_shards.preprocess import PreprocessConfig
from serving.http.settings import AppSettings
from serving.predictor import Predictor
from serving.replicas.endpoint_settings import EndpointSettings
from serving.service import start_service
from tests.serving.ray_serve import ray_for_endpoint
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
    memory: list[tuple[float, Counter[str]]] = field(default_factory=list)  # when, and MiB of each kind of process

    @property
    def total_mib(self) -> list[float]:
        return [held.total() for _, held in self.memory]

    @property
    def slopes_mib_per_hour(self) -> dict[str, float]:
        """Of each kind's memory over the second half of the phase, the steepest first."""
        half = self.memory[len(self.memory) // 2 :]
        times_s = np.array([time_s for time_s, _ in half])
        kinds = set().union(*(held for _, held in half))
        slopes = {kind: float(np.polyfit(times_s, [held[kind] for _, held in half], 1)[0] * 3600) for kind in kinds}
        return dict(sorted(slopes.items(), key=lambda item: -abs(item[1])))


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
        with ray_for_endpoint(num_cpus=max(4, os.cpu_count() or 1)):
            url = start_service(registered, host="127.0.0.1", port=PORT, settings=EndpointSettings(model=str(bundle)))
            phases = [
                asyncio.run(_load(url, expected, clients, wanted.minutes * 60, wanted.every_s))
                for clients in (CAPACITY, 3 * CAPACITY)
            ]
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
        phase.memory.append((time.monotonic(), await asyncio.to_thread(_memory_mib)))
        await asyncio.sleep(every_s)


def _memory_mib() -> Counter[str]:
    """What the processes that this one has started hold of memory, by kind; pages that they share, as Ray's object store, count
    once where the system tells (Linux's PSS), else in each of them."""
    found: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            held = process.memory_full_info()
            found[_kind(process)] += getattr(held, "pss", held.rss) / 2**20
    return found


def _kind(process: psutil.Process) -> str:
    """The class of a Ray actor, the module or script of a Python process, else the program."""
    program, *words = process.cmdline()
    if program.startswith("ray::"):
        return program.removeprefix("ray::").split(":")[-1].split(".")[0]
    named = next((word for word in words if not word.startswith("-")), program) if "python" in program else program
    return Path(named).name[:40]


def _record(phase: Phase) -> dict[str, object]:
    return {
        "clients": phase.clients,
        "asked": phase.asked,
        "statuses": dict(phase.statuses),
        "wrong": phase.wrong,
        "improper refusals": phase.improper,
        "ids that came twice": sum(count > 1 for count in phase.ids.values()),
        "p50 s": float(np.percentile(phase.times_s, 50)) if phase.times_s else None,
        "memory MiB": [round(mib) for mib in phase.total_mib],
        "slopes MiB/h": phase.slopes_mib_per_hour,
        "first and last MiB": [{kind: round(mib) for kind, mib in phase.memory[when][1].items()} for when in (0, -1)],
    }


def _print(phases: Sequence[Phase], what: str, minutes: float) -> None:
    title = f"the endpoint under load, {minutes:g} minutes a phase; {what}"
    table = Table(title=title, caption=f"clients and server on {machine()}; memory of all the endpoint's processes")
    table.add_column("clients")
    for phase in phases:
        table.add_column(str(phase.clients), justify="right")
    for name, cells in _rows(phases).items():
        table.add_row(name, *cells)
    console.print(table)


def _rows(phases: Sequence[Phase]) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}

    def row(name: str, cell: Callable[[Phase], str]) -> None:
        rows[name] = [cell(phase) for phase in phases]

    row("asked", lambda phase: f"{phase.asked:,}")
    row("answered", lambda phase: f"{phase.statuses['200']:,}")
    row("of them wrong", lambda phase: str(phase.wrong))
    row("refused with 429 or 503", lambda phase: f"{_refused(phase):,}")
    row("refused in another way", lambda phase: str(phase.improper))
    row("no answer", lambda phase: str(phase.statuses.total() - phase.statuses["200"] - _refused(phase)))
    row("ids that came twice", lambda phase: str(sum(count > 1 for count in phase.ids.values())))
    row("p50 of an answer, s", lambda phase: f"{np.percentile(phase.times_s, 50):.2f}" if phase.times_s else "")
    row("memory at begin, half and end, MiB", lambda phase: ", ".join(f"{mib:,.0f}" for mib in _memory_marks(phase)))
    row("slope of the second half, MiB an hour", lambda phase: f"{sum(phase.slopes_mib_per_hour.values()):+,.0f}")
    row("the steepest of them", lambda phase: "\n".join(_steepest(phase)))
    return rows


def _refused(phase: Phase) -> int:
    return phase.statuses["429"] + phase.statuses["503"]


def _steepest(phase: Phase) -> list[str]:
    return [f"{kind} {slope:+,.0f}" for kind, slope in list(phase.slopes_mib_per_hour.items())[:3]]


def _memory_marks(phase: Phase) -> list[float]:
    mib = phase.total_mib
    return [mib[0], mib[len(mib) // 2], mib[-1]]


if __name__ == "__main__":
    main()
