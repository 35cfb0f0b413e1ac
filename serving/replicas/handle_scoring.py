"""Scoring by replicas: each stage is a call of a Ray Serve handle, with the request's deadline, and one retry of a death.

What can go wrong on the way becomes one sentence: a full queue and a second death ServiceError at once, the replica's own
RaptError what it was there. A request that is cancelled, or whose time is over, cancels its calls.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from data_shards.errors import ModelError, RaptError, ServiceError
from data_shards.extraction.clip_sample import ClipSample
from data_shards.simulation import SimulationSettings, generate
from serving.answer import AnyAnswer, Explanation
from serving.predictor import check_servable
from serving.replicas.endpoint_settings import EndpointSettings
from serving.replicas.shadow import Shadow
from serving.scoring import Deadline, ServedModel
from training.registry import RegisteredModel

__all__ = ["HandleScoring"]

_LOAD_S = 600.0  # to fetch a version, load it and start what decodes for it; new requests get the old one meanwhile
_SHADOW_S = 120.0
_POLL_S = 0.05


class HandleScoring:
    """A Scoring over the handles of the decoders and the scorers, and what swaps its model while requests go on."""

    def __init__(self, decoders: Any, scorers: Any, settings: EndpointSettings, shadow_scorers: Any | None = None) -> None:
        self._decoders, self._scorers, self._settings, self._shadow_scorers = decoders, scorers, settings, shadow_scorers
        self._current: ServedModel | None = None
        self.shadow = Shadow(self._shadow_answer, share=settings.shadow_share) if shadow_scorers else None
        self._registered: dict[str, RegisteredModel] = {}
        self._is_draining = False
        self._num_under_way = 0
        self.problem = ""
        self.held = ""  # what decodes clips, in words

    def current(self) -> ServedModel:
        if self._is_draining:
            raise ServiceError("the endpoint is stopping and takes no new requests; ask another, or try again later")
        if self._current is None:
            # who asks is not told what the problem is: it may name files and servers; the log and `rapt serve` do
            what = "cannot be loaded; tell who runs the endpoint, whose log says why" if self.problem else "is being loaded"
            raise ServiceError(f"the model {what}; try again in a {'minute' if self.problem else 'few seconds'}")
        return self._current

    async def decode(self, clip: bytes, transcript: bytes | None, model: ServedModel, deadline: Deadline) -> ClipSample:
        sample: ClipSample = await self._call(
            self._decoders.decode, clip, transcript, model.recipe, deadline, deadline=deadline, what="clips to decode"
        )
        return sample

    async def score(
        self, clips: Sequence[ClipSample], model: ServedModel, deadline: Deadline, *, decode_ms: float = 0.0
    ) -> list[AnyAnswer]:
        registered = self._registered[model.key]
        calls = [
            asyncio.ensure_future(
                self._call(self._scorers.score, clip, registered, deadline, decode_ms, deadline=deadline, what="clips to score")
            )
            for clip in clips
        ]
        try:
            answers: list[AnyAnswer] = await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()
        if self.shadow is not None:
            for clip, answer in zip(clips, answers, strict=True):
                self.shadow.offer(clip, answer, model.recipe)
        return answers

    async def explain(self, clip: ClipSample, at_s: float, model: ServedModel, deadline: Deadline) -> Explanation:
        registered = self._registered[model.key]
        explanation: Explanation = await self._call(
            self._scorers.explain, clip, at_s, registered, deadline=deadline, what="clips to score"
        )
        return explanation

    def warning(self) -> str:
        shadow = self.shadow.warning if self.shadow else ""
        return "; ".join(filter(None, (self.problem if self._current else "", shadow)))

    def take(self, registered: RegisteredModel) -> None:
        """Answer new requests with that version, once it has scored a made clip here; those under way keep theirs.

        Blocks, so it is for a thread beside the requests. RaptError where the version cannot answer: the old one goes on.
        """
        model = self._tried(self._scorers, registered)
        self._registered[model.key] = registered
        self._current = model

    def take_challenger(self, registered: RegisteredModel) -> None:
        """Compare that version in shadow from now on; as `take`."""
        assert self.shadow is not None
        model = self._tried(self._shadow_scorers, registered)
        self._registered[model.key] = registered
        self.shadow.challenger = model

    def _tried(self, scorers: Any, registered: RegisteredModel) -> ServedModel:
        """The version, loaded by all of these scorers and tried once from a clip's bytes to an answer."""
        check_servable(registered, allow_emotion=self._settings.allow_emotion)
        deadline = Deadline.within(_LOAD_S)
        # the first call waits for a replica to be there, and only then are all of them known
        model: ServedModel = _result(scorers.load.remote(registered), deadline)
        _results(scorers.broadcast("load", registered), deadline)
        self.held = _result(self._decoders.prepare.remote(model.recipe), deadline)
        _results(self._decoders.broadcast("prepare", model.recipe), deadline)
        clip, words = _made_clip()
        sample = _result(self._decoders.decode.remote(clip, words, model.recipe, deadline), deadline)
        answer: AnyAnswer = _result(scorers.score.remote(sample, registered, deadline), deadline)
        if answer.model != model.info:
            raise ModelError(f"{model.key}: a made clip was answered by {answer.model.name} {answer.model.version}")
        return model

    async def _shadow_answer(self, clip: ClipSample) -> AnyAnswer:
        """The challenger's answer, with no retry: nobody waits for it."""
        assert self.shadow is not None
        assert self.shadow.challenger is not None
        assert self._shadow_scorers is not None
        deadline = Deadline.within(_SHADOW_S)
        registered = self._registered[self.shadow.challenger.key]
        try:
            response = self._shadow_scorers.score.remote(clip, registered, deadline)
            answer: AnyAnswer = await _answered(response, deadline, "clips to compare")
        except _deaths():
            raise ServiceError("the shadow's replica has died") from None
        return answer

    async def drain(self) -> int:
        """Refuse new requests and wait for those under way, `drain_s` at most; how many were left."""
        self._is_draining = True
        quiet_since_s = loop_s = asyncio.get_running_loop().time()
        end_s = loop_s + self._settings.drain_s
        while loop_s < end_s and loop_s - quiet_since_s < 4 * _POLL_S:  # between its stages a request is in none of them
            await asyncio.sleep(_POLL_S)
            loop_s = asyncio.get_running_loop().time()
            if self._num_under_way:
                quiet_since_s = loop_s
        return self._num_under_way

    async def _call(self, method: Any, *arguments: object, deadline: Deadline, what: str) -> Any:
        self._num_under_way += 1
        try:
            try:
                return await _answered(method.remote(*arguments), deadline, what)
            except _deaths():  # nothing was answered yet: another replica may
                return await _answered(method.remote(*arguments), deadline, what)
        except _deaths():
            raise ServiceError("what worked at this clip has ended twice; try again in a minute, or send another clip") from None
        finally:
            self._num_under_way -= 1


