"""The endpoint's parts on Ray Serve: one ingress, decoders, scorers, and a shadow where there is a challenger.

ingress    the HTTP app, the alias watch and the queues' sentences; one replica, so that limits a key are counted in one place
decoders   a clip's bytes to what the model reads, in child processes; one clip at a time each
scorers    the model's last versions, with dynamic batching
shadow     a scorer of the challenger, which gives way to every other process

Decoders and scorers scale each by its own queue, from one to a share of the cluster's CPUs, and refuse what their bounded
queues do not hold. On two cores the whole endpoint is four processes and the decode child.
"""

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_shards.errors import RaptError
from serving.replicas.alias_watch import AliasWatch
from serving.replicas.decode_replica import DecodeReplica
from serving.replicas.endpoint_settings import EndpointSettings
from serving.replicas.handle_scoring import HandleScoring
from serving.replicas.replica_port import on_loopback
from serving.replicas.score_replica import ScoreReplica
from serving.replicas.shadow import Shadow, ShadowLog
from training.registry import RegisteredModel

if TYPE_CHECKING:
    from serving.jobs.runner import JobRunner

__all__ = ["EndpointState", "Stopping", "application"]

_QUIET = {"log_level": "WARNING", "enable_access_log": False}
_MAX_CONNECTIONS = 200  # the app itself bounds how many clips wait, and keeps answering /healthz
_DECODES_AHEAD = 2  # one is decoded, the next one's bytes are there already
_MAX_WAITING = 16  # clips before all decoders, and before all scorers: what is more is refused at once
_DEAD_AFTER_S = 60.0  # a busy laptop's replica answers its health check late


@dataclass(frozen=True)
class EndpointState:
    """What an operator asks: which model answers ("" for none yet), what should be mended ("" for nothing), and what the
    processes that decode clips are held in."""

    model: str
    warning: str
    held: str = ""


@dataclass(frozen=True)
class Stopping:
    """How a drain ended: requests that were still under way, and the shadow's summary ("" for none)."""

    num_left: int
    summary: str


