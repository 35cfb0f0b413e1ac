"""Where a Ray Serve replica opens its port."""

from typing import Any

__all__ = ["on_loopback"]


def on_loopback(replica: type) -> Any:
    """The class of a replica, which opens its port for other deployments on loopback where Ray itself is there.

    Ray Serve 2.60 opens that port, which unpickles what it is sent, on every interface (serve/_private/replica.py,
    "[::]:0") and has no setting for it. A test looks at what listens, and fails should this no longer reach it.
    """

    class OnLoopback(replica):  # type: ignore[misc]  # a base that only its caller knows
        def __init__(self, *arguments: object, **named: object) -> None:
            _keep_port_on_loopback()
            super().__init__(*arguments, **named)

    return OnLoopback


def _keep_port_on_loopback() -> None:
    """In the replica, before it opens the port."""
    import ray
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() not in ("127.0.0.1", "::1"):
        return
    open_port = replica.add_port_to_grpc_server

    def open_on_loopback(server: object, address: str) -> object:
        return open_port(server, address.replace("[::]", "127.0.0.1"))

    replica.add_port_to_grpc_server = open_on_loopback
