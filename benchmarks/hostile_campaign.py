"""Hostile input, counted: hundreds of generated files and requests against a real server, and whether all held.

    python -m benchmarks.hostile_campaign [--on-ray] [--sample N] [--kind KIND] [--minutes M] [--seed S]

Each is to get a 4xx with a plain reason, or a score where it is in truth a clip, in bounded time and memory; the server keeps
its process and answers /healthz throughout; nothing is left on disk, no process, no call of an address that a file named.
Needs the real clips of ../shared/data.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from benchmarks.measure import console, machine, save
from data_shards.building.build import build_shards
from data_shards.datasets import DATASETS
from data_shards.simulation import SimulationSettings, generate
from data_shards.storage.source import Source
from tests.conftest import REAL_DATA, TINY_PREPROCESS, TINY_SETTINGS
from tests.serving.hostile.campaign import Verdict, all_attacks, campaign, clips_of, sampled
from tests.serving.hostile.target import attacked_server
from training.config import with_settings
from training.loop import train
from training.recipes import recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="so many, of every kind at least one")
    parser.add_argument("--kind", default="", help="of the kinds alone that begin so")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no more after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on-ray", action="store_true", help="the endpoint of `rapt serve`, behind Ray Serve's proxy")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch:
        face_model = REAL_DATA / "models" / "face_landmarker.task"
        with attacked_server(_bundle(Path(scratch)), Path(scratch), face_model=face_model, on_ray=asked.on_ray) as target:
            clips = clips_of(REAL_DATA / "videos")
            attacks = all_attacks(clips, target.canary.address, target.keys, target.jobs, asked.seed)
            attacks = [attack for attack in attacks if attack.kind.startswith(asked.kind)]
            chosen = sampled(attacks, asked.sample, asked.seed) if asked.sample else attacks
            verdict = campaign(target, chosen, clips["no_face.mp4"], most_s=60 * asked.minutes, say=True)
        left = target.left_on_disk()
    if left:
        verdict.broken.append(f"left on disk after the server had ended: {', '.join(left[:5])}")
    _show(verdict, asked)
    save("hostile_campaign" + ("_on_ray" if asked.on_ray else ""), verdict.to_json())
    sys.exit(1 if verdict.failures else 0)


def _bundle(scratch: Path) -> Path:
    """A really trained, very small model that reads frames."""
    generate(SimulationSettings(num_clips=32, seed=3, fps=6, width_px=160, height_px=120), scratch / "clips", num_workers=2)
    build_shards(DATASETS["simulated"](Source(scratch / "clips")), scratch / "shards", preprocess=TINY_PREPROCESS, num_workers=2)
    bundle = train(with_settings(recipe("demo"), TINY_SETTINGS), scratch / "shards", scratch / "run", run_id="tiny")
    assert bundle is not None
    return bundle


def _show(verdict: Verdict, asked: argparse.Namespace) -> None:
    where = "on Ray Serve" if asked.on_ray else "on uvicorn"
    table = Table(title=f"hostile input {where}, seed {asked.seed}", caption=machine())
    for heading in ("kind", "count", "answers", "slowest, s", "failures"):
        table.add_column(heading, justify="left" if heading in ("kind", "answers") else "right")
    for row in verdict.rows:
        answers = ", ".join(f"{status or 'closed'} x {count}" for status, count in sorted(row.statuses.items()))
        table.add_row(row.kind, str(row.count), answers, f"{row.slowest_s:.1f}", str(len(row.failures)))
    table.add_row("all", str(sum(row.count for row in verdict.rows)), "", "", str(len(verdict.failures)), style="bold")
    console.print(table)
    for name, value in verdict.measured.items():
        console.print(f"{name}: {value:,.1f}")
    for failure in verdict.failures:
        console.print(f"FAILED {failure}", markup=False)


if __name__ == "__main__":
    main()