def application(settings: EndpointSettings, first: RegisteredModel | None) -> Any:
    """The endpoint as a Ray Serve application. first: the model to begin with, None where the replicas fetch it."""
    from ray import serve

    cpus = _cluster_cpus()
    batch = settings.batch_size
    decoders = serve.deployment(
        name="decoders",
        autoscaling_config=_autoscaling(settings.max_decoders or max(1, cpus // 2), target=_DECODES_AHEAD),
        max_ongoing_requests=_DECODES_AHEAD,
        max_queued_requests=_MAX_WAITING,
        ray_actor_options={"num_cpus": 1},
        **_shared(settings),
    )(on_loopback(DecodeReplica)).bind()
    scorers = serve.deployment(
        name="scorers",
        autoscaling_config=_autoscaling(settings.max_scorers or max(1, cpus // 4), target=batch),
        max_ongoing_requests=2 * batch,  # a batch under way, and the next
        max_queued_requests=_MAX_WAITING,
        ray_actor_options={"num_cpus": 1},
        **_shared(settings),
    )(on_loopback(ScoreReplica)).bind(settings)
    shadow = None
    if settings.challenger:
        shadow = serve.deployment(
            name="shadow", num_replicas=1, max_ongoing_requests=2, ray_actor_options={"num_cpus": 0}, **_shared(settings)
        )(on_loopback(ScoreReplica)).bind(settings, patient=True)
    ingress = serve.deployment(
        name="ingress",
        num_replicas=1,
        max_ongoing_requests=_MAX_CONNECTIONS,
        max_queued_requests=_MAX_CONNECTIONS,
        ray_actor_options={"num_cpus": 0},  # it waits for the others
        **_shared(settings),
    )(serve.ingress()(on_loopback(_Ingress)))
    return ingress.bind(decoders, scorers, shadow, settings, first)


def _shared(settings: EndpointSettings) -> dict[str, Any]:
    return {
        "graceful_shutdown_timeout_s": settings.drain_s,
        "graceful_shutdown_wait_loop_s": 0.2,
        "health_check_timeout_s": _DEAD_AFTER_S,
        "logging_config": _QUIET,
    }


def _autoscaling(most: int, *, target: int) -> dict[str, Any]:
    """From one replica to `most`, by the clips each has or waits for; up after seconds, down after minutes [choice]."""
    return {
        "min_replicas": 1,
        "initial_replicas": 1,
        "max_replicas": most,
        "target_ongoing_requests": target,
        "metrics_interval_s": 2,
        "look_back_period_s": 6,
        "upscale_delay_s": 4,
        "downscale_delay_s": 300,
    }


def _cluster_cpus() -> int:
    """The cluster's CPUs; this machine's where no Ray is connected, as when a manifest is checked."""
    import ray

    return int(ray.cluster_resources().get("CPU", 1)) if ray.is_initialized() else os.cpu_count() or 1


class _Ingress:
    """The HTTP app over the other deployments. Ray Serve asks it for the app once it is made."""

    def __init__(
        self, decoders: Any, scorers: Any, shadow: Any | None, settings: EndpointSettings, first: RegisteredModel | None
    ) -> None:
        logging.getLogger("rapt.serving").setLevel(logging.INFO)
        self._settings = settings
        self._jobs: JobRunner | None = None
        self._scoring = HandleScoring(decoders, scorers, settings, shadow)
        self._watches = [self._watch(settings, first)]
        self._shadow_log = None
        if compared := self._scoring.shadow:
            self._shadow_log = ShadowLog(compared, settings.tracking_uri, every_s=settings.shadow_every_s)
            self._watches.append(self._shadow_watch(settings, compared))
        for watch in self._watches:
            watch.start()

    def __serve_build_asgi_app__(self) -> Any:  # Ray Serve's name
        from serving.access.guard import owner_check
        from serving.http.http_api import build_app
        from serving.jobs.runner import JobRunner
        from serving.jobs.store import JobStore

        settings = self._settings
        if settings.jobs_folder:
            store = JobStore(settings.jobs_folder, settings.jobs)
            self._jobs = JobRunner(store, self._scoring, may_ask=owner_check(settings.app))
        return build_app(self._scoring, settings.app, jobs=self._jobs)

    async def state(self) -> EndpointState:
        """For whoever started the endpoint."""
        try:
            return EndpointState(self._scoring.current().key, self._scoring.warning(), self._scoring.held)
        except RaptError:
            return EndpointState("", self._scoring.problem)

    async def drain(self) -> Stopping:
        """Refuse new requests, answer those under way, and send what the shadow has compared. A lesson is none of them: it is
        broken off, and goes on from its last stretch at the next start."""
        for watch in self._watches:
            watch.stop()
        lessons = self._jobs.close() if self._jobs else asyncio.sleep(0)
        num_left, _ = await asyncio.gather(self._scoring.drain(), lessons)
        summary = await asyncio.to_thread(self._shadow_log.close) if self._shadow_log else ""
        return Stopping(num_left, summary)

    def _watch(self, settings: EndpointSettings, first: RegisteredModel | None) -> AliasWatch:
        def tell(sentence: str) -> None:
            self._scoring.problem = sentence

        model, every_s = settings.model, settings.watch_s
        return AliasWatch(model, settings.tracking_uri, self._scoring.take, every_s=every_s, tell=tell, first=first)

    def _shadow_watch(self, settings: EndpointSettings, shadow: Shadow) -> AliasWatch:
        def tell(sentence: str) -> None:
            shadow.problem = sentence

        model, every_s = settings.challenger, settings.watch_s
        return AliasWatch(model, settings.tracking_uri, self._scoring.take_challenger, every_s=every_s, tell=tell)
