"""Writes a whole simulated set into a folder, and goes on where an earlier run stopped."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from data_shards.atomic import whole_file
from data_shards.errors import DataError
from data_shards.simulation.cohort import PlannedClip, plan_cohort
from data_shards.simulation.settings import SimulationSettings
from data_shards.worker_pool import ignore_interrupts, kill_workers


def generate(
    settings: SimulationSettings,
    folder: Path,
    *,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Makes the set that the settings describe and returns the path of its labels.csv, which is written last.

    folder gets clips/ID.mp4, openface/ID.csv, transcripts/ID.vtt and behaviour/ID.json for every clip,
    settings.json and labels.csv (clip, label, subject, split, simulated). Clips that are there already are
    kept, so a killed run goes on where it stopped. num_workers: processes that make clips, 1 or more; the
    files do not depend on it. progress(done, total) is called in this process at the start and after every
    clip.

    Raises DataError when the folder holds other settings or a labels.csv of another origin.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}; use 1 or more")
    try:
        return _generate(settings, folder, num_workers, progress)
    except OSError as error:
        raise DataError(
            f"{folder}: the clips cannot be written ({error.strerror}); make room, then run the same command: "
            "finished clips are kept"
        ) from None


def _generate(settings: SimulationSettings, folder: Path, num_workers: int, progress: Callable[[int, int], None] | None) -> Path:
    _claim_folder(settings, folder)
    clips = plan_cohort(settings)
    missing = [clip for clip in clips if not _is_made(folder, clip)]
    num_done = len(clips) - len(missing)
    if progress is not None:
        progress(num_done, len(clips))
    for _ in _make_all(settings, missing, folder, num_workers):
        num_done += 1
        if progress is not None:
            progress(num_done, len(clips))
    return _write_labels(clips, folder)


def _claim_folder(settings: SimulationSettings, folder: Path) -> None:
    """Marks the folder with the settings, or makes sure that it is marked with the same."""

    marker = folder / "settings.json"
    wanted = json.dumps(settings.as_record(), indent=2) + "\n"
    if not marker.exists():
        if (folder / "labels.csv").exists():
            raise DataError(f"{folder} holds a labels.csv that was not simulated; give an empty folder")
        with whole_file(marker) as beside:
            beside.write_text(wanted, encoding="utf-8")
    elif marker.read_text(encoding="utf-8") != wanted:
        raise DataError(f"{marker} was written with other settings; give an empty folder, or delete this one")


def _is_made(folder: Path, clip: PlannedClip) -> bool:
    from data_shards.simulation.clip import clip_files

    return all(path.exists() for path in clip_files(folder, clip).values())


def _make_all(settings: SimulationSettings, clips: Sequence[PlannedClip], folder: Path, num_workers: int) -> Iterator[None]:
    """Makes the clips, here or in worker processes, and yields after each."""
    from data_shards.simulation.clip import make_clip

    if num_workers == 1 or len(clips) < 2:
        for clip in clips:
            make_clip(settings, clip, folder)
            yield
        return
    # Spawned, not forked: the caller may hold threads, as torch and ray do.
    pool = ProcessPoolExecutor(min(num_workers, len(clips)), mp_context=get_context("spawn"), initializer=ignore_interrupts)
    try:
        for future in as_completed([pool.submit(make_clip, settings, clip, folder) for clip in clips]):
            future.result()
            yield
    except BaseException:
        kill_workers(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_labels(clips: Sequence[PlannedClip], folder: Path) -> Path:
    rows = [clip.row() for clip in clips]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = folder / "labels.csv"
    with whole_file(path) as beside:
        beside.write_text(text.getvalue(), encoding="utf-8")
    return path
