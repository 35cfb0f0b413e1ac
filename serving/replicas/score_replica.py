"""What runs in a scorer: the model's last versions. A plain class, which `deployments` puts on Ray Serve."""

import asyncio
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch

from data_shards.errors import RaptError, ServiceError
from data_shards.extraction.clip_sample import ClipSample
from serving.answer import AnyAnswer, Explanation
from serving.gradcam import where_it_looked
from serving.predictor import Predictor
from serving.replicas.batching import Batcher
from serving.replicas.endpoint_settings import EndpointSettings
from serving.scoring import Deadline, ServedModel
from training.registry import RegisteredModel, resolve

__all__ = ["ScoreReplica", "model_key"]

_LOG = logging.getLogger("rapt.serving")
_MAX_MODELS = 3  # the alias's, the one before it, and a version that is tried


def model_key(registered: RegisteredModel) -> str:
    """What names a version wherever it is loaded: its address in the registry, or the folder of a plain bundle."""
    return f"models:/{registered.name}/{registered.version}" if registered.version else str(registered.folder)


@dataclass(frozen=True)
class _Waiting:
    """A clip in the model's queue."""

    clip: ClipSample
    registered: RegisteredModel
    deadline: Deadline
    decode_ms: float


class ScoreReplica:
    """The last few versions of a model, each clip scored by the version that its request began with.

    patient: gives way to all other processes of the machine, for work that no request waits for.
    """

    def __init__(self, settings: EndpointSettings, *, patient: bool = False) -> None:
        self._settings = settings
        self._predictors: OrderedDict[str, Predictor] = OrderedDict()
        self._table, self._loading = Lock(), Lock()
        # one thread: an explanation that is cancelled before its turn is never begun, and none keeps a version from being loaded
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="explain")
        # Ray sets OMP_NUM_THREADS to the CPUs that it has put aside: the model would be slower than without a server
        torch.set_num_threads(os.cpu_count() or 1)
        if patient:
            os.nice(19)
        self._batcher: Batcher[_Waiting, AnyAnswer] = Batcher(
            self._score_batch, max_size=settings.batch_size, max_wait_s=settings.batch_wait_ms / 1000
        )

    async def load(self, registered: RegisteredModel) -> ServedModel:
        """Load a version beside those that answer. ModelError where it cannot be had or may not answer."""
        predictor = await asyncio.to_thread(self._predictor, registered)
        return ServedModel(key=model_key(registered), info=predictor.info, recipe=predictor.recipe)

    async def score(self, clip: ClipSample, registered: RegisteredModel, deadline: Deadline, decode_ms: float = 0.0) -> AnyAnswer:
        """The clip's answer by that version. ClipError where the clip lacks what the model reads."""
        return await self._batcher.ask(_Waiting(clip, registered, deadline, decode_ms))

    async def explain(self, clip: ClipSample, at_s: float, registered: RegisteredModel) -> Explanation:
        """Where that version looked at a moment of the clip."""
        return await asyncio.get_running_loop().run_in_executor(
            self._explaining, lambda: where_it_looked(self._predictor(registered), clip, at_s)
        )

    async def batch_sizes(self) -> dict[int, int]:
        """How many batches of each size were scored."""
        return dict(self._batcher.sizes)

    def _score_batch(self, batch: Sequence[_Waiting]) -> list[AnyAnswer | Exception]:
        """Each clip's answer or its own error; clips of one version go through the model together."""
        results: list[AnyAnswer | Exception | None] = [None] * len(batch)
        for key in {model_key(each.registered) for each in batch}:
            places = [place for place, each in enumerate(batch) if model_key(each.registered) == key]
            for place, answer in zip(places, self._answers([batch[place] for place in places]), strict=True):
                results[place] = answer
        return [result for result in results if result is not None]

    def _answers(self, batch: Sequence[_Waiting]) -> list[AnyAnswer | Exception]:
        """The answers of one version, in order. What is wrong with one clip or version, foreseen or not, is no other's."""
        try:
            predictor = self._predictor(batch[0].registered)
        except Exception as error:
            return [error] * len(batch)
        found: list[AnyAnswer | Exception | None] = [_lateness(each) for each in batch]
        in_time = [place for place, late in enumerate(found) if late is None]
        for place, answer in zip(in_time, self._together(predictor, [batch[place] for place in in_time]), strict=True):
            found[place] = answer
        return [each for each in found if each is not None]

    def _together(self, predictor: Predictor, batch: Sequence[_Waiting]) -> list[AnyAnswer | Exception]:
        try:
            clips, decode_ms = [each.clip for each in batch], [each.decode_ms for each in batch]
            return list(predictor.score_many(clips, decode_ms=decode_ms))
        except Exception as error:  # one of them: which, is found one by one
            if not isinstance(error, RaptError):
                _LOG.warning("a batch of %d was not scored together (%s)", len(batch), type(error).__name__, exc_info=error)
            return [_answer(predictor, each) for each in batch]

    def _predictor(self, registered: RegisteredModel) -> Predictor:
        """The version's predictor. Loading one holds up nobody who asks for another."""
        key = model_key(registered)
        with self._table:
            if key in self._predictors:
                self._predictors.move_to_end(key)
                return self._predictors[key]
        with self._loading:
            predictor = self._predictors.get(key) or self._loaded(registered)
            with self._table:
                self._predictors[key] = predictor
                while len(self._predictors) > _MAX_MODELS:
                    self._predictors.popitem(last=False)
            return predictor

    def _loaded(self, registered: RegisteredModel) -> Predictor:
        """From its folder where that is on this machine, else from the registry."""
        allowed = self._settings.allow_emotion
        if (registered.folder / "run.json").exists() or not registered.version:
            return Predictor(registered, allow_emotion=allowed)
        with tempfile.TemporaryDirectory(prefix="rapt-bundle-") as scratch:
            fetched = resolve(model_key(registered), self._settings.tracking_uri, scratch=Path(scratch))
            return Predictor(fetched, allow_emotion=allowed)


def _lateness(waiting: _Waiting) -> ServiceError | None:
    """The error of a clip whose request's time is over; it is not scored."""
    try:
        _ = waiting.deadline.left_s
    except ServiceError as error:
        return error
    return None


def _answer(predictor: Predictor, waiting: _Waiting) -> AnyAnswer | Exception:
    try:
        _ = waiting.deadline.left_s
        return predictor.score(waiting.clip, decode_ms=waiting.decode_ms)
    except Exception as error:
        return error
