"""A service of lessons alone, in a process of its own: python -m tests.serving.job_server BUNDLE FOLDER PORT.

Who asks says their key's id in the header X-Owner: keys themselves are another part's.
"""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request

from serving.jobs.record import JobLimits
from serving.jobs.routes import job_router
from serving.jobs.runner import JobRunner
from serving.jobs.store import JobStore
from serving.scoring import Scoring
from tests.serving.lesson_scoring import SETTINGS, local_scoring

__all__ = ["job_app"]


def job_app(scoring: Scoring, folder: Path, limits: JobLimits | None = None) -> FastAPI:
    """An app with the routes of jobs; its lifespan runs them."""
    jobs = JobRunner(JobStore(folder, limits), scoring, settings=SETTINGS, wait_s=0.1)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await jobs.start()
        yield
        await jobs.close()

    app = FastAPI(lifespan=lifespan)
    app.include_router(job_router(jobs, owner_of=owner_of))
    return app


def owner_of(request: Request) -> str:
    return request.headers.get("x-owner", "anna")


def main() -> None:
    bundle, folder, port = sys.argv[1:]
    uvicorn.run(job_app(local_scoring(Path(bundle)), Path(folder)), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
