"""The OpenAPI description is true: requests made from it, right ones and wrong ones, get what it says they get."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from serving.confined.decode_child import DecodeChild
from serving.http.http_api import build_app
from serving.jobs.runner import JobRunner
from serving.jobs.store import JobStore
from serving.predictor import Predictor
from serving.scoring import LocalScoring
from training.registry import RegisteredModel

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
)


@pytest.fixture(scope="module")
def description(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    predictor = Predictor(RegisteredModel(name="engagement", version="1", folder=tiny_bundle))
    child = DecodeChild(predictor.recipe)
    child.start()
    scoring = LocalScoring(predictor, child)
    jobs = JobRunner(JobStore(tmp_path_factory.mktemp("jobs")), scoring)
    yield schemathesis.openapi.from_asgi("/openapi.json", build_app(scoring, jobs=jobs))
    child.close()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_are_as_described(description: Any, mode: GenerationMode) -> None:
    asked = 0
    for found in description.get_all_operations():
        operation = found.ok()

        @hypothesis.settings(
            max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(checks=CHECKS)

        try:
            holds()
        except hypothesis.errors.Unsatisfiable:  # nothing can be wrong with a request that has no parameters
            assert mode is GenerationMode.NEGATIVE
    assert asked >= 10
