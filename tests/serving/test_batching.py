"""Dynamic batching: who meets in one batch, whose error is whose, and that nobody waits for ever."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from serving.replicas.batching import Batcher


def test_what_came_while_a_batch_was_run_is_the_next_batch() -> None:
    first_runs, go_on = threading.Event(), threading.Event()
    batches: list[list[int]] = []

    def run(items: Sequence[int]) -> list[int | Exception]:
        batches.append(list(items))
        first_runs.set()
        go_on.wait()
        return [10 * item for item in items]

    async def ask() -> list[int]:
        batcher = Batcher(run, max_size=3, max_wait_s=0)
        asked = [asyncio.create_task(batcher.ask(0))]
        await asyncio.to_thread(first_runs.wait)
        asked += [asyncio.create_task(batcher.ask(item)) for item in range(1, 6)]
        await asyncio.sleep(0)
        go_on.set()
        answers = await asyncio.gather(*asked)
        assert batcher.sizes == {1: 1, 3: 1, 2: 1}
        return answers

    assert asyncio.run(ask()) == [0, 10, 20, 30, 40, 50]
    assert batches == [[0], [1, 2, 3], [4, 5]]


def test_the_first_waits_for_others_where_it_is_told_to() -> None:
    async def ask() -> dict[int, int]:
        batcher: Batcher[int, int] = Batcher(lambda items: list(items), max_size=8, max_wait_s=0.2)
        first = asyncio.create_task(batcher.ask(1))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, batcher.ask(2))
        return batcher.sizes

    assert asyncio.run(ask()) == {2: 1}


def test_an_error_as_a_result_is_its_items_own_and_a_raised_one_is_everybodys() -> None:
    def run(items: Sequence[str]) -> list[str | Exception]:
        if "all" in items:
            raise RuntimeError("the model is gone")
        return [ValueError(item) if item == "bad" else item for item in items]

    async def ask(*items: str) -> list[object]:
        batcher = Batcher(run, max_size=8, max_wait_s=0.05)
        return list(await asyncio.gather(*(batcher.ask(item) for item in items), return_exceptions=True))

    good, bad, other = asyncio.run(ask("good", "bad", "other"))
    assert (good, other) == ("good", "other")
    assert isinstance(bad, ValueError)
    assert {str(error) for error in asyncio.run(ask("good", "all"))} == {"the model is gone"}


def test_what_is_cancelled_before_its_batch_is_never_run() -> None:
    seen: list[int] = []
    first_runs, go_on = threading.Event(), threading.Event()

    def run(items: Sequence[int]) -> list[int | Exception]:
        seen.extend(items)
        first_runs.set()
        go_on.wait()
        return list(items)

    async def ask() -> None:
        batcher = Batcher(run, max_size=1, max_wait_s=0)
        first, left, last = (asyncio.create_task(batcher.ask(item)) for item in (1, 2, 3))
        await asyncio.to_thread(first_runs.wait)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        go_on.set()
        assert (await first, await last) == (1, 3)

    asyncio.run(ask())
    assert seen == [1, 3]
