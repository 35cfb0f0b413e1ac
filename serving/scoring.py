"""What the HTTP app scores with: a contract with two sides, this process (here) and Ray Serve's replicas (`deployments`)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from data_shards.errors import ServiceError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample
from serving.answer import AnyAnswer, Explanation, ModelInfo
from serving.confined.decode_child import DecodeChild

if TYPE_CHECKING:
    from serving.predictor import Predictor  # with all models' code, which a process that only decodes does without

__all__ = ["Deadline", "DecodeTurn", "LocalScoring", "Scoring", "ServedModel"]

_Result = TypeVar("_Result")


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

    async def explain(self, clip: ClipSample, at_s: float, model: ServedModel, deadline: Deadline) -> Explanation:
        """Where the model looked at_s seconds into the clip. ClipError where it reads no frames."""
        ...

    def warning(self) -> str:
        """What its operator should mend although it answers, "" for nothing: for their eyes, as it may name files and servers."""
        ...


class DecodeTurn:
    """Blocking work, one call at a time, in a thread that lives as long as this: the system ends a child together with the
    thread that started it. Of one event loop.

    What is cancelled, or over its deadline, before its turn is never begun. What is under way then has grace_s to come to its
    end, since most clips take less than a new child takes to start [choice]; then it is killed, and until then the next waits.
    """

    def __init__(self, *, grace_s: float = 1.0) -> None:
        self._grace_s = grace_s
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")

    async def take(self, work: Callable[[], _Result], deadline: Deadline, *, kill: Callable[[], None]) -> _Result:
        """What the work gives. kill: ends it, from another thread. ServiceError where the deadline passes first."""
        async with _until(deadline):
            await self._turn.acquire()
        loop = asyncio.get_running_loop()
        under_way = loop.run_in_executor(self._thread, work)
        under_way.add_done_callback(self._end)
        try:
            async with _until(deadline):
                return await asyncio.shield(under_way)
        finally:
            if not under_way.done():
                # by then the child may be at the next clip
                loop.call_later(self._grace_s, lambda: None if under_way.done() else kill())

    def _end(self, work: "asyncio.Future[_Result]") -> None:
        self._turn.release()
        if not work.cancelled():
            work.exception()  # looked at, for perhaps nobody waits any more to whom it would be told


class LocalScoring:
    """One predictor and one decode child of this process. grace_s: DecodeTurn's."""

    def __init__(self, predictor: "Predictor", child: DecodeChild, *, grace_s: float = 1.0) -> None:
        self._predictor, self._child = predictor, child
        self._model = ServedModel(key=predictor.info.version, info=predictor.info, recipe=predictor.recipe)
        self._turn = DecodeTurn(grace_s=grace_s)

    def current(self) -> ServedModel:
        return self._model

    async def decode(self, clip: bytes, transcript: bytes | None, model: ServedModel, deadline: Deadline) -> ClipSample:
        work = partial(self._child.sample_of_upload, clip, transcript)
        return await self._turn.take(work, deadline, kill=self._child.kill)

    async def score(
        self, clips: Sequence[ClipSample], model: ServedModel, deadline: Deadline, *, decode_ms: float = 0.0
    ) -> list[AnyAnswer]:
        async with _until(deadline):
            return await asyncio.to_thread(lambda: self._predictor.score_many(clips, decode_ms=[decode_ms] * len(clips)))

    async def explain(self, clip: ClipSample, at_s: float, model: ServedModel, deadline: Deadline) -> Explanation:
        from serving.gradcam import where_it_looked

        async with _until(deadline):
            return await asyncio.to_thread(where_it_looked, self._predictor, clip, at_s)

    def warning(self) -> str:
        return ""


@asynccontextmanager
async def _until(deadline: Deadline) -> AsyncIterator[None]:
    """ServiceError where the deadline passes before the block ends."""
    left_s = deadline.left_s
    try:
        async with asyncio.timeout(left_s):
            yield
    except TimeoutError:
        _ = deadline.left_s
        raise
