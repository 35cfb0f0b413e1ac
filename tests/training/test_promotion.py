"""The gate before the champion: each check refuses and passes on its own, and what was checked stays with the version."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from data_shards.audit import Audit, audit_shards
from data_shards.audit.findings import Finding
from data_shards.errors import ConfigError
from data_shards.manifest import Manifest
from training.bundle import BundleRecord, load_bundle, read_record, save_bundle
from training.promotion import Gate, promote
from training.registry import resolve
from training.tracking.client import experiment_id, mlflow_client
from training.tracking.registration import register

Registered = Callable[..., str]
GATE = Gate(metric="balanced_accuracy")


@pytest.fixture(scope="module")
def audit(simulated_shards: tuple[Path, Manifest]) -> Audit:
    return audit_shards(simulated_shards[0])


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One embedded registry for the file: each test moves the aliases to its own versions."""
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


@pytest.fixture
def registered(uri: str, tiny_bundle: Path, tmp_path: Path) -> Registered:
    """registered(run, figure, low): a version of a real bundle whose validation figures are as asked for."""

    def make(run_id: str, figure: float, *, low: float = 0.3, alias: str = "") -> str:
        record, model = load_bundle(tiny_bundle)
        bundle = tmp_path / run_id / "bundle"
        save_bundle(bundle, with_figure(record, run_id, figure, low), model)
        client = mlflow_client(uri)
        run = client.create_run(experiment_id(client, uri), run_name=run_id).info.run_id
        client.log_artifacts(run, str(bundle), "bundle")
        version = register(client, run, bundle)
        if alias:
            client.set_registered_model_alias("engagement", alias, version)
        return version

    return make


def with_figure(record: BundleRecord, run_id: str, figure: float, low: float) -> BundleRecord:
    assert record.validation is not None
    interval = record.validation.balanced_accuracy_interval.model_copy(update={"low": low})
    metrics = record.validation.metrics.model_copy(update={"balanced_accuracy": figure, "mse": 1 - figure})
    validation = record.validation.model_copy(update={"metrics": metrics, "balanced_accuracy_interval": interval})
    return record.model_copy(update={"run_id": run_id, "validation": validation})


def champion(uri: str) -> str:
    return resolve("models:/engagement@champion", uri).version


def test_only_a_better_figure_moves_the_alias(uri: str, registered: Registered) -> None:
    old, new = registered("m-old", 0.4, alias="champion"), registered("m-new", 0.5)
    refused = promote(uri, "m-new", alias="champion", gate=replace(GATE, margin=0.2))
    assert (refused.version, refused.passed) == (new, False)
    assert refused.failures == "margin: validation balanced_accuracy 0.5000 against the champion's 0.4000, margin 0.2"
    assert champion(uri) == old
    passed = promote(uri, "m-new", alias="champion", gate=replace(GATE, margin=0.05))
    assert passed.passed
    assert champion(uri) == new
    # mse is better where it is lower
    assert not promote(uri, "m-old", alias="champion", gate=Gate(metric="mse")).passed
    assert not promote(uri, "m-old", alias="champion", gate=GATE).passed
    assert champion(uri) == new
    # who asked when, and what each check saw, stays with the version
    kept = json.loads(mlflow_client(uri).get_model_version("engagement", new).tags["gate.champion"])
    assert kept["passed"] is True
    assert kept["checks"] == [str(check) for check in passed.checks]
    assert kept["by"]
    assert kept["at"].endswith("Z")
    assert json.loads(mlflow_client(uri).get_model_version("engagement", old).tags["gate.champion"])["passed"] is False


def test_the_lower_end_of_the_interval_must_reach_the_minimum(uri: str, registered: Registered) -> None:
    old, new = registered("i-old", 0.4, alias="champion"), registered("i-new", 0.6, low=0.45)
    refused = promote(uri, "i-new", alias="champion", gate=replace(GATE, minimum=0.5))
    assert "0.4500 to" in refused.failures
    assert champion(uri) == old
    assert promote(uri, "i-new", alias="champion", gate=replace(GATE, minimum=0.45)).passed
    assert champion(uri) == new
    with pytest.raises(ConfigError, match="mse has no interval"):
        promote(uri, "i-new", alias="champion", gate=Gate(metric="mse", minimum=0.5))
    with pytest.raises(ConfigError, match="no figure validation_beauty"):
        promote(uri, "i-old", alias="champion", gate=Gate(metric="beauty"))


def test_the_data_must_have_been_audited_and_found_clean(uri: str, registered: Registered, audit: Audit, tmp_path: Path) -> None:
    old, new = registered("a-old", 0.4, alias="champion"), registered("a-new", 0.6)
    audits = tmp_path / "audits"
    audits.mkdir()
    gate = replace(GATE, audits=audits)
    assert "none is known of data" in promote(uri, "a-new", alias="champion", gate=gate).failures
    path = audits / f"{audit.digest}.json"
    leak = Finding(kind="subject_in_two_splits", severity="leak", sentence="people in two splits: 3", count=3, examples=())
    path.write_bytes(audit.model_copy(update={"findings": (leak,)}).to_bytes())
    refused = promote(uri, "a-new", alias="champion", gate=gate)
    assert "leak: people in two splits: 3" in refused.failures
    assert "rapt shards audit" in refused.failures
    (audits / f"{audit.digest}.json").rename(audits / "other.json")  # the audit of other data says nothing of these
    assert not promote(uri, "a-new", alias="champion", gate=gate).passed
    assert champion(uri) == old
    path.write_bytes(audit.to_bytes())
    passed = promote(uri, "a-new", alias="champion", gate=gate)
    assert passed.passed
    assert "no leak in 64 clips; people in two splits: checked" in str(passed.checks[-1])
    assert champion(uri) == new
    assert "(--without-audit)" in str(promote(uri, "a-new", alias="champion", gate=GATE).checks[-1])


def test_two_promotions_at_once_leave_one_of_the_two(uri: str, registered: Registered) -> None:
    registered("t-old", 0.1, alias="champion")
    versions = {registered("t-one", 0.5), registered("t-two", 0.6)}
    with ThreadPoolExecutor(2) as both:
        results = list(both.map(lambda run: promote(uri, run, alias="champion", gate=GATE), ("t-one", "t-two")))
    assert any(result.passed for result in results)
    assert champion(uri) in versions
    assert promote(uri, "t-two", alias="champion", gate=GATE).checks[1].passed  # it holds the alias, or takes it
    assert champion(uri) == results[1].version


def test_registering_again_makes_no_second_version_and_moves_nothing(uri: str, registered: Registered, tmp_path: Path) -> None:
    version = registered("again", 0.5)
    client = mlflow_client(uri)
    holder = registered("holder", 0.5, alias="challenger")
    run = client.get_model_version("engagement", version).run_id
    assert register(client, run, tmp_path / "again" / "bundle") == version
    assert str(client.get_model_version_by_alias("engagement", "challenger").version) == holder
    assert read_record(resolve(f"models:/engagement/{version}", uri).folder).run_id == "again"
