"""The endpoint on Ray Serve. The only module that imports Ray Serve."""

import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from data_shards.errors import ServiceError
from serving.predictor import check_servable
from serving.settings import AppSettings
from training.registry import RegisteredModel, resolve

__all__ = ["build_service", "check_port", "start_service", "stop_service"]

_APP_NAME = "rapt"
_MAX_ONGOING = 200
_QUIET = {"log_level": "WARNING", "enable_access_log": False}


def check_port(host: str, port: int) -> None:
    """ServiceError where the address is none of this machine's, or the port is taken."""
    if not host:
        raise ServiceError("--host is empty, which would be every address of this machine; name one, e.g. 127.0.0.1")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(
                f"port {port} on {host}: {error.strerror}; stop what uses it, or name another with --port"
            ) from None


def start_service(
    registered: RegisteredModel, *, host: str, port: int, allow_emotion: bool = False, app: AppSettings | None = None
) -> str:
    """Deploy the model on the connected Ray cluster; returns the endpoint's address once it answers."""
    from ray.exceptions import RayError

    check_servable(registered, allow_emotion=allow_emotion)
    check_port(host, port)
    try:
        _deploy(registered, host=host, port=port, allow_emotion=allow_emotion, app=app)
    except (RayError, RuntimeError, TimeoutError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ServiceError(f"the endpoint on port {port} did not start ({reason}); is the machine busy? try again") from None
    return f"http://{host}:{port}"


def _deploy(registered: RegisteredModel, *, host: str, port: int, allow_emotion: bool, app: AppSettings | None) -> None:
    from ray import serve
    from ray.serve.config import HTTPOptions

    from serving.decode_child import LONGEST_S
    from serving.http_api import MAX_UPLOAD_S

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # importing Serve has set its own
    request_s = MAX_UPLOAD_S + LONGEST_S + 10  # so that it is our sentence that tells of a clip that takes too long
    serve.start(http_options=HTTPOptions(host=host, port=port, request_timeout_s=request_s), logging_config=_QUIET)

    application = _application(lambda: registered, host=host, allow_emotion=allow_emotion, settings=app)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # and so has starting it
    serve.run(application, name=_APP_NAME, route_prefix="/", logging_config=_QUIET)


def _application(
    load: Callable[[], RegisteredModel], *, host: str, allow_emotion: bool, settings: AppSettings | None = None
) -> Any:
    """The deployment of the model that `load` gives, which is called where a replica starts."""
    from ray import serve

    def app() -> object:
        """Built in the replica: loads the model there."""
        from serving.decode_child import DecodeChild
        from serving.http_api import build_app
        from serving.predictor import Predictor
        from serving.scoring import LocalScoring

        _keep_replica_on_loopback(host)
        predictor = Predictor(load(), allow_emotion=allow_emotion)
        child = DecodeChild(predictor.recipe)
        child.start()
        return build_app(LocalScoring(predictor, child), settings)

    deployment = serve.deployment(
        name="engagement",
        num_replicas=1,
        max_ongoing_requests=_MAX_ONGOING,  # the app itself bounds how many clips wait, and keeps answering /healthz
        max_queued_requests=_MAX_ONGOING,
        logging_config=_QUIET,
    )(serve.ingress(app)())
    return deployment.bind()


def build_service(arguments: dict[str, str]) -> Any:
    """What a RayService or `serve run` imports: the application of arguments["model"], from the registry that they share.

    Each replica fetches the model itself, for it may run on any node. ServiceError where MLFLOW_TRACKING_URI names no server.
    """
    model = arguments.get("model", "models:/engagement@champion")
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    if model.startswith("models:/") and not tracking:
        raise ServiceError(f"{model}: no MLFLOW_TRACKING_URI says where that is registered; set it in every pod")

    def load() -> RegisteredModel:
        registered = resolve(model, tracking)
        check_servable(registered, allow_emotion=False)
        return registered

    return _application(load, host="", allow_emotion=False)


def _keep_replica_on_loopback(host: str) -> None:
    """In the replica, before it opens its port for other deployments: open it on loopback where the endpoint is there.

    Ray Serve 2.60 opens that port, which unpickles what it is sent, on every interface (serve/_private/replica.py,
    "[::]:0") and has no setting for it. A test looks at what listens, and fails should this no longer reach it.
    """
    if host not in ("127.0.0.1", "localhost", "::1"):
        return
    from ray.serve._private import replica

    open_port = replica.add_port_to_grpc_server

    def on_loopback(server: object, address: str) -> object:
        return open_port(server, address.replace("[::]", "127.0.0.1"))

    replica.add_port_to_grpc_server = on_loopback


def stop_service() -> None:
    """Take the endpoint down; requests under way are answered. The Ray cluster itself stays."""
    from ray import serve

    serve.delete(_APP_NAME)
