"""What became of a worker, in words: Ray's errors as sentences, and the controller's word of them to the relay."""

import re
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError
from ray.train import UserCallback

from data_shards import errors
from data_shards.errors import RaptError, ServiceError, Stopped, StorageError

__all__ = ["TellFailures", "failure_sentence", "is_mistake", "mistake_again"]

_LOST_CONNECTION = re.compile(
    r"Connection closed by peer|Connection reset|Broken pipe|recv|Socket Timeout|remote process exited", re.I
)
_TIMED_OUT = re.compile(r"timed? ?out", re.I)


def is_mistake(error: BaseException) -> bool:
    """Whether trying again would end alike. A store or a service that fails may answer later; a stop is no fault."""
    return isinstance(error, RaptError) and not isinstance(error, StorageError | ServiceError | Stopped)


def mistake_again(name: str, sentence: str) -> RaptError:
    """The RaptError of that name, as it was raised in a worker."""
    kind = getattr(errors, name) if name in errors.__all__ else RaptError
    return kind(sentence)


def failure_sentence(failures: Mapping[int, BaseException]) -> tuple[str, int]:
    """What happened, of the worker that failed first as far as one can tell, and how many workers are gone.

    A worker that died is the cause; others then fail because they lost their connection to it.
    """
    ranked = sorted((_words(failure), rank) for rank, failure in failures.items())
    (_, words), rank = ranked[0]
    gone = sum(order == 0 for (order, _), _ in ranked)
    return f"worker {rank} {words}", gone


def _words(failure: BaseException) -> tuple[int, str]:
    """(0 for a death, 1 for an error of its own, 2 for one that another's death brings; words)."""
    failure = getattr(failure, "health_check_failure", None) or getattr(failure, "_base_exc", None) or failure
    text = str(failure)
    if isinstance(failure, OutOfMemoryError) or "running low on memory" in text:
        return 0, "was killed because its node ran out of memory (give it less with --set loop.microbatch=..., or fewer workers)"
    if isinstance(failure, RayActorError):
        if getattr(failure, "preempted", False) or "node has died" in text or "node was terminated" in text.lower():
            return 0, "died with its node"
        return 0, "died" if isinstance(failure, ActorDiedError) else "does not answer"
    if type(failure).__name__ == "WorkerHealthCheckTimeoutError":
        return 0, "does not answer"
    if isinstance(failure, RaptError):
        return 1, f"stopped ({failure})"
    if isinstance(failure, RuntimeError) and _TIMED_OUT.search(text):
        return 2, "waited for another worker until the timeout"
    if isinstance(failure, RuntimeError) and _LOST_CONNECTION.search(text):
        return 2, "lost its connection to another worker"
    last = (text.strip().splitlines() or [""])[-1]
    return 1, f"failed ({type(failure).__name__}: {last[:200]})"


class TellFailures(UserCallback):  # type: ignore[misc]  # Ray has no types
    """Runs in Ray Train's controller."""

    def __init__(self, relay: Any, size: int) -> None:
        self._relay, self._size = relay, size

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        sentence, gone = failure_sentence(worker_exceptions)
        ray.get(self._relay.fail.remote(gone, self._size, sentence))
