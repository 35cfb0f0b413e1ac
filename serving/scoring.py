"""What the HTTP app scores with: a contract with two sides, this process (here) and Ray Serve's replicas (`deployments`)."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_shards.errors import ServiceError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample
from serving.answer import AnyAnswer, ModelInfo
from serving.decode_child import DecodeChild
from serving.predictor import Predictor

__all__ = ["Deadline", "LocalScoring", "Scoring", "ServedModel", "decode_upload"]


@dataclass(frozen=True)
class Deadline:
    """Until when a request is to be answered, handed down to each stage. at_s: by time.time(), for it crosses processes."""

    at_s: float

    @classmethod
    def within(cls, seconds: float) -> "Deadline":
        return cls(time.time() + seconds)

    @property
    def left_s(self) -> float:
        """Seconds left; ServiceError where there are none."""
        left = self.at_s - time.time()
        if left <= 0:
            raise ServiceError("the request's time is over before it was answered; try again when there is less to do")
        return left


@dataclass(frozen=True)
class ServedModel:
    """A model that answers now. A request keeps to one from its decoding to its score, whatever is swapped meanwhile.

    key: names the model to whom it is handed back. recipe: how a clip becomes what it reads.
    """

    key: str
    info: ModelInfo
    recipe: ClipRecipe


class Scoring(Protocol):
    """A clip's bytes to a sample, and samples to answers; a request that is cancelled stops its work."""

    def current(self) -> ServedModel:
        """The model that new requests get. ServiceError where none is loaded yet."""
        ...

    async def decode(self, clip: bytes, transcript: bytes | None, model: ServedModel, deadline: Deadline) -> ClipSample:
        """Decoded in a child process. ClipError where the clip cannot be used, ServiceError where there is no room or time."""
        ...

    async def score(
        self, clips: Sequence[ClipSample], model: ServedModel, deadline: Deadline, *, decode_ms: float = 0.0
    ) -> list[AnyAnswer]:
        """The answer to each clip, in order. ClipError where one lacks what the model cannot do without."""
        ...


class LocalScoring:
    """One predictor and one decode child of this process."""

    def __init__(self, predictor: Predictor, child: DecodeChild) -> None:
        self._predictor, self._child = predictor, child
        self._model = ServedModel(key=predictor.info.version, info=predictor.info, recipe=predictor.recipe)

    def current(self) -> ServedModel:
        return self._model

    async def decode(self, clip: bytes, transcript: bytes | None, model: ServedModel, deadline: Deadline) -> ClipSample:
        return await asyncio.to_thread(decode_upload, self._child, clip, transcript)

    async def score(
        self, clips: Sequence[ClipSample], model: ServedModel, deadline: Deadline, *, decode_ms: float = 0.0
    ) -> list[AnyAnswer]:
        return await asyncio.to_thread(lambda: self._predictor.score_many(clips, decode_ms=decode_ms))


def decode_upload(child: DecodeChild, clip: bytes, transcript: bytes | None) -> ClipSample:
    """Decode an upload from a file that has a name of ours, never the uploader's, and is gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="rapt-upload-") as folder:
        path = Path(folder) / "clip"
        path.write_bytes(clip)
        words = None
        if transcript is not None:
            words = Path(folder) / ("words.json" if transcript.lstrip()[:1] in (b"{", b"[") else "words.vtt")
            words.write_bytes(transcript)
        return child.sample_of(path, words)
