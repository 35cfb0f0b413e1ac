"""Add features to one finished shard: its samples as they are, and beside them what extractors make of their clips.

The tar is replaced in one step. `NAME.next.json`, the index that goes with the new tar, is written before that step, so
that a killed process leaves a tar whose index is there, the old one or the new.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from data_shards.building.shard_work import ShardWork
from data_shards.building.shard_writer import write_tar
from data_shards.decode import DecodeLimits
from data_shards.errors import ClipError, ShardError
from data_shards.extraction import EXTRACTORS, Extractor, ExtractorSettings
from data_shards.extraction.extract import Extracted, extract_features, material_of
from data_shards.extraction.openface import face_present
from data_shards.extraction.recorded import described
from data_shards.listing import Extractors, ListedClip
from data_shards.manifest import IndexedSample, Lacking, ShardIndex, index_name
from data_shards.sample import Sample
from data_shards.storage.store import Store, fetched, file_sha256, published

__all__ = ["AddFeatures", "current_index"]

_CRASHED = "crashed the extractor; re-encode it"


@dataclass(frozen=True, kw_only=True)
class AddFeatures(ShardWork):
    """The shard's clips where they were found again, and the settings of the extractors to run on them, by feature."""

    extractors: Mapping[str, ExtractorSettings]

    def write(self, store: Store, *, on_clip: Callable[[str], None]) -> ShardIndex:
        index = current_index(store, self.name)
        extractors = {name: _loaded(name, settings) for name, settings in self.extractors.items()}
        clips = {clip.clip_id: clip for clip in self.clips}
        samples: list[tuple[str, Sample]] = []
        lacking = [entry for entry in index.lacking if entry.feature not in extractors]
        with fetched(store, self.name, sha256=index.sha256) as tar:
            for indexed in index.samples:
                sample = _sample(tar, indexed)
                found = self._extracted(sample, clips.get(indexed.clip_id), extractors, on_clip)
                kept = {name: values for name, values in sample.features.items() if name not in extractors}
                samples.append((indexed.key, _with_faces(replace(sample, features={**kept, **found.features}))))
                lacking += [Lacking(clip_id=indexed.clip_id, feature=name, reason=why) for name, why in found.lacking.items()]
        makers = {name: described(name, extractor) for name, extractor in extractors.items()}
        # by name, so that the order in which features were added leaves no trace
        by_name = dict(sorted({**index.extractors, **makers}.items()))
        return _replace(store, index, samples, by_name, tuple(sorted(lacking, key=lambda entry: (entry.clip_id, entry.feature))))

    def _extracted(
        self,
        sample: Sample,
        clip: ListedClip | None,
        extractors: Mapping[str, Extractor],
        on_clip: Callable[[str], None],
    ) -> Extracted:
        """The features of one clip. A clip that is gone, is another one now, or killed a process lacks them all."""
        try:
            if clip is None:
                raise ClipError("no longer listed where the clips are")
            if clip.clip_id in self.crashed:
                raise ClipError(_CRASHED)
            on_clip(clip.clip_id)
            with material_of(clip) as material:
                if material.video and sample.has_frames and file_sha256(material.video) != sample.meta.source_sha256:
                    raise ClipError("not the file that the shard was built from; build the set again")
                return extract_features(material, extractors, DecodeLimits())
        except ClipError as error:
            return Extracted(lacking=dict.fromkeys(extractors, str(error)))


def current_index(store: Store, name: str) -> ShardIndex:
    """The index that goes with the shard's tar as it lies there. ShardError where the tar is neither the old nor the new one."""
    index = ShardIndex.from_bytes(store.read(index_name(name)), origin=f"{store.uri}/{index_name(name)}")
    try:
        coming = ShardIndex.from_bytes(store.read(_next_name(name)), origin=f"{store.uri}/{_next_name(name)}")
    except FileNotFoundError:
        return index
    with fetched(store, name) as tar:
        found = file_sha256(tar)
    if found == coming.sha256:
        store.write(index_name(name), coming.to_bytes())
        index = coming
    elif found != index.sha256:
        raise ShardError(f"{store.uri}/{name}: its sha256 is not its index's; copy the set again, or build it again")
    store.delete(_next_name(name))
    return index


def _replace(
    store: Store,
    index: ShardIndex,
    samples: list[tuple[str, Sample]],
    extractors: Extractors,
    lacking: tuple[Lacking, ...],
) -> ShardIndex:
    with published(store, index.shard) as beside:
        content = write_tar(beside, samples)._asdict()
        new = ShardIndex.model_validate({**dict(index), **content, "extractors": extractors, "lacking": lacking})
        store.write(_next_name(index.shard), new.to_bytes())
    store.write(index_name(index.shard), new.to_bytes())
    store.delete(_next_name(index.shard))
    return new


def _sample(tar: Path, indexed: IndexedSample) -> Sample:
    """A sample out of the tar, all its members."""
    members = {}
    with tar.open("rb") as file:
        for extension, (offset, size) in indexed.members.items():
            file.seek(offset)
            members[extension] = file.read(size)
    return Sample.from_members(members, origin=f"{tar.name}: {indexed.key}")


def _with_faces(sample: Sample) -> Sample:
    """The sample, saying in which of its frames a face is, where rows of `openface` tell it of the whole clip."""
    rows_TD = sample.features.get("openface")
    if rows_TD is None or not sample.has_frames or sample.meta.duration_s is None:
        return sample
    row_times_T = (np.arange(len(rows_TD)) + 0.5) * sample.meta.duration_s / len(rows_TD)
    present = face_present(rows_TD, row_times_T.tolist(), sample.meta.frame_times_s)
    return replace(sample, meta=sample.meta.model_copy(update={"face_present": present}))


def _next_name(shard: str) -> str:
    return shard.removesuffix(".tar") + ".next.json"


@cache
def _loaded(name: str, settings: ExtractorSettings) -> Extractor:
    """One extractor a process and feature: weights are loaded once, and freed when the process ends."""
    return EXTRACTORS[name](settings)
