"""Which Ray is meant by an address, and with which token it is asked. The token is read from its file, never printed."""

import json
import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from data_shards.errors import ConfigError, ServiceError

__all__ = ["ON_LOOPBACK", "JobServer", "find_job_server", "join_address", "submission_id"]

_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's, in the environment of a job's driver and of no other process
# Environment in which Ray's processes and drivers listen on loopback, not on every interface. Ray reads it when it is imported;
# the name is of the systems it was made for (ray/_private/services.py, get_node_ip_address). Gloo has its own.
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
_HOW = "name the dashboard's address with --address, e.g. http://127.0.0.1:8265"


@dataclass(frozen=True, kw_only=True)
class JobServer:
    """A dashboard with Ray's Jobs API. token: "" where there is none. is_local: the cluster of `rapt cluster up`."""

    url: str
    token: str = field(repr=False)
    is_local: bool


def submission_id() -> str:
    """The id of the Ray job that this process is the driver of; "" where it is none."""
    try:
        return str(json.loads(os.environ[_JOB_CONFIG])["metadata"]["job_submission_id"])
    except (KeyError, ValueError, TypeError):
        return ""


def join_address(address: str | None) -> str | None:
    """The address to give to Ray, with its token in place; call it before Ray is imported, which reads the mode once.

    The local cluster's token is found by itself, for its own address and for `auto` where it is up; for others as Ray
    finds it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token. ServiceError where the cluster takes no such token:
    Ray itself would try for minutes, and then tell of a time-out.
    """
    from cluster.local_cluster import local_cluster, local_token_path

    if address is None or _JOB_CONFIG in os.environ:  # a job's environment has address and token
        return address
    there = local_cluster()
    if there and (address == "auto" or _place(address) in (_place(there.dashboard), there.ray_address)):
        os.environ.pop("RAY_AUTH_TOKEN", None)  # it would come before the file
        os.environ.pop("RAY_ADDRESS", None)
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(local_token_path())
        os.environ.update(ON_LOOPBACK)
        return there.ray_address
    if address not in ("auto", "local") and "://" not in address:
        _bring_token(address)
        if _answers_on_loopback_alone(address):
            os.environ.update(ON_LOOPBACK)
    return address


def _bring_token(address: str) -> None:
    """Switch Ray's token authentication on where the Ray at HOST:PORT asks for it, once it has taken the token."""
    if not _refuses(address, ""):
        return
    token = _token()
    if not token or _refuses(address, token):
        what = "does not take this token" if token else "asks for a token"
        raise ServiceError(f"Ray at {address}: {what}; set RAY_AUTH_TOKEN_PATH to the file with the cluster's token")
    os.environ["RAY_AUTH_MODE"] = "token"


def _refuses(address: str, token: str) -> bool:
    """Whether Ray refuses the token, "" for none. ServiceError where something else than Ray answers there."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        is_alive = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            is_alive(b"", timeout=5, metadata=[("authorization", f"Bearer {token}")] if token else None)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return True
            if error.code() is grpc.StatusCode.UNIMPLEMENTED or "Failed parsing HTTP/2" in (error.details() or ""):
                raise ServiceError(
                    f"{address}: answers, but not as Ray does; name Ray's own address, e.g. 127.0.0.1:6379"
                ) from None
    return False  # nothing answers, or not in this way (TLS): for Ray to say


def _answers_on_loopback_alone(address: str) -> bool:
    """Whether a cluster of this machine is there for this machine alone; Ray would look for it at the machine's address."""
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 1))  # sends nothing; the machine's own address on the way out
            socket.create_connection((route.getsockname()[0], int(port)), timeout=5).close()
        except (OSError, ValueError):
            return True
    return False


def find_job_server(address: str | None) -> JobServer:
    """The dashboard that is meant: `address`, else RAPT_RAY_ADDRESS or RAY_ADDRESS, else the local cluster's.

    ConfigError where nothing is named and no local cluster is up, ServiceError where nothing answers there.
    """
    from cluster.local_cluster import local_cluster, local_token_path

    there = local_cluster()
    named = address or os.environ.get("RAPT_RAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if named in (None, "", "auto", "local"):
        if there is None:
            raise ConfigError(f"no Ray cluster is named, and none is up here; start one with `rapt cluster up`, or {_HOW}")
        named = there.dashboard
    assert named is not None
    if there and _place(named) in (_place(there.dashboard), _place(there.ray_address)):
        return JobServer(url=there.dashboard, token=local_token_path().read_text(), is_local=True)
    url = named.rstrip("/") if "://" in named else f"http://{named.rstrip('/')}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"{named}: jobs go through the dashboard, by HTTP; {_HOW}")
    _check_answers(url)
    return JobServer(url=url, token=_token(), is_local=False)


def _place(address: str) -> str:
    """host:port of an address with or without a scheme, localhost by its number."""
    return urlsplit(address if "://" in address else f"http://{address}").netloc.replace("localhost", "127.0.0.1")


def _token() -> str:
    """The token for a cluster that is not the local one, found as Ray itself does; "" where there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return (Path(named) if named else Path.home() / ".ray" / "auth_token").read_text().strip()
    except OSError as error:
        if named:
            raise ConfigError(f"RAY_AUTH_TOKEN_PATH {named}: cannot be read ({error.strerror}); name the token's file") from None
        return ""


def _check_answers(url: str) -> None:
    """ServiceError where nothing takes a connection; a request would wait for minutes."""
    try:
        place = urlsplit(url)
        port = place.port or (443 if place.scheme == "https" else 80)
        socket.create_connection((place.hostname or "", port), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ServiceError(
            f"Ray at {url}: nothing answers ({error}); check the address, or start one with `rapt cluster up`"
        ) from None