def _deaths() -> tuple[type[Exception], ...]:
    """The errors of a call whose replica has died."""
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import ReplicaUnavailableError

    return RayActorError, ReplicaUnavailableError


async def _answered(response: Any, deadline: Deadline, what: str) -> Any:
    """The call's answer. One of `_deaths` where its replica has died."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import BackPressureError, RayServeException

    try:
        return await asyncio.wait_for(response, deadline.left_s)
    except TimeoutError:
        response.cancel()
        raise ServiceError("the request's time is over before it was answered; try again when there is less to do") from None
    except asyncio.CancelledError:
        response.cancel()
        raise
    except BackPressureError:
        raise ServiceError(f"too many {what} are waiting already; try again in a few seconds") from None
    except _deaths():
        raise
    except (RayError, RayServeException) as error:
        raise _own(error) from None


def _own(error: Exception) -> RaptError:
    """The replica's own RaptError, else a ServiceError that names what it was."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, RaptError):
        return cause
    return ServiceError(f"the clip was not scored ({type(cause or error).__name__}); try again, and look at the endpoint's log")


def _result(response: Any, deadline: Deadline) -> Any:
    """A call's result, waited for in a thread."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        return response.result(timeout_s=deadline.left_s)
    except (RayError, RayServeException, TimeoutError) as error:
        raise _own(error) from None


def _results(response: Any, deadline: Deadline) -> None:
    """Waits for what was asked of all replicas; one that has died meanwhile loads the version when it is asked to score."""
    from ray.exceptions import RayActorError, RayError
    from ray.serve.exceptions import RayServeException

    try:
        found = response.results(timeout_s=deadline.left_s, return_exceptions=True)
    except (RayError, RayServeException, TimeoutError) as error:
        raise _own(error) from None
    for each in found:
        if isinstance(each, Exception) and not isinstance(each, RayActorError):
            raise _own(each) from None


@cache
def _made_clip() -> tuple[bytes, bytes | None]:
    """A simulated clip and its transcript, for a version to be tried with."""
    with tempfile.TemporaryDirectory(prefix="rapt-made-") as name:
        folder = Path(name)
        generate(SimulationSettings(num_clips=1, fps=5, duration_s=10), folder)
        words = next((folder / "transcripts").iterdir(), None)
        return next((folder / "clips").iterdir()).read_bytes(), words.read_bytes() if words else None
