"""Time two ways of doing the same work in turn, and print the ratio: what every benchmark here does.

These machines are noisy: rounds alternate A B A B, medians are quoted, and the ratio is the median of the rounds' own.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster.home import home

__all__ = ["compare", "machine", "save"]

console = Console(highlight=False)


def machine() -> str:
    """Cores and processor, for a result to name."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} cores, {model}"


def compare(
    title: str, ours: tuple[str, Callable[[], int]], peer: tuple[str, Callable[[], int]], *, unit: str, rounds: int = 7
) -> dict[str, object]:
    """Run both `rounds` times in turn after a warm-up; each returns how many units it did.

    Prints rates by the clock and by processor time, all threads counted, and the ratios of both.
    """
    by_clock: dict[str, list[float]] = {ours[0]: [], peer[0]: []}
    by_processor: dict[str, list[float]] = {ours[0]: [], peer[0]: []}
    for number in range(rounds + 1):
        for name, work in (ours, peer):
            begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
            done = work()
            if number:
                by_clock[name].append(done / (time.perf_counter() - begun_s))
                by_processor[name].append(done / (time.process_time() - begun_cpu_s))
    table = Table(title=title, caption=f"{rounds} rounds in turn; {machine()}")
    for heading in ("", "median", "min", "max"):
        table.add_column(heading, justify="left" if not heading else "right")
    results: dict[str, object] = {"title": title, "unit": unit}
    for what, rates in (("second", by_clock), ("CPU second", by_processor)):
        for name, values in rates.items():
            table.add_row(f"{name}, {unit} a {what}", *(f"{f(values):,.1f}" for f in (statistics.median, min, max)))
        ratios = [a / b for a, b in zip(rates[ours[0]], rates[peer[0]], strict=True)]
        table.add_row(f"ratio, by {what}", *(f"{f(ratios):.2f}" for f in (statistics.median, min, max)), style="bold")
        results[f"ratio by {what}"] = statistics.median(ratios)
        results[f"rates by {what}"] = rates
    console.print(table)
    return results


def save(name: str, results: list[dict[str, object]]) -> None:
    """Write the results as JSON below the state folder."""
    path = home() / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "results": results}, indent=2) + "\n")
    console.print(f"written to {path}")
