"""How much faster than real time is a lesson scored, and does memory stay flat? A gallery of drawn people (simulated).

python -m benchmarks.bench_lesson [--minutes 10] [--people 4] [--size 1280x720] [--bundle FOLDER]

The demo's model, of 32 frames of 64x64 a window, unless a bundle is named. One minute is drawn and encoded; the rest repeats it.
"""

import argparse
import asyncio
import tempfile
import threading
import time
from pathlib import Path

import psutil
from rich.table import Table

from benchmarks.clips import SHARED_FACE_MODEL
from benchmarks.lesson_recording import Scene, grid, longer, write_gallery
from benchmarks.measure import console, machine, save
from benchmarks.training_sets import frame_shards
from data_shards.face_model import face_model_path
from serving.confined.decode_child import DecodeChild
from serving.lesson.record import LessonResult
from serving.lesson.score import score_lesson
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from training.registry import RegisteredModel

FPS = 15
MARKS = (0.1, 0.5, 1.0)


class _Memory:
    """Resident memory of this process and of the child that watches, MiB, by the share of the lesson that is done; and their
    processor seconds."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, float]] = []
        self.child_cpu_s = 0.0
        self._me = psutil.Process()

    def note(self, done_s: float, total_s: float) -> None:
        watching = [child for child in self._me.children() if "watch_worker" in " ".join(child.cmdline())]
        if watching:
            mib = max(child.memory_info().rss for child in watching) / 2**20
            self.child_cpu_s = max(sum(child.cpu_times()[:2]) for child in watching)
            self.seen.append((done_s / total_s, self._me.memory_info().rss / 2**20, mib))

    def at(self, share: float) -> tuple[float, float]:
        """The largest of the tenth of the lesson before: it swings with the window that is held."""
        near = [(ours, child) for done, ours, child in self.seen if share - 0.1 <= done <= share]
        return max(ours for ours, _ in near), max(child for _, child in near)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--bundle", type=Path, default=None)
    asked = parser.parse_args()
    width, height = (int(side) for side in asked.size.split("x"))
    predictor = Predictor(RegisteredModel(name="engagement", version="1", folder=asked.bundle or _trained()))
    scoring = LocalScoring(predictor, DecodeChild(predictor.recipe))
    memory = _Memory()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as name:
        folder, size = Path(name), (width, height)
        people = list(range(asked.people))
        columns = max(1, round(asked.people**0.5))
        scenes = (Scene(0, 40, grid(people, columns, size)), Scene(40, 60, grid(people, columns, size), frozenset({0})))
        minute = write_gallery(folder / "minute.mp4", scenes, size=size, fps=FPS)
        lesson = longer(minute, folder / "lesson.mp4", asked.minutes)
        before_s = time.process_time()
        face_model = SHARED_FACE_MODEL if SHARED_FACE_MODEL.exists() else face_model_path(None)
        result = asyncio.run(score_lesson(lesson, scoring, folder / "job", face_model=face_model, progress=memory.note))
        own_cpu_s = time.process_time() - before_s
    _print(result, memory, own_cpu_s, f"{asked.people} tiles, {asked.size}, {FPS} frames/s, H.264")


def _trained() -> Path:
    """The demo's model after an epoch on a few simulated clips: its scores mean nothing, its cost is the demo's."""
    from cluster.home import home
    from training.config import with_settings
    from training.loop import train
    from training.recipes import recipe

    run = with_settings(recipe("demo"), ("loop.epochs=1", "loop.global_batch=8"))
    bundle = train(run, frame_shards(64, num_frames=32, size_px=64), home() / "benchmarks" / "lesson-run", run_id="bench")
    assert bundle is not None
    return bundle


def _print(result: LessonResult, memory: _Memory, own_cpu_s: float, what: str) -> None:
    factor = result.duration_s / result.took_s
    cpu_s = own_cpu_s + memory.child_cpu_s
    table = Table(
        title=f"{result.duration_s / 60:.0f} min lesson, {len(result.people)} people: {what}",
        caption=f"{threading.active_count()} threads here; load {psutil.getloadavg()[0]:.1f}; {machine()}",
    )
    for heading in ("seconds of lesson a second", "a CPU second", *(f"MiB at {share:.0%}, here + child" for share in MARKS)):
        table.add_column(heading, justify="right")
    sizes = {share: memory.at(share) for share in MARKS}
    table.add_row(
        f"{factor:.1f}",
        f"{result.duration_s / cpu_s:.1f}",
        *(f"{sizes[share][0]:.0f} + {sizes[share][1]:.0f}" for share in MARKS),
    )
    console.print(table)
    windows = sum(len(person.windows) for person in result.people)
    console.print(
        f"{windows} windows of people; {result.took_s:.1f} s; CPU: {own_cpu_s:.1f} s here, {memory.child_cpu_s:.1f} s child"
    )
    record = {"took_s": result.took_s, "cpu_s": cpu_s, "factor": factor, "rss_mib": sizes, "what": what}
    save("lesson", [record])


if __name__ == "__main__":
    main()
