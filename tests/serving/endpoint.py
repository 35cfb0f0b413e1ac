"""The endpoint in this process: the real app and its decode child, without Ray."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi.testclient import TestClient

from serving.confined.decode_child import DecodeChild
from serving.http.http_api import build_app
from serving.predictor import Predictor
from serving.scoring import LocalScoring

__all__ = ["endpoint"]


@contextmanager
def endpoint(predictor: Predictor) -> Iterator[TestClient]:
    """A client of the predictor's endpoint; its decode child is started, and ended when the block ends."""
    child = DecodeChild(predictor.recipe)
    child.start()
    with TestClient(build_app(LocalScoring(predictor, child))) as client:
        yield client
    child.close()
