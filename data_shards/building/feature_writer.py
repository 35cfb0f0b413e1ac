"""Add features to one finished shard: its samples as they are, and beside them what extractors make of their clips."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from data_shards.building.shard_swap import swap_shard
from data_shards.building.shard_work import ShardWork
from data_shards.decode import DecodeLimits, part_centres_s
from data_shards.errors import ClipError
from data_shards.extraction import EXTRACTORS, Extractor, ExtractorSettings
from data_shards.extraction.extract import Extracted, extract_features, material_of
from data_shards.extraction.openface import face_present
from data_shards.extraction.recorded import described
from data_shards.listing import ListedClip
from data_shards.manifest import Lacking, ShardIndex, current_index
from data_shards.sample import Sample
from data_shards.storage.store import Store, fetched, file_sha256

__all__ = ["AddFeatures"]

_CRASHED = "crashed the extractor; re-encode it"


@dataclass(frozen=True, kw_only=True)
class AddFeatures(ShardWork):
    """The shard's clips where they were found again, and the settings of the extractors to run on them, by feature.

    unlisted: why clips that were listed for the build are rejects now.
    """

    extractors: Mapping[str, ExtractorSettings]
    unlisted: Mapping[str, str] = field(default_factory=dict)

    def write(self, store: Store, *, on_clip: Callable[[str], None]) -> ShardIndex:
        index = current_index(store, self.name)
        extractors = {name: _loaded(name, settings) for name, settings in self.extractors.items()}
        clips = {clip.clip_id: clip for clip in self.clips}
        samples: list[tuple[str, Sample]] = []
        lacking = [entry for entry in index.lacking if entry.feature not in extractors]
        with fetched(store, self.name, sha256=index.sha256) as path, path.open("rb") as tar:
            for indexed in index.samples:
                sample = Sample.from_members(indexed.read(tar), origin=f"{self.name}: {indexed.key}")
                try:
                    found, final = self._extracted(sample, clips.get(indexed.clip_id), extractors, on_clip), True
                except ClipError as error:  # of the file, not of what is in it: it may be another one next time
                    found, final = Extracted(lacking=dict.fromkeys(extractors, str(error))), False
                kept = {name: values for name, values in sample.features.items() if name not in extractors}
                samples.append((indexed.key, _with_faces(replace(sample, features={**kept, **found.features}))))
                lacking += [
                    Lacking(clip_id=indexed.clip_id, feature=name, reason=why, final=final) for name, why in found.lacking.items()
                ]
        makers = {name: described(name, extractor) for name, extractor in extractors.items()}
        # by name, so that the order in which features were added leaves no trace
        by_name = dict(sorted({**index.extractors, **makers}.items()))
        lacking.sort(key=lambda entry: (entry.clip_id, entry.feature))
        return swap_shard(store, index, samples, extractors=by_name, lacking=lacking)

    def _extracted(
        self,
        sample: Sample,
        clip: ListedClip | None,
        extractors: Mapping[str, Extractor],
        on_clip: Callable[[str], None],
    ) -> Extracted:
        """The features of one clip. ClipError where it is gone, is another one now, or killed a process."""
        if clip is None:
            raise ClipError(self.unlisted.get(sample.meta.clip_id, "no longer listed where the clips are"))
        if clip.clip_id in self.crashed:
            raise ClipError(_CRASHED)
        on_clip(clip.clip_id)
        with material_of(clip) as material:
            if material.video and sample.has_frames and file_sha256(material.video) != sample.meta.source_sha256:
                raise ClipError("not the file that the shard was built from; build the set again")
            return extract_features(material, extractors, DecodeLimits())


def _with_faces(sample: Sample) -> Sample:
    """The sample, saying in which of its frames a face is, where rows of `openface` tell it of the whole clip."""
    rows_TD = sample.features.get("openface")
    if rows_TD is None or not sample.has_frames or sample.meta.duration_s is None:
        return replace(sample, meta=sample.meta.model_copy(update={"face_present": None}))
    row_times_T = part_centres_s(len(rows_TD), sample.meta.duration_s)
    present = face_present(rows_TD, row_times_T.tolist(), sample.meta.frame_times_s)
    return replace(sample, meta=sample.meta.model_copy(update={"face_present": present}))


@cache
def _loaded(name: str, settings: ExtractorSettings) -> Extractor:
    """One extractor a process and feature: weights are loaded once, and freed when the process ends."""
    return EXTRACTORS[name](settings)
