"""What the audit knows of a clip: from a listing its labels alone, from shards its frames' hashes and faces too.

Letters: K hashed frames a clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data_shards.audit.frame_hash import frame_hashes
from data_shards.listing import Listing
from data_shards.reading.reader import ShardSet

__all__ = ["AuditedClip", "HasFace", "clips_of_listing", "clips_of_shards", "spread"]

HasFace = Callable[[npt.NDArray[np.uint8]], bool]  # frames_THWC -> whether a face is in any of them
_FACE_FRAMES = 5


@dataclass(frozen=True, kw_only=True)
class AuditedClip:
    """One clip. labels: a level below 0 is 'not labelled'. number: its place in the ShardSet, -1 for a listed clip.

    source_sha256: of the video file, "" where unknown. hashes_2K: uint64 perceptual hashes of K frames and of their
    mirror images; None where there are no frames, or nothing is to be seen in them (has_frames tells which).
    has_face: None where nobody looked.
    """

    clip_id: str
    subject: str
    session: str
    split: str
    labels: dict[str, int] = field(default_factory=dict)
    number: int = -1
    source_sha256: str = ""
    has_frames: bool = False
    hashes_2K: npt.NDArray[np.uint64] | None = None
    has_face: bool | None = None


def clips_of_listing(listing: Listing) -> list[AuditedClip]:
    """The clips of a listing: labels alone, no video is opened."""
    return [
        AuditedClip(clip_id=c.clip_id, subject=c.subject, session=c.session, split=c.split, labels=c.labels)
        for c in listing.clips
    ]


def clips_of_shards(
    shards: ShardSet,
    *,
    frames_per_clip: int,
    has_face: HasFace | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[AuditedClip]:
    """Read every sample once. A stored `face_present` is believed; only without it `has_face` looks at a few frames."""
    clips = []
    for number in range(len(shards)):
        progress(number, len(shards))
        clips.append(_clip(shards, number, frames_per_clip, has_face))
    progress(len(shards), len(shards))
    return clips


def _clip(shards: ShardSet, number: int, frames_per_clip: int, has_face: HasFace | None) -> AuditedClip:
    sample = shards.read(number)
    meta = sample.meta
    face = None if meta.face_present is None else any(meta.face_present)
    hashes = None
    if sample.has_frames:
        frames_THWC = sample.decode_frames()
        hashes = frame_hashes(frames_THWC[spread(len(frames_THWC), frames_per_clip)])
        if face is None and has_face is not None:
            face = has_face(frames_THWC[spread(len(frames_THWC), _FACE_FRAMES)])
    return AuditedClip(
        clip_id=meta.clip_id,
        subject=meta.subject,
        session=meta.session,
        split=meta.split,
        labels=meta.labels,
        number=number,
        source_sha256=meta.source_sha256,
        has_frames=sample.has_frames,
        hashes_2K=hashes,
        has_face=face,
    )


def spread(num_frames: int, num_wanted: int) -> Sequence[int]:
    """`num_wanted` frame numbers at the centres of equal parts of `num_frames`; a number repeats where there are fewer."""
    centres: list[int] = ((np.arange(num_wanted) + 0.5) * num_frames / num_wanted).astype(int).tolist()
    return centres
