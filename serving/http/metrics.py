"""What a Prometheus server reads: requests, refusals, stages, answers, waiting clips, lessons, the model, this process."""

from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from serving.answer import ModelInfo

__all__ = ["METRICS_TYPE", "Metrics"]

METRICS_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_STAGE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The figures of one app, in a registry of its own: two apps of a process do not add up, and tests do not meet.

    No label holds what a client made up: a route is its template, a method one of HTTP's.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter("rapt_requests", "Requests answered", ["method", "route", "status"], registry=registry)
        self._refusals = Counter("rapt_refusals", "Requests refused, by reason", ["reason"], registry=registry)
        self._answers = Counter("rapt_answers", "Answers to clips, by their status", ["status"], registry=registry)
        self._received = Counter("rapt_received_bytes", "Bytes of bodies received", registry=registry)
        self._stages = Histogram(
            "rapt_stage_seconds", "What a stage of a clip's way took", ["stage"], buckets=_STAGE_BUCKETS_S, registry=registry
        )
        self._waiting = Gauge("rapt_clips_waiting", "Clips that are being scored or wait for it", registry=registry)
        self._uploading = Gauge("rapt_uploads_receiving", "Bodies that are being received", registry=registry)
        self._model = Gauge("rapt_model_info", "The model that answers", ["name", "version", "data_digest"], registry=registry)
        self._lessons = Gauge("rapt_lessons", "Lessons that are uploaded, wait, or are scored", ["state"], registry=registry)
        self._unwritten = Counter("rapt_audit_lines_lost", "Lines that the audit log could not take", registry=registry)

    def answered(self, method: str, route: str, status: int, *, bytes_in: int, refusal: str | None) -> None:
        """A request had its answer."""
        known = method if method in ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._received.inc(bytes_in)
        if refusal is not None:
            self._refusals.labels(refusal).inc()

    def scored(self, status: str) -> None:
        """A clip had its answer."""
        self._answers.labels(status).inc()

    def took(self, stage: str, seconds: float) -> None:
        """A stage of a clip ended: upload, decode, model or total."""
        self._stages.labels(stage).observe(seconds)

    def has_waiting(self, clips: int, uploads: int) -> None:
        """So many clips and uploads hold a place now."""
        self._waiting.set(clips)
        self._uploading.set(uploads)

    def has_lessons(self, by_state: Mapping[str, int]) -> None:
        """So many lessons are in each state now."""
        for state in ("uploading", "queued", "running"):
            self._lessons.labels(state).set(by_state.get(state, 0))

    def lost_a_line(self) -> None:
        """The audit log could not be written."""
        self._unwritten.inc()

    def page(self, model: ModelInfo | None) -> bytes:
        """Prometheus' text format; model: the one that answers now, None where none is loaded."""
        self._model.clear()
        if model is not None:
            self._model.labels(model.name, model.version, model.data_digest).set(1)
        return generate_latest(self._registry)
