"""The API under generated requests: whatever comes, an answer that the description promises, and never a 5xx of ours."""

from __future__ import annotations

import contextlib
import os

import hypothesis
import pytest
import schemathesis
from schemathesis import Case
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.e2e

# Bounded: enough to cover each parameter's edges, few enough for every run of the suite.
EXAMPLES = int(os.environ.get("RINGFENCE_FUZZ_EXAMPLES", "25"))


CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


def operations(service):
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    return [result.ok() for result in schema.get_all_operations()]


@pytest.mark.parametrize("identity", ["an analyst", "nobody"])
def test_generated_requests_get_only_described_answers(start_service, identity: str):
    seen: dict[int, int] = {}
    with start_service() as service:
        headers = service.headers() if identity == "an analyst" else {}

        def answered(case: Case) -> None:
            answer = case.call(headers=headers, timeout=300)
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            # 501 to 505 would be a crash as well; 503 says that it is busy or about to stop.
            assert answer.status_code < 500, f"{case.method} {case.formatted_path}: {answer.text[:500]}"
            assert "Traceback" not in answer.text
            if not case.path.startswith("/v1/"):
                return
            if identity == "nobody":
                assert answer.status_code in (401, 404, 405, 413), (case.method, case.formatted_path, answer.text[:500])
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == ["application/problem+json"], answer.text[:500]
            # A generated path or method may lead to no operation at all.
            if answer.status_code not in (404, 405):
                case.validate_response(answer, checks=CHECKS)

        for operation in operations(service):
            for mode in schemathesis.GenerationMode:
                fuzz = hypothesis.given(case=operation.as_strategy(generation_mode=mode))(answered)
                bounded = hypothesis.settings(
                    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
                    suppress_health_check=list(hypothesis.HealthCheck),
                )(fuzz)  # fmt: skip
                # An operation without parameters can't be called wrongly.
                wrong = mode is schemathesis.GenerationMode.NEGATIVE
                with contextlib.suppress(hypothesis.errors.Unsatisfiable) if wrong else contextlib.nullcontext():
                    bounded()
        assert service.client.get("/healthz").status_code == 200
        assert not [call for call in service.runner.calls if identity == "nobody"]
    assert sum(seen.values()) > 100
    if identity == "an analyst":
        assert {200, 404, 422} <= set(seen)
