"""Add features to a finished set of shards: find its clips again, run extractors shard by shard, then a new manifest.

Only what is missing is made, so a killed run started again goes on where it was. Until it is whole the old manifest lies
in `extracting.json`, and the set cannot be read.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from data_shards.building.claim import claimed
from data_shards.building.feature_writer import AddFeatures, current_index
from data_shards.building.shard_pool import write_in_processes
from data_shards.building.shard_work import Progress, WriteShards
from data_shards.building.summary import feature_shapes, made_by, shard_entries
from data_shards.errors import ConfigError, DataError
from data_shards.extraction import EXTRACTORS, ExtractorSettings
from data_shards.extraction.recorded import described
from data_shards.listing import Extractors, ListedClip, Listing
from data_shards.manifest import EXTRACTING, Lacking, Manifest, ShardIndex, read_manifest
from data_shards.storage.store import Store, open_store

__all__ = ["add_features"]


def add_features(
    uri: str | Path,
    listing: Listing,
    extractors: Mapping[str, ExtractorSettings],
    *,
    again: bool = False,
    num_workers: int = 1,
    write: WriteShards = write_in_processes,
    progress: Progress = lambda done, total: None,
) -> tuple[Manifest, list[Lacking]]:
    """Run `extractors` (feature to settings) on the clips of the set at `uri`; returns the manifest and what clips lack.

    listing: the clips as the set was built from them. again: make also what is there. ConfigError where a feature is
    there already but made in another way: two ways are never mixed in one set.
    """
    store = open_store(uri)
    makers = _makers(extractors)
    try:
        with claimed(store):
            before = _manifest_before(store)
            indexes = {entry.name: current_index(store, entry.name) for entry in before.shards}
            _check_makers(before, list(indexes.values()), makers, again=again)
            work = _work(indexes.values(), listing, extractors, makers, again=again)
            total = sum(len(shard.clips) for shard in work)
            progress(0, total)
            if work:
                store.write(EXTRACTING, before.to_bytes())
                store.delete("manifest.json")
            for index in write(store, work, num_workers=num_workers, on_done=lambda done: progress(done, total)):
                indexes[index.shard] = index
            return _finish(store, before, [indexes[entry.name] for entry in before.shards])
    except OSError as error:
        raise DataError(
            f"{uri}: the features cannot be written ({error.strerror or error}); make room, then run the same command: "
            "finished shards are kept"
        ) from None


def _makers(extractors: Mapping[str, ExtractorSettings]) -> Extractors:
    """Load each once before any clip is opened: what is missing is told now, and what it is goes into the manifest."""
    makers: Extractors = {}
    for name, settings in extractors.items():
        with EXTRACTORS[name](settings) as extractor:
            makers[name] = described(name, extractor)
    return makers


def _manifest_before(store: Store) -> Manifest:
    """The manifest, or where an earlier run was broken off the one it began with."""
    if EXTRACTING in store.names():
        return Manifest.from_bytes(store.read(EXTRACTING), origin=f"{store.uri}/{EXTRACTING}")
    return read_manifest(store)


def _check_makers(before: Manifest, indexes: list[ShardIndex], makers: Extractors, *, again: bool) -> None:
    added = {name for index in indexes for name in index.extractors}
    for name, maker in makers.items():
        if name in before.features and name not in added:
            by = before.extractors.get(name, {}).get("by", "its dataset")
            raise ConfigError(f"'{name}' is in the set already, made by {by}; leave it out of --with, two sources are not mixed")
        unlike = next((index for index in indexes if index.extractors.get(name, maker) != maker), None)
        if unlike is not None and not again:
            raise ConfigError(
                f"'{name}' is in the set already, made with other settings or weights ({unlike.shard}); "
                "add --again to make it anew for every clip"
            )


def _work(
    indexes: Iterable[ShardIndex],
    listing: Listing,
    extractors: Mapping[str, ExtractorSettings],
    makers: Extractors,
    *,
    again: bool,
) -> list[AddFeatures]:
    """The shards that miss a feature, each with its clips as they are listed now and the extractors to run."""
    listed: dict[str, ListedClip] = {clip.clip_id: clip for clip in listing.clips}
    work = []
    for index in indexes:
        missing = {name: own for name, own in extractors.items() if again or index.extractors.get(name) != makers[name]}
        if missing:
            clips = tuple(listed[sample.clip_id] for sample in index.samples if sample.clip_id in listed)
            work.append(AddFeatures(name=index.shard, clips=clips, extractors=missing))
    return work


def _finish(store: Store, before: Manifest, indexes: list[ShardIndex]) -> tuple[Manifest, list[Lacking]]:
    """Write lacking.jsonl and, last, the manifest."""
    makers = {**before.extractors, **made_by(indexes)}
    manifest = before.model_copy(
        update={
            "features": feature_shapes(indexes),
            "extractors": dict(sorted(makers.items())),
            "shards": shard_entries(before.label_names, indexes),
        }
    )
    lacking = [entry for index in indexes for entry in index.lacking]
    store.write("lacking.jsonl", b"".join(entry.to_bytes() for entry in lacking))
    store.write("manifest.json", manifest.to_bytes())
    store.delete(EXTRACTING)
    return manifest, lacking
