"""A recording scored in this process, without a server."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from data_shards.errors import ConfigError
from data_shards.schema import first_problem
from serving.confined.decode_child import DecodeChild
from serving.lesson.record import LessonResult
from serving.lesson.score import score_lesson
from serving.lesson.watch import LessonSettings
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from training.registry import RegisteredModel

__all__ = ["score_recording"]


def score_recording(
    recording: Path,
    registered: RegisteredModel,
    *,
    window_s: float,
    face_model: Path | None = None,
    allow_emotion: bool = False,
    progress: Callable[[float, float], None] = lambda done_s, total_s: None,
) -> LessonResult:
    """The lesson's numbers. progress(done, total) in seconds of the recording.

    ConfigError where the windows are too short or too long, ModelError where the model cannot score video, ClipError where
    the recording cannot be used.
    """
    try:
        settings = LessonSettings(window_s=window_s)
    except ValidationError as error:
        raise ConfigError(f"--window {window_s:g}s: {first_problem(error)}") from None
    predictor = Predictor(registered, allow_emotion=allow_emotion)
    child = DecodeChild(predictor.recipe)
    scoring = LocalScoring(predictor, child)
    try:
        with tempfile.TemporaryDirectory(prefix="rapt-lesson-") as folder:
            return asyncio.run(
                score_lesson(recording, scoring, Path(folder), settings=settings, face_model=face_model, progress=progress)
            )
    finally:
        child.close()
