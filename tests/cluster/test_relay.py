"""The relay between workers and driver, without Ray: order, bounded waiting, and who has the last word."""

import asyncio

from cluster.relay import Relay
from training.events import WorkersChanged, parse_event


def test_events_come_in_order_and_a_worker_that_brings_too_many_waits() -> None:
    async def story() -> None:
        relay = Relay(wanted=2)
        brought = [str(number).encode() for number in range(2500)]
        bringing = asyncio.create_task(relay.exchange(brought, ""))
        await asyncio.sleep(0.01)
        assert not bringing.done(), "only 1,000 events may wait"
        taken: list[bytes] = []
        while len(taken) < len(brought):
            taken += (await relay.take(1.0))[0]
        await bringing
        assert taken == brought
        assert await relay.take(0.0) == ([], 0)

    asyncio.run(story())


def test_a_stop_outlives_a_pause_and_a_refusal_outlives_an_attempt_that_is_retried() -> None:
    async def story() -> None:
        relay = Relay(wanted=2)
        await relay.begin("")
        assert await relay.join(2) == ""
        await relay.order("stop", "a person stopped it")
        await relay.order("pause", "there was room for 4 workers")
        assert await relay.exchange([], "") == "stop"
        await relay.fail(1, 2, "worker 1 died")
        assert await relay.join(2) == "started again after worker 1 died"
        await relay.leave("refused", ("ModelError", "it diverged"))
        await relay.leave("refused", ("ModelError", "a later word"))
        assert await relay.join(2) is None
        end = await relay.end()
        assert (end.refused, end.failures, end.cause) == (("ModelError", "it diverged"), ["worker 1 died"], "a person stopped it")
        events, alive = await relay.take(0.1)
        assert alive == 2
        assert [parse_event(event) for event in events] == [WorkersChanged(alive=1, wanted=2, reason="worker 1 died")]

    asyncio.run(story())
