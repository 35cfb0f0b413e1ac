"""Dynamic batching: what came while one batch was scored is the next batch.

Not Ray Serve's `serve.batch` (2.60, ray/serve/batching.py): that closes a batch before it waits for the one under way, so
clips that come further apart than its wait are scored one by one however long the model takes; here they meet in one batch,
and a clip that comes alone waits for nobody.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["Batcher"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Batcher(Generic[_Item, _Result]):
    """Gives items to `run` in batches of at most `max_size`, one batch at a time, in a thread of its own.

    run: a result for each item, in order; an exception as a result is that item's alone, one that is raised is every
    item's of the batch. max_wait_s: how long the first item of a batch waits for others, beside what is under way.
    Used within one event loop.
    """

    def __init__(
        self, run: Callable[[Sequence[_Item]], Sequence[_Result | Exception]], *, max_size: int, max_wait_s: float
    ) -> None:
        self._run, self._max_size, self._max_wait_s = run, max_size, max_wait_s
        self._waiting: list[tuple[_Item, asyncio.Future[_Result]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._worker: asyncio.Task[None] | None = None
        self.sizes: dict[int, int] = {}  # how many batches of each size were run

    async def ask(self, item: _Item) -> _Result:
        """The item's result. One that is cancelled before its batch begins is never run."""
        answer: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        """Batch after batch until nothing waits."""
        try:
            while self._waiting:
                if self._max_wait_s and len(self._waiting) < self._max_size:
                    await asyncio.sleep(self._max_wait_s)
                batch, self._waiting = self._waiting[: self._max_size], self._waiting[self._max_size :]
                wanted = [(item, answer) for item, answer in batch if not answer.done()]
                if wanted:
                    await self._answer(wanted)
        finally:
            self._worker = None

    async def _answer(self, batch: list[tuple[_Item, "asyncio.Future[_Result]"]]) -> None:
        self.sizes[len(batch)] = self.sizes.get(len(batch), 0) + 1
        items = [item for item, _ in batch]
        results: Sequence[_Result | Exception]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
        except Exception as error:  # whatever it is, it is the answer: nobody may wait for ever
            results = [error] * len(batch)
        for (_, answer), result in zip(batch, results, strict=True):
            if answer.done():  # cancelled meanwhile
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
