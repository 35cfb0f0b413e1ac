"""The endpoint's first process: how it ends."""

import asyncio
from pathlib import Path

from serving.http.request_facts import EVERYBODY
from serving.replicas.deployments import _Ingress
from serving.replicas.endpoint_settings import EndpointSettings


def test_a_drain_breaks_a_lesson_off_and_leaves_it_to_the_next_start(tmp_path: Path) -> None:
    settings = EndpointSettings(model=str(tmp_path / "none"), jobs_folder=tmp_path / "jobs", drain_s=1)

    async def drained() -> None:
        ingress = _Ingress(None, None, None, settings, None)
        ingress.__serve_build_asgi_app__()
        jobs = ingress._jobs
        assert jobs is not None
        await jobs.start()
        job = jobs.enqueue(jobs.store.create(EVERYBODY, 1))
        while jobs.store.all()[0].state != "running":
            await asyncio.sleep(0.01)
        assert (await ingress.drain()).num_left == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing of a lesson goes on"
        (left,) = jobs.store.all()
        assert (left.id, left.state) == (job.id, "running")

    asyncio.run(drained())
