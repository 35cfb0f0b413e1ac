"""A Ray for an endpoint of a test file or a benchmark, which takes the endpoint down with it whatever has happened."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cluster.launch import connect_ray, disconnect_ray
from serving.service import stop_service

__all__ = ["ray_for_endpoint"]


@contextmanager
def ray_for_endpoint(*, num_cpus: int = 4) -> Iterator[None]:
    """Ray on loopback. At the end the endpoint goes first, if it is still there.

    A router whose Ray is gone lives on in this process and prints a traceback every ten seconds into the tests that follow;
    CPython 3.11 fails in ast.parse while another thread prints one.
    """
    connect_ray(None, num_cpus=num_cpus)
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        yield
    finally:
        with suppress(RayError, RayServeException):
            stop_service()
        disconnect_ray()
