"""A gallery recording to a folder of clips with a labels.csv that the dataset `folder` reads.

Two passes over the recording, each a stream: the first finds the people (kept as `people.json`, so it is done once), the
second cuts every clip that is not there yet. A killed run started again goes on; labels that a person filled in stay.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.atomic import fsync_folder, write_whole
from data_shards.errors import ConfigError, DataError
from data_shards.gallery.cutter import Cutter
from data_shards.gallery.faces import FindFaces
from data_shards.gallery.labels_csv import write_labels
from data_shards.gallery.people import People, find_people
from data_shards.gallery.plan import CutSettings, PlannedClip, even_spans, plan_clips
from data_shards.gallery.recording import Recording, RecordingStream, Sound, open_recording
from data_shards.gallery.tiles_picture import draw_tiles
from data_shards.listing import Reject
from data_shards.schema import Stored
from data_shards.transcript import Transcript

__all__ = ["CutPlan", "CutSummary", "cut_planned", "plan_cut"]

Progress = Callable[[int, int], None]


class _Origin(Stored):
    """What a folder was cut from; another recording, transcript or setting does not go into the same folder."""

    recording: str
    sha256: str
    session: str
    transcript_sha256: str
    settings: CutSettings


class CutSummary(Stored):
    """What a folder holds after a cut. num_made counts the clips made by this run."""

    recording: str
    duration_s: float
    num_people: int
    num_clips: int
    num_made: int
    num_left_out: int
    num_to_label: int
    has_sound: bool


@dataclass(frozen=True)
class CutPlan:
    """What a recording is cut into, as `plan_cut` found it."""

    recording: Recording
    folder: Path
    session: str
    people: People
    clips: tuple[PlannedClip, ...]
    rejects: tuple[Reject, ...]


def plan_cut(
    path: Path,
    folder: Path,
    find_faces: FindFaces,
    *,
    settings: CutSettings,
    transcript: Transcript | None = None,
    session: str = "",
    progress: Progress = lambda done_s, total_s: None,
) -> CutPlan:
    """Find the people in the recording at `path` and plan its clips; `folder` is marked as this plan's.

    Give a transcript, or settings.every_s. progress counts seconds of the recording. ConfigError where the folder holds
    something else, DataError or ClipError where the recording or the transcript cannot be used.
    """
    if (transcript is None) == (settings.every_s is None):
        raise ConfigError("a recording is cut either by a transcript's utterances or every so many seconds; give one of the two")
    recording = open_recording(path)
    session = session or path.stem
    _claim(folder, recording, settings, transcript, session)
    people = _people(folder, recording, find_faces, settings, progress)
    if transcript is not None:
        utterances = transcript.utterances
    else:
        assert settings.every_s is not None
        utterances = tuple(even_spans(people.end_s, settings.every_s))
    clips, rejects = plan_clips(people, utterances, settings, recording=path.name)
    rejects = [*people.rejects, *(transcript.rejects if transcript else ()), *rejects]
    return CutPlan(recording, folder, session, people, tuple(clips), tuple(rejects))


def cut_planned(plan: CutPlan, *, progress: Progress = lambda done, total: None) -> CutSummary:
    """Cut the plan's clips that are not there yet, with labels.csv, rejects.jsonl and tiles.jpg. progress counts clips."""
    folder = plan.folder
    try:
        if not (folder / "tiles.jpg").exists():
            draw_tiles(plan.recording, plan.people, folder / "tiles.jpg")
        num_made = _cut_missing(folder, plan.recording, plan.clips, progress)
        num_to_label = write_labels(folder, plan.clips, plan.session)
        write_whole(folder / "rejects.jsonl", b"".join(reject.to_bytes() for reject in plan.rejects))
    except OSError as error:
        raise DataError(
            f"{folder}: the clips cannot be written ({error.strerror or error}); make room, then run the same command: "
            "finished clips are kept"
        ) from None
    return CutSummary(
        recording=plan.recording.path.name,
        duration_s=plan.people.end_s,
        num_people=len(plan.people.people),
        num_clips=len(plan.clips),
        num_made=num_made,
        num_left_out=len(plan.rejects),
        num_to_label=num_to_label,
        has_sound=plan.recording.sound_rate_hz > 0,
    )


def _claim(folder: Path, recording: Recording, settings: CutSettings, transcript: Transcript | None, session: str) -> None:
    """Mark the folder with what it is cut from, or make sure that it is marked with the same."""
    spoken = b"".join(utterance.to_bytes() for utterance in transcript.utterances) if transcript else b""
    with recording.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    origin = _Origin(
        recording=recording.path.name,
        sha256=sha256,
        session=session,
        transcript_sha256=hashlib.sha256(spoken).hexdigest() if transcript else "",
        settings=settings,
    )
    marker = folder / "cut.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [name for name in os.listdir(folder) if ".partial-" not in name]
        if "cut.json" not in names and names:
            raise ConfigError(f"{folder}: holds files that were not cut ({names[0]}); name a new or empty folder as OUT")
        if "clips" not in names:  # nothing was cut yet: an earlier run that failed binds nobody
            if "cut.json" in names and marker.read_bytes() != origin.to_bytes():
                (folder / "people.json").unlink(missing_ok=True)
                (folder / "tiles.jpg").unlink(missing_ok=True)
            write_whole(marker, origin.to_bytes())
        before = _Origin.from_bytes(marker.read_bytes(), origin=marker)
    except OSError as error:
        raise DataError(f"{folder}: the output folder cannot be used ({error.strerror}); name another OUT") from None
    differing = [name for name in _Origin.model_fields if getattr(before, name) != getattr(origin, name)]
    if differing:
        what = {"sha256": "recording", "transcript_sha256": "transcript"}.get(differing[0], differing[0])
        raise ConfigError(f"{folder}: was cut before, with a different choice of {what}; name another OUT, or delete this one")


def _people(folder: Path, recording: Recording, find_faces: FindFaces, settings: CutSettings, progress: Progress) -> People:
    """Who is in the recording: found, or read where an earlier run found them."""
    stored = folder / "people.json"
    if stored.exists():
        return People.from_bytes(stored.read_bytes(), origin=stored)
    people = find_people(recording, find_faces, looks_per_s=settings.looks_per_s, progress=progress)
    write_whole(stored, people.to_bytes())
    return people


def _cut_missing(folder: Path, recording: Recording, clips: Sequence[PlannedClip], progress: Progress) -> int:
    """Cut the clips that are not there yet in one pass; returns their number."""
    missing = [clip for clip in clips if not (folder / clip.name).exists()]
    num_done = len(clips) - len(missing)
    progress(num_done, len(clips))
    if not missing:
        return 0
    for leftover in (folder / "clips").glob(".*.partial-*"):
        leftover.unlink()
    cutter = Cutter(folder, recording, missing)
    try:
        stream = RecordingStream(recording, with_sound=True)
        for piece in stream:
            if isinstance(piece, Sound):
                cutter.hear(piece)
            else:
                cutter.show(piece)
            progress(num_done + cutter.num_finished, len(clips))
        cutter.finish()
    except BaseException as error:
        cutter.abandon(error)
        raise
    fsync_folder(folder / "clips")
    progress(len(clips), len(clips))
    return len(missing)
