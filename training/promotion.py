"""The gate before an alias: what a version has to be before an endpoint follows it, check by check, on the record."""

import getpass
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.audit import Audit
from data_shards.errors import ConfigError, ShardError
from training.bundle import BundleRecord
from training.metrics import Interval, Metrics
from training.registry import EMOTION_IS_OFF, MODEL_NAME, find_version, holder_of, version_record
from training.tracking.client import mlflow_client

__all__ = ["Check", "Gate", "Promotion", "known_audit", "promote"]

_SPLITS = ("validation", "test")
_LOWER_IS_BETTER = ("mae", "mse")
_WITH_INTERVAL = ("accuracy", "balanced_accuracy")
_LONGEST_TAG = 5000


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a version must pass to take an alias.

    Its `metric` on `split` must be better than the holder's by at least `margin`. minimum: what the lower end of its 95 %
    interval must reach, None for no such check. audits: the folder with the audits of data by digest, in which that of
    the version's data must have found no leak; None where somebody decided to go without one.
    """

    metric: str = "balanced_accuracy"
    split: str = "validation"
    margin: float = 0.0
    minimum: float | None = None
    audits: Path | None = None


@dataclass(frozen=True)
class Check:
    """One condition: whether it holds, and the figures it was judged by."""

    name: str
    passed: bool
    seen: str

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'failed'}  {self.name}: {self.seen}"


@dataclass(frozen=True)
class Promotion:
    """What the gate said of a version. passed: whether every check held, and so the alias was moved."""

    version: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> str:
        return "; ".join(f"{check.name}: {check.seen}" for check in self.checks if not check.passed)


def promote(uri: str, run_id: str, *, alias: str, gate: Gate, allow_emotion: bool = False) -> Promotion:
    """Move `alias` to the version of run `run_id` where it passes every check. What was checked becomes a tag of the version.

    Moving is one call of the registry, so two at once leave one of the two there; if another version took the alias
    while this one was compared, it is compared again. allow_emotion: the operator wants a model that names an emotion
    there. ModelError where the run has no version, ConfigError where the gate asks for a figure that there is not.
    """
    client = mlflow_client(uri)
    ours = find_version(client, run_id)
    record = version_record(client, ours, f"version {ours.version}")
    _check_gate(gate)
    while True:
        holder = holder_of(client, alias)
        checks = (
            *_servable(record, alias, allow_emotion),
            *_compared(client, ours, record, holder, alias, gate),
            *_minimum(record, gate),
            _audited(record, gate),
        )
        now = holder_of(client, alias)
        if (now and now.version) == (holder and holder.version):
            break
    promotion = Promotion(str(ours.version), checks)
    _record(client, promotion, alias)
    if promotion.passed:
        client.set_registered_model_alias(MODEL_NAME, alias, ours.version)
    return promotion


def known_audit(audits: Path, digest: str) -> Audit | None:
    """The audit of the data with that digest, where `rapt shards audit` has made one."""
    try:
        return Audit.from_bytes((audits / f"{digest}.json").read_bytes(), origin=audits / f"{digest}.json")
    except (OSError, ShardError):
        return None


def _check_gate(gate: Gate) -> None:
    if gate.split not in _SPLITS:
        raise ConfigError(f"--split {gate.split}: a bundle is measured on {' or '.join(_SPLITS)}")
    if gate.minimum is not None and gate.metric not in _WITH_INTERVAL:
        raise ConfigError(f"--minimum: {gate.metric} has no interval; {' and '.join(_WITH_INTERVAL)} have one")


def _servable(record: BundleRecord, alias: str, allow_emotion: bool) -> tuple[Check, ...]:
    video = "reads video" if record.reads_video else f"reads features, not video: the endpoint could not serve it as {alias}"
    checks = [Check("input", record.reads_video, video)]
    if record.infers_emotion:
        checks.append(Check("emotion", allow_emotion, "allowed by the operator" if allow_emotion else EMOTION_IS_OFF))
    return tuple(checks)


def _compared(client: Any, ours: Any, record: BundleRecord, holder: Any | None, alias: str, gate: Gate) -> tuple[Check, ...]:
    """That its figure is better than that of the version which holds the alias, where the two can be compared."""
    figure = _figure(record, ours, gate)
    if holder is None or holder.version == ours.version:
        who = "no version holds" if holder is None else "it holds"
        return (Check("margin", True, f"{gate.split} {gate.metric} {figure:.4f}; {who} the alias"),)
    theirs = version_record(client, holder, f"version {holder.version}")
    if record.data_digest != theirs.data_digest:
        seen = f"it and the {alias} (version {holder.version}) were measured on different data; train both on one"
        return (Check("comparable", False, seen),)
    if (record.label, record.level_names) != (theirs.label, theirs.level_names):
        names = " and ".join(f"{found.label} ({', '.join(found.level_names)})" for found in (record, theirs))
        return (Check("comparable", False, f"it and the {alias} answer different questions, {names}: no figure compares them"),)
    other = _figure(theirs, holder, gate)
    gain = other - figure if gate.metric in _LOWER_IS_BETTER else figure - other
    seen = f"{gate.split} {gate.metric} {figure:.4f} against the {alias}'s {other:.4f}, margin {gate.margin}"
    return (Check("margin", gain > 0 and gain >= gate.margin, seen),)


def _figure(record: BundleRecord, version: Any, gate: Gate) -> float:
    evaluation = record.validation if gate.split == "validation" else record.test
    value = getattr(evaluation.metrics, gate.metric, None) if evaluation else None
    if not isinstance(value, float):
        known = ", ".join(name for name, figure in Metrics.model_fields.items() if figure.annotation is float)
        raise ConfigError(f"version {version.version} has no figure {gate.split}_{gate.metric}; there are: {known}")
    return value


def _minimum(record: BundleRecord, gate: Gate) -> tuple[Check, ...]:
    if gate.minimum is None:
        return ()
    evaluation = record.validation if gate.split == "validation" else record.test
    assert evaluation is not None, "its figure was read"
    interval: Interval = getattr(evaluation, f"{gate.metric}_interval")
    seen = f"{gate.split} {gate.metric} is {interval.low:.4f} to {interval.high:.4f} (95 %, {interval.num_subjects} people)"
    return (Check("minimum", interval.low >= gate.minimum, f"{seen}, the lower end must reach {gate.minimum}"),)


def _audited(record: BundleRecord, gate: Gate) -> Check:
    """That the audit of the very data that the version was trained on found no leak between splits."""
    digest = record.data_digest[:12]
    if gate.audits is None:
        return Check("audit", True, f"data {digest} goes without one (--without-audit)")
    audit = known_audit(gate.audits, record.data_digest)
    if audit is None:
        return Check("audit", False, f"none is known of data {digest}; run `rapt shards audit SHARDS`, or say --without-audit")
    if leaks := "; ".join(leak.sentence for leak in audit.leaks):
        again = f"split anew by person, or look again with `rapt shards audit {audit.source}`"
        return Check(
            "audit",
            False,
            f"data {digest} leak: {leaks}; {again}, or say --without-audit",
        )
    people = audit.checks.get("people in two splits", "not checked")
    return Check("audit", True, f"data {digest}: no leak in {audit.num_clips:,} clips; people in two splits: {people}")


def _record(client: Any, promotion: Promotion, alias: str) -> None:
    """What the gate said, as one tag of the version: who asked when, what came of it, and every check."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        who = "unknown"
    verdict = {
        "passed": promotion.passed,
        "by": who,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "checks": [str(check) for check in promotion.checks],
    }
    client.set_model_version_tag(MODEL_NAME, promotion.version, f"gate.{alias}", json.dumps(verdict)[:_LONGEST_TAG])
