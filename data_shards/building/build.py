"""Build a set of shards from a dataset's listing: plan, decode shard by shard, then the manifest.

The unit of work is a shard. A finished shard is never made again, so a killed build started once more ends with the
same bytes; the manifest is written last, so a folder without one is not a set.
"""

from collections.abc import Sequence
from pathlib import Path

from data_shards.building.claim import claimed
from data_shards.building.origin import write_origin
from data_shards.building.shard_pool import write_in_processes
from data_shards.building.shard_work import Progress, WriteShards
from data_shards.building.shard_writer import ShardPlan, finished_index
from data_shards.building.summary import feature_shapes, lacking_jsonl, made_by, shard_entries, split_summaries
from data_shards.decode import decoder_versions
from data_shards.errors import DataError, ShardError
from data_shards.listing import SPLITS, Listing, Reject
from data_shards.manifest import EXTRACTING, SCHEMA_VERSION, SIMULATED_NOTICE, Manifest, ShardIndex, index_name
from data_shards.preprocess import PreprocessConfig
from data_shards.sample import FRAMES
from data_shards.storage.store import Store, open_store

__all__ = ["build_shards", "plan_shards"]


def build_shards(
    listing: Listing,
    out: str | Path,
    *,
    preprocess: PreprocessConfig,
    clips_per_shard: int = 32,
    num_workers: int = 1,
    strict: bool = False,
    write: WriteShards = write_in_processes,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write `listing` as shards into `out`, a folder or s3://bucket/prefix, and return the manifest.

    strict: the first clip that cannot be used stops the build with a DataError; otherwise it is counted in
    `rejects.jsonl`. Raises DataError where no clip at all can be used, or the disk does not take the files.
    """
    store = open_store(out)
    if strict and listing.rejects:
        raise DataError(_strict_message(listing.rejects[0]))
    if not listing.clips:
        raise DataError(_nothing_usable(store, listing.rejects))
    plans = plan_shards(listing, preprocess=preprocess, clips_per_shard=clips_per_shard)
    total = sum(len(plan.clips) for plan in plans)
    try:
        with claimed(store) as sizes:
            indexes = {plan.name: index for plan in plans if (index := finished_index(store, sizes, plan)) is not None}
            waiting = [plan for plan in plans if plan.name not in indexes]
            already = total - sum(len(plan.clips) for plan in waiting)
            progress(already, total)
            if waiting:  # while shards change, the folder is not a set, and what was begun on the old one is over
                store.delete("manifest.json")
                store.delete(EXTRACTING)
            for index in write(store, waiting, num_workers=num_workers, on_done=lambda done: progress(already + done, total)):
                indexes[index.shard] = index
                if strict and index.rejects:
                    raise DataError(_strict_message(index.rejects[0]))
            if listing.origin is not None:
                write_origin(store, listing.origin)
            return _finish(listing, store, sizes, preprocess, [indexes[plan.name] for plan in plans])
    except OSError as error:
        raise DataError(
            f"{out}: the shards cannot be written ({error.strerror or error}); make room or choose another OUT, "
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


def _finish(
    listing: Listing, store: Store, sizes: dict[str, int], preprocess: PreprocessConfig, indexes: Sequence[ShardIndex]
) -> Manifest:
    """Write rejects.jsonl and, last, the manifest; remove what an earlier plan or a killed process left."""
    rejects = [*listing.rejects, *(reject for index in indexes for reject in index.rejects)]
    filled = [index for index in indexes if index.samples]
    if not filled:
        raise DataError(_nothing_usable(store, rejects))
    makers = made_by(filled)
    listed = {name for clip in listing.clips for name in clip.features}
    if twice := sorted(listed & makers.keys()):
        raise DataError(
            f"{store.uri}: '{twice[0]}' now comes with the dataset, and shards have it of `rapt shards extract`: two sources "
            "are never mixed; build into a new OUT"
        )
    has_frames = any("frames.mjpeg" in sample.members for index in filled for sample in index.samples)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        dataset=listing.dataset,
        simulated=listing.simulated,
        notice=SIMULATED_NOTICE if listing.simulated else listing.notice,
        label_names=listing.label_names,
        preprocess=preprocess if has_frames else None,
        features=feature_shapes(filled),
        extractors=dict(sorted({**({FRAMES: decoder_versions()} if has_frames else {}), **listing.extractors, **makers}.items())),
        splits=split_summaries(listing.label_names, filled),
        shards=shard_entries(listing.label_names, filled),
        num_rejected=len(rejects),
    )
    kept = {name for index in indexes for name in (index.shard, index_name(index.shard))}
    for name in sizes.keys() - kept - {"manifest.json"}:  # of an earlier plan
        store.delete(name)
    unseen = kept - store.names().keys()
    if unseen:
        raise DataError(
            f"{store.uri}: {min(unseen)} was written elsewhere, this machine does not see it; build into s3:// or onto a "
            "disk that the whole cluster shares"
        )
    store.write("rejects.jsonl", b"".join(reject.to_bytes() for reject in rejects))
    store.write("lacking.jsonl", lacking_jsonl(filled))
    unfinished = [index.shard for index in filled if index.extractors.keys() != makers.keys()]
    if unfinished:  # of an extraction that was broken off, or these shards are new
        store.write(EXTRACTING, manifest.to_bytes())
        store.delete("manifest.json")
        raise ShardError(
            f"{store.uri}: {len(unfinished)} shards have no {' and '.join(makers)}, which others got by `rapt shards "
            "extract`; run that again, and the set is whole"
        )
    store.write("manifest.json", manifest.to_bytes())
    store.delete(EXTRACTING)
    return manifest


def _nothing_usable(store: Store, rejects: Sequence[Reject]) -> str:
    reason = rejects[0].reason if rejects else "the dataset lists none"
    return f"{store.uri}: no clip could be used, so no shards were made (the first: {reason})"


def _strict_message(reject: Reject) -> str:
    return f"clip {reject.clip_id}: {reject.reason} (stopped by --strict; without it the clip is left out and counted)"
