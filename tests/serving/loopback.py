"""An ASGI app behind a real server on loopback: for what a test client's memory cannot show."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

__all__ = ["served"]


@contextmanager
def served(app: ASGIApp, **options: Any) -> Iterator[int]:
    """The port that the app answers at, until the block ends. options: uvicorn's, e.g. a certificate."""
    listening = socket.create_server(("127.0.0.1", 0))
    settings = {"log_level": "warning", "timeout_graceful_shutdown": 2, **options}
    server = uvicorn.Server(uvicorn.Config(app, **settings))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
