"""Build a set of shards from a dataset's listing: plan, decode in a process pool, then the manifest.

The unit of work is a shard. A finished shard is never made again, so a killed build started once more ends with the
same bytes; the manifest is written last, so a folder without one is not a set.
"""

import hashlib
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from data_shards.atomic import write_whole
from data_shards.decode import decoder_versions
from data_shards.errors import ConfigError, DataError
from data_shards.listing import SPLITS, Listing, Reject
from data_shards.manifest import (
    SCHEMA_VERSION,
    SIMULATED_NOTICE,
    Manifest,
    ShardEntry,
    ShardIndex,
    SplitSummary,
    index_name,
    read_manifest,
)
from data_shards.preprocess import PreprocessConfig
from data_shards.shard_writer import ShardPlan, finished_index, write_shard
from data_shards.worker_pool import ignore_interrupts, kill_workers

__all__ = ["Progress", "build_shards", "plan_shards"]

Progress = Callable[[int, int], None]  # (clips done, clips in all)
_POLL_S = 0.2


def build_shards(
    listing: Listing,
    folder: Path,
    *,
    preprocess: PreprocessConfig,
    clips_per_shard: int = 32,
    num_workers: int = 1,
    strict: bool = False,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write `listing` as shards into `folder` and return the manifest.

    strict: the first clip that cannot be used stops the build with a DataError; otherwise it is counted in
    `rejects.jsonl`. Raises DataError where no clip at all can be used, or the disk does not take the files.
    """
    _check_writable(folder)
    if strict and listing.rejects:
        raise DataError(_strict_message(listing.rejects[0]))
    plans = plan_shards(listing, preprocess=preprocess, clips_per_shard=clips_per_shard)
    indexes = {plan.name: index for plan in plans if (index := finished_index(folder, plan)) is not None}
    waiting = [plan for plan in plans if plan.name not in indexes]
    total = sum(len(plan.clips) for plan in plans)
    already = total - sum(len(plan.clips) for plan in waiting)
    try:
        if waiting:  # while shards change, the folder is not a set
            (folder / "manifest.json").unlink(missing_ok=True)
        for index in _write_all(folder, waiting, num_workers, lambda done: progress(already + done, total)):
            indexes[index.shard] = index
            if strict and index.rejects:
                raise DataError(_strict_message(index.rejects[0]))
        return _finish(listing, folder, preprocess, [indexes[plan.name] for plan in plans])
    except OSError as error:
        raise DataError(
            f"{folder}: the shards cannot be written ({error.strerror or error}); make room or choose another folder, "
            "then run the same command: finished shards are kept"
        ) from None


def plan_shards(listing: Listing, *, preprocess: PreprocessConfig, clips_per_shard: int) -> list[ShardPlan]:
    """Cut each split's clips, in the listing's order, into shards of `clips_per_shard`."""
    plans = []
    for split in SPLITS:
        clips = [clip for clip in listing.clips if clip.split == split]
        for number, start in enumerate(range(0, len(clips), clips_per_shard)):
            chunk = tuple(clips[start : start + clips_per_shard])
            plans.append(ShardPlan(name=f"{split}-{number:06d}.tar", split=split, clips=chunk, preprocess=preprocess))
    return plans


def _write_all(
    folder: Path, plans: Sequence[ShardPlan], num_workers: int, on_done: Callable[[int], None]
) -> Iterator[ShardIndex]:
    """Write the plans in a pool of processes and yield each index as its shard is done.

    When a clip kills a process the pool breaks as a whole, and which of the clips in work it was cannot be told. The
    unfinished shards are then made one by one in a pool of one: the clip in work when that breaks is left out.
    """
    unfinished = {plan.name: plan for plan in plans}
    for index in _write_in_pool(folder, list(plans), num_workers, on_done):
        del unfinished[index.shard]
        yield index
    while unfinished:
        plan = next(iter(unfinished.values()))
        _crash_note(folder, plan).unlink(missing_ok=True)  # of the pool that broke
        indexes = list(_write_in_pool(folder, [plan], 1, on_done))
        if indexes:
            del unfinished[plan.name]
            yield indexes[0]
            continue
        note = _crash_note(folder, plan)
        if not note.exists():
            raise DataError(f"{folder / plan.name}: its process died before it opened a clip; look at memory, then try again")
        unfinished[plan.name] = replace(plan, crashed=plan.crashed | {note.read_text()})
        note.unlink()


def _write_in_pool(
    folder: Path, plans: Sequence[ShardPlan], num_workers: int, on_done: Callable[[int], None]
) -> Iterator[ShardIndex]:
    """Yield the indexes of the plans that a fresh pool finishes; a broken pool ends it, other errors are raised."""
    if not plans:
        return
    context = multiprocessing.get_context("spawn")
    counter: Synchronized[int] = context.Value("q", 0)
    workers = min(num_workers, len(plans))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_set_counter, initargs=(counter,))
    try:
        pending: set[Future[ShardIndex]] = {pool.submit(_write_one, folder, plan) for plan in plans}
        while pending:
            finished, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            on_done(counter.value)
            for future in finished:
                yield future.result()
    except BrokenProcessPool:
        return
    except BaseException:  # interrupted, or the caller stops early: nobody waits for clips that nobody wants
        kill_workers(pool)
        for plan in plans:
            _crash_note(folder, plan).unlink(missing_ok=True)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_counter: "Synchronized[int] | None" = None  # this worker process's view of how many clips are done


def _set_counter(counter: "Synchronized[int]") -> None:
    global _counter
    ignore_interrupts()
    _counter = counter


def _write_one(folder: Path, plan: ShardPlan) -> ShardIndex:
    """In a worker process: write one shard, leaving a note of the clip in work for the case that it kills us."""
    note = _crash_note(folder, plan)

    def on_clip(clip_id: str) -> None:
        note.write_text(clip_id)
        if _counter is not None:
            with _counter.get_lock():
                _counter.value += 1

    try:
        return write_shard(folder, plan, on_clip=on_clip)
    finally:  # a process that is killed leaves its note, one that fails does not
        note.unlink(missing_ok=True)


def _crash_note(folder: Path, plan: ShardPlan) -> Path:
    return folder / f".{plan.name}.in-work"


def _finish(listing: Listing, folder: Path, preprocess: PreprocessConfig, indexes: Sequence[ShardIndex]) -> Manifest:
    """Write rejects.jsonl and, last, the manifest; remove what an earlier plan or a killed process left."""
    rejects = [*listing.rejects, *(reject for index in indexes for reject in index.rejects)]
    filled = [index for index in indexes if index.samples]
    if not filled:
        reason = rejects[0].reason if rejects else "the dataset lists none"
        raise DataError(f"{folder}: no clip could be used, so no shards were made (the first: {reason})")
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        dataset=listing.dataset,
        simulated=listing.simulated,
        notice=SIMULATED_NOTICE if listing.simulated else "",
        label_names=listing.label_names,
        preprocess=preprocess,
        extractors={"frames": decoder_versions()},
        splits={
            split: _summary(listing, [index for index in filled if index.split == split])
            for split in SPLITS
            if any(index.split == split for index in filled)
        },
        shards=tuple(_entry(listing, index) for index in filled),
        num_rejected=len(rejects),
    )
    kept = {name for index in indexes for name in (index.shard, index_name(index.shard))}
    for path in folder.iterdir():
        if path.name not in kept and (_OWN_SHARD.fullmatch(path.name) or _OWN_LEFTOVER.fullmatch(path.name)):
            path.unlink()
    write_whole(folder / "rejects.jsonl", b"".join(reject.to_bytes() for reject in rejects))
    write_whole(folder / "manifest.json", manifest.to_bytes())
    return manifest


def _entry(listing: Listing, index: ShardIndex) -> ShardEntry:
    return ShardEntry(
        name=index.shard,
        split=index.split,
        num_samples=len(index.samples),
        size_bytes=index.size_bytes,
        sha256=index.sha256,
        index_sha256=hashlib.sha256(index.to_bytes()).hexdigest(),
        labels={name: tuple(sample.labels[name] for sample in index.samples) for name in listing.label_names},
    )


def _summary(listing: Listing, indexes: Sequence[ShardIndex]) -> SplitSummary:
    samples = [sample for index in indexes for sample in index.samples]
    histogram = {}
    for name, levels in listing.label_names.items():
        counts = Counter(sample.labels[name] for sample in samples)
        histogram[name] = tuple(counts[level] for level in range(len(levels)))
    return SplitSummary(
        num_samples=len(samples),
        subjects=tuple(sorted({sample.subject for sample in samples})),
        label_histogram=histogram,
    )


def _check_writable(folder: Path) -> None:
    """An output folder is new, empty, or an earlier build's; anything else is somebody's data and is left alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"{folder}: the output folder cannot be made ({error.strerror}); name another OUT") from None
    own = (_OWN_SHARD, _OWN_LEFTOVER, _OWN_RECORD)
    foreign = [name for name in names if not any(pattern.fullmatch(name) for pattern in own)]
    if foreign:
        raise ConfigError(f"{folder}: holds files that are not shards ({foreign[0]}); name a new or empty folder as OUT")
    if "manifest.json" in names:
        read_manifest(folder)  # somebody else's manifest.json is refused here


_OWN_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d{{6}}\.(tar|index\.json)")
_OWN_LEFTOVER = re.compile(r"\..+\.(partial-\d+|in-work)")
_OWN_RECORD = re.compile(r"manifest\.json|rejects\.jsonl")


def _strict_message(reject: Reject) -> str:
    return f"clip {reject.clip_id}: {reject.reason} (stopped by --strict; without it the clip is left out and counted)"
