"""A lesson scored in a process of its own, which a test can kill.

python -m tests.serving.lesson_scoring BUNDLE RECORDING FOLDER
"""

import asyncio
import sys
from pathlib import Path

from serving.confined.decode_child import DecodeChild
from serving.lesson.score import score_lesson
from serving.lesson.watch import LessonSettings
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from training.registry import RegisteredModel

__all__ = ["SETTINGS", "local_scoring"]

SETTINGS = LessonSettings(window_s=5, stretch_s=10)


def local_scoring(bundle: Path) -> LocalScoring:
    """What scores in this process; clips are not decoded here."""
    predictor = Predictor(RegisteredModel(name="engagement", version="1", folder=bundle))
    return LocalScoring(predictor, DecodeChild(predictor.recipe))


def main() -> None:
    bundle, recording, folder = (Path(argument) for argument in sys.argv[1:])
    result = asyncio.run(score_lesson(recording, local_scoring(bundle), folder, settings=SETTINGS))
    sys.stdout.write(result.model_dump_json())


if __name__ == "__main__":
    main()
