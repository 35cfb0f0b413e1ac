"""Start and stop the endpoint on a connected Ray cluster; what a RayService imports."""

import contextlib
import io
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from data_shards.errors import ModelError, ServiceError
from serving.predictor import check_servable
from serving.replicas.deployments import EndpointState, Stopping, application
from serving.replicas.endpoint_settings import EndpointSettings, TlsFiles
from serving.replicas.score_replica import model_key
from training.registry import RegisteredModel

__all__ = ["build_service", "check_port", "drain_service", "service_state", "start_service", "stop_service"]

_APP_NAME = "rapt"
_QUIET = {"log_level": "WARNING", "enable_access_log": False}
_LOAD_S = 900.0  # the decode child may fetch and load extractors' weights
_ASK_S = 30.0


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
    registered: RegisteredModel,
    *,
    host: str,
    port: int,
    settings: EndpointSettings | None = None,
    tls: TlsFiles | None = None,
    progress: Callable[[str], None] = lambda sentence: None,
) -> str:
    """Deploy the model on the connected Ray cluster; returns the endpoint's address once it answers.

    settings: all defaults unless given, and nothing is watched. progress: gets what is being started.
    """
    from ray.exceptions import RayError

    settings = settings or EndpointSettings(model=model_key(registered))
    check_servable(registered, allow_emotion=settings.allow_emotion)
    check_port(host, port)
    try:
        progress("starting the endpoint's processes")
        _deploy(registered, host=host, port=port, settings=settings, tls=tls)
        progress("loading the model, and trying it on a made clip")
        _wait_for_model()
    except (RayError, RuntimeError, TimeoutError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ServiceError(f"the endpoint on port {port} did not start ({reason}); is the machine busy? try again") from None
    return f"{'https' if tls else 'http'}://{host}:{port}"


def _deploy(registered: RegisteredModel, *, host: str, port: int, settings: EndpointSettings, tls: TlsFiles | None) -> None:
    from ray import serve
    from ray.serve.config import HTTPOptions

    from serving.confined.decode_child import LONGEST_S

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # importing Serve has set its own
    request_s = settings.longest_upload_s + LONGEST_S + 10  # so that it is our sentence that tells of one that takes too long
    files = {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)} if tls else {}
    options = HTTPOptions(host=host, port=port, request_timeout_s=request_s, **files)
    serve.start(http_options=options, logging_config=_QUIET)
    built = application(settings, registered)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # and so has starting it
    serve.run(built, name=_APP_NAME, route_prefix="/", logging_config=_QUIET)


def _wait_for_model() -> None:
    """Until a model answers. ModelError where the first one cannot."""
    end_s = time.monotonic() + _LOAD_S
    while time.monotonic() < end_s:
        state = service_state()
        if state.model:
            return
        if state.warning:
            stop_service()
            raise ModelError(state.warning)
        time.sleep(0.1)
    stop_service()
    raise ServiceError(f"the model was not loaded within {_LOAD_S:.0f} s; is the machine busy? try again")


def service_state() -> EndpointState:
    """Which model answers, and what its operator should mend."""
    state: EndpointState = _ask("state", timeout_s=_ASK_S)
    return state


def drain_service(settings: EndpointSettings) -> Stopping:
    """Refuse new requests, /readyz with them, and wait until those under way are answered, settings.drain_s at most."""
    stopping: Stopping = _ask("drain", timeout_s=settings.drain_s + 2 * _ASK_S)
    return stopping


def _ask(method: str, *, timeout_s: float) -> Any:
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        handle = serve.get_app_handle(_APP_NAME)
        return getattr(handle, method).remote().result(timeout_s=timeout_s)
    except (RayError, RayServeException, TimeoutError) as error:
        raise ServiceError(f"the endpoint's first process does not answer ({type(error).__name__}); start it anew") from None


def build_service(arguments: dict[str, Any]) -> Any:
    """What a RayService or `serve run` imports: the application of its `args`, which are EndpointSettings.

    The model is fetched from the registry where it is served, for that may be any node. ServiceError where
    MLFLOW_TRACKING_URI names no server.
    """
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    settings = EndpointSettings.from_arguments({"model": "models:/engagement@champion", "tracking_uri": tracking, **arguments})
    if settings.model.startswith("models:/") and not settings.tracking_uri:
        raise ServiceError(f"{settings.model}: no MLFLOW_TRACKING_URI says where that is registered; set it in every pod")
    return application(settings, None)


def stop_service() -> None:
    """Take the endpoint down; requests under way are answered. The Ray cluster itself stays, with what else it serves."""
    from ray import serve

    serve.delete(_APP_NAME)
    if not serve.status().applications:
        with contextlib.redirect_stdout(io.StringIO()):  # there Ray tells of its controller, which it ends, as of failed tasks
            serve.shutdown()  # its HTTP server too, so that the next may have another address
