"""Add features to a finished set of shards: find its clips again, run extractors shard by shard, then a new manifest.

Only what is missing is made, so a killed run started again goes on where it was. Until it is whole the old manifest lies
in `extracting.json`, and the set cannot be read.
"""

from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from data_shards.building.claim import claimed
from data_shards.building.feature_writer import AddFeatures
from data_shards.building.shard_pool import write_in_processes
from data_shards.building.shard_work import Progress, WriteShards
from data_shards.building.summary import feature_shapes, lacking_jsonl, made_by, shard_entries
from data_shards.errors import ConfigError, DataError, ShardError
from data_shards.extraction import EXTRACTORS, ExtractorSettings
from data_shards.extraction.recorded import described
from data_shards.listing import NO_LEVEL, Extractors, ListedClip, Listing
from data_shards.manifest import EXTRACTING, Lacking, Manifest, ShardEntry, ShardIndex, current_index, read_manifest
from data_shards.storage.store import Store, open_store

__all__ = ["add_features", "manifest_before"]


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
    manifest_before(store)  # nothing is touched where there is no set
    try:
        with claimed(store) as sizes:
            before, broken_off = manifest_before(store)
            indexes = {entry.name: _index_of(store, entry, sizes) for entry in before.shards}
            _check_makers(before, list(indexes.values()), makers, again=again)
            work = _work(indexes.values(), listing, extractors, makers, again=again and not broken_off)
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


def manifest_before(store: Store) -> tuple[Manifest, bool]:
    """The manifest; or where an earlier run was broken off the one it began with, and True."""
    try:
        return Manifest.from_bytes(store.read(EXTRACTING), origin=f"{store.uri}/{EXTRACTING}"), True
    except FileNotFoundError:
        return read_manifest(store), False


def _index_of(store: Store, entry: ShardEntry, there: Container[str]) -> ShardIndex:
    """The shard's index. ShardError where it is of other samples than the manifest's."""
    index = current_index(store, entry.name, there=there)
    labels = {name: tuple(sample.labels.get(name, NO_LEVEL) for sample in index.samples) for name in entry.labels}
    if index.split != entry.split or labels != entry.labels:
        raise ShardError(f"{store.uri}/{entry.name}: not the shard that the manifest names; build the set again")
    return index


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
    unlisted = {reject.clip_id: reject.reason for reject in listing.rejects}
    work = []
    for index in indexes:
        tried_in_vain = {entry.feature for entry in index.lacking if not entry.final}
        missing = {
            name: own
            for name, own in extractors.items()
            if again or name in tried_in_vain or index.extractors.get(name) != makers[name]
        }
        if missing:
            clips = tuple(listed[sample.clip_id] for sample in index.samples if sample.clip_id in listed)
            gone = {sample.clip_id for sample in index.samples} & unlisted.keys()
            reasons = {clip_id: unlisted[clip_id] for clip_id in gone}
            work.append(AddFeatures(name=index.shard, clips=clips, extractors=missing, unlisted=reasons))
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
    store.write("lacking.jsonl", lacking_jsonl(indexes))
    store.write("manifest.json", manifest.to_bytes())
    store.delete(EXTRACTING)
    return manifest, lacking
