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
    """Run both `rounds` times in turn after a warm-up; each returns how many units it did. Prints rates and their ratio."""
    rates: dict[str, list[float]] = {ours[0]: [], peer[0]: []}
    for number in range(rounds + 1):
        for name, work in (ours, peer):
            begun_s = time.perf_counter()
            done = work()
            if number:
                rates[name].append(done / (time.perf_counter() - begun_s))
    ratios = [a / b for a, b in zip(rates[ours[0]], rates[peer[0]], strict=True)]
    table = Table(title=title, caption=f"{rounds} rounds in turn; {machine()}")
    for heading in ("", f"{unit}/s, median", "min", "max"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, values in rates.items():
        table.add_row(name, f"{statistics.median(values):,.1f}", f"{min(values):,.1f}", f"{max(values):,.1f}")
    table.add_row(f"ratio {ours[0]} / {peer[0]}", f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}", f"{max(ratios):.2f}")
    console.print(table)
    return {"title": title, "unit": unit, "rates": rates, "ratio": statistics.median(ratios), "ratios": ratios}


def save(name: str, results: list[dict[str, object]]) -> None:
    """Write the results as JSON below the state folder."""
    path = home() / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "results": results}, indent=2) + "\n")
    console.print(f"written to {path}")
