"""The same work behind nothing but uvicorn, for bench_serving: no queue, no limit, no process of its own for what is hostile.

python -m benchmarks.bare_app BUNDLE PORT
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.predictor import Predictor
from training.registry import RegisteredModel


def main() -> None:
    bundle, port = Path(sys.argv[1]), int(sys.argv[2])
    predictor = Predictor(RegisteredModel(name="benchmark", version="", folder=bundle))

    def scored(content: bytes) -> bytes:
        with tempfile.NamedTemporaryFile(prefix="bare-") as file:
            file.write(content)
            file.flush()
            return predictor.score_file(Path(file.name)).model_dump_json().encode()

    async def score(request: Request) -> Response:
        form = await request.form()
        content = await form["clip"].read()  # type: ignore[union-attr]
        return Response(await asyncio.to_thread(scored, content), media_type="application/json")

    app = Starlette(routes=[Route("/v1/score", score, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
