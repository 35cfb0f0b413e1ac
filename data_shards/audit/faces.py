"""Clips in which nobody is seen: they have a label, but nothing that it could be read from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_shards.audit.findings import Finding, finding
from data_shards.audit.records import AuditedClip, HasFace

__all__ = ["clips_without_face", "face_detector"]


@contextmanager
def face_detector(model_path: Path | None) -> Iterator[HasFace | None]:
    """`has_face(frames_THWC)` by the named model, or None where none is named."""
    if model_path is None:
        yield None
        return
    from data_shards.gallery.faces import FaceFinder

    with FaceFinder(model_path, max_faces=1) as finder:
        yield lambda frames_THWC: any(finder.find(frame_HWC) for frame_HWC in frames_THWC)


def clips_without_face(clips: Sequence[AuditedClip]) -> list[Finding]:
    """A finding where no face was found in any frame that was looked at."""
    cases = [f"{clip.split}/{clip.clip_id}" for clip in clips if clip.has_face is False]
    return finding("no_face", "warning", "clips in which no face was found", cases)
