"""A recording of a lesson to a LessonResult: watched in a child, scored window by window, gone on with where it was killed."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from data_shards.errors import ClipError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample
from data_shards.extraction.look import Look
from data_shards.face_model import face_model_path
from serving.answer import AnyAnswer, Window
from serving.confined.child_messages import ChildGone
from serving.confined.sample_message import sample_of_members
from serving.lesson.child import WatchChild, WatchOrder
from serving.lesson.journal import Journal, LessonHead, ScoredPerson, ScoredWindow
from serving.lesson.messages import Begun, Ended, Marked, Passed, PersonSeen, WindowSeen
from serving.lesson.record import LessonResult
from serving.lesson.timeline import lesson_result
from serving.lesson.watch import LessonSettings
from serving.scoring import Deadline, Scoring, ServedModel

__all__ = ["score_lesson"]

_BATCH = 8  # people that are scored at once: with sixteen clips beside them they fit into the scorers' bounded queue
_BATCH_S = 300.0

Progress = Callable[[float, float], None]


async def score_lesson(
    path: Path,
    scoring: Scoring,
    folder: Path,
    *,
    settings: LessonSettings | None = None,
    face_model: Path | None = None,
    progress: Progress = lambda done_s, total_s: None,
) -> LessonResult:
    """Score the recording at `path`. `folder` keeps what is known so far: called again after a kill, with the same recording,
    settings and model, it goes on from the last finished stretch, and its result is the same but for took_s.

    progress(done, total) in seconds of the recording. Cancelled, it ends its child and keeps the folder. ClipError where the
    recording cannot be used; ServiceError where the service cannot score now.
    """
    settings = settings or LessonSettings()
    begun_s = time.monotonic()
    model = scoring.current()
    journal = await asyncio.to_thread(_opened, folder, path, model, settings)
    finds_faces = await asyncio.to_thread(face_model_path, face_model)
    order = WatchOrder(
        path=path,
        recipe=model.recipe,
        settings=settings,
        face_model=finds_faces,
        scratch=journal.clips,
        state=journal.state,
    )
    child = WatchChild(order)
    child.start()  # by this thread, which lasts: Linux ends a child with the thread that started it
    before_s = journal.took_s
    begun: Begun | None = None
    told = asyncio.ensure_future(asyncio.to_thread(child.next))
    marked: asyncio.Future[None] = asyncio.ensure_future(asyncio.sleep(0))
    try:
        while True:
            message, blobs = await asyncio.shield(told)  # its thread cannot be cancelled
            if isinstance(message, Ended):
                break
            told = asyncio.ensure_future(asyncio.to_thread(child.next))  # the child goes on while its window is scored
            if isinstance(message, Begun):
                begun = message
            elif isinstance(message, Passed):
                progress(message.time_s, max(begun.duration_s if begun else 0.0, message.time_s))
            elif isinstance(message, WindowSeen):
                journal.add(await _scored(message, blobs, scoring, model))
            elif isinstance(message, Marked):
                took_s = before_s + time.monotonic() - begun_s
                marked = asyncio.ensure_future(
                    asyncio.to_thread(journal.mark, blobs[0], next_window=message.next_window, took_s=took_s)
                )
                await asyncio.shield(marked)
    finally:
        child.kill()
        # its thread ends with the child; and nothing is written to the folder once this has ended, for it may be deleted then
        await asyncio.gather(told, marked, return_exceptions=True)
        child.close()
    assert begun is not None
    progress(message.end_s, message.end_s)
    took_s = before_s + time.monotonic() - begun_s
    return lesson_result(begun, journal.windows, message, model.info, window_s=settings.window_s, took_s=took_s)


def _opened(folder: Path, path: Path, model: ServedModel, settings: LessonSettings) -> Journal:
    try:
        stat = path.stat()
    except OSError as error:
        raise ClipError(f"{path.name}: cannot be read ({error.strerror})") from None
    journal = Journal(folder)
    named = f"{model.info.name} {model.info.version} {model.info.run_id}"
    journal.open(LessonHead(model=named, settings=settings, recording=(stat.st_size, stat.st_mtime_ns)))
    return journal


async def _scored(message: WindowSeen, blobs: tuple[bytes, ...], scoring: Scoring, model: ServedModel) -> ScoredWindow:
    """The window with everybody's score, in batches of those who have a face."""
    clips = _clips(message, blobs, model.recipe)
    answers: dict[int, AnyAnswer] = {}
    tracks = list(clips)
    for begin in range(0, len(tracks), _BATCH):
        part = tracks[begin : begin + _BATCH]
        scored = await scoring.score([clips[track] for track in part], model, Deadline.within(_BATCH_S))
        answers |= dict(zip(part, scored, strict=True))
    people = [
        ScoredPerson(track=seen.track, tile=seen.tile, window=window)
        for seen in message.people
        if (window := _window(seen, answers.get(seen.track), message.start_s, message.end_s)) is not None
    ]
    return ScoredWindow(number=message.number, start_s=message.start_s, end_s=message.end_s, people=tuple(people))


def _clips(message: WindowSeen, blobs: tuple[bytes, ...], recipe: ClipRecipe) -> dict[int, ClipSample]:
    """Track's number to what is to be scored. ClipError where the child, which a recording may have taken over, made it up."""
    clips, at = {}, 0
    for seen in message.people:
        members = dict(zip(seen.members, blobs[at : at + len(seen.members)], strict=True))
        at += len(members)
        if members:
            try:
                sample = sample_of_members(members, recipe)
            except ChildGone:
                raise ClipError("the recording is damaged: it broke the decoder; re-encode it") from None
            clips[seen.track] = ClipSample(sample, seen.lacking, Look(seen.face_share, camera_off=False))
    return clips


def _window(seen: PersonSeen, answer: AnyAnswer | None, start_s: float, end_s: float) -> Window | None:
    """A person's window; None where the model finds it too short to judge."""
    known = {"start_s": start_s, "end_s": end_s, "face_share": seen.face_share}
    if answer is None:
        assert seen.seen != "face"
        return Window(**known, status=seen.seen)
    if answer.status == "too_short":
        return None
    if answer.status != "scored":
        return Window(**known, status=answer.status)
    return Window(**known, status="scored", score=answer.score, level_index=answer.level_index)
