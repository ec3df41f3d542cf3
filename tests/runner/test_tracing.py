"""One task is one trace: its spans arrive at a real OTLP receiver with the right parents, and nothing private in them."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from ringfence import telemetry_names as names
from ringfence.errors import InputError
from ringfence.gateway.uses import ModelUse
from ringfence.invocation import Invocation, Status, new_id
from ringfence.runner import tracing
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.ports import Collaborators
from ringfence.runner.tracing import NoTracing, exported
from tests.runner import control
from tests.runner.control import GROUPS
from tests.runner.kubelet import Kubelet

PROMPT = "Summarise the merger with the company whose name is a secret"
SECRET = "sk-proj-" + "aB3-" * 10


@dataclass
class Receiver(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Takes what is exported."""

    requests: list[Any] = field(default_factory=list)
    endpoint: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def Export(self, request: Any, context: Any) -> Any:
        with self.lock:
            self.requests.append(request)
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            return trace_service_pb2.ExportTraceServiceResponse()
        return metrics_service_pb2.ExportMetricsServiceResponse()

    @property
    def spans(self) -> list[Any]:
        found = [item for item in self.requests if isinstance(item, trace_service_pb2.ExportTraceServiceRequest)]
        return [
            span
            for item in found
            for resource in item.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(made, server)
    made.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield made
    server.stop(1).wait()


def invocation(**more: Any) -> Invocation:
    now = datetime.now(UTC)
    return Invocation(
        new_id(), "ana", PROMPT, ("web-fetch",), now, now + timedelta(seconds=60), model="scripted", **more
    )


def use(at: datetime, **more: Any) -> ModelUse:
    values = {"input_tokens": 10, "output_tokens": 5} | more
    return ModelUse("scripted", "openai", "scripted", at, 0.5, cost_usd=Decimal("0.25"), **values)


@pytest.mark.cluster
def test_a_tasks_spans_arrive_as_one_trace_with_the_agent_at_its_root(
    cluster, cloud, receiver: Receiver, tmp_path: Path
):
    def work(container: Any) -> int:
        body = {"model": "scripted", "max_tokens": 100, "messages": [{"role": "user", "content": PROMPT}]}
        assert container.gateway("POST", "/v1/chat/completions", body).status_code == 200
        for event in (
            {
                "type": "tool_call",
                "tool": "web-fetch",
                "outcome": "ok",
                "call_id": "c1",
                "seconds": 0.1,
                "arguments": ["url"],
            },
            {
                "type": "tool_call",
                "tool": SECRET,
                "outcome": "error",
                "call_id": PROMPT,
                "code": PROMPT,
                "seconds": 9e9,
            },
            {"type": "refusal", "tool": "web-fetch", "code": "argument_tainted", "detail": PROMPT, "subject": SECRET},
        ):
            assert container.gateway("POST", "/v1/events", event).status_code == 202
        return container.answer("done")

    with exported({"RINGFENCE_OTLP_ENDPOINT": receiver.endpoint}) as spans:
        gateway = control.gateway_of(tmp_path, on_use=spans.model_called)
        with control.served(gateway) as address:
            made = control.control(tmp_path, cloud.endpoint, control.kubernetes(cluster.kubeconfig), address, gateway)
            parts = {name: getattr(made.parts, name) for name in Collaborators.__dataclass_fields__}
            with (
                Kubelet(cluster.configuration, work),
                SecureAgentRunner(Collaborators(**parts | {"tracing": spans})) as runner,
            ):
                result = runner.execute_agent_task("ann", PROMPT, ["web-fetch"], groups=GROUPS, model="scripted")
    assert result.status is Status.SUCCEEDED, result.error
    (root,) = receiver.named("invoke_agent ringfence")
    assert len({span.trace_id for span in receiver.spans}) == 1
    assert root.parent_span_id == b""
    children = [span for span in receiver.spans if span is not root]
    assert {span.parent_span_id for span in children} == {root.span_id}
    (chat,), (failed,) = receiver.named("chat scripted"), receiver.named("execute_tool _OTHER")
    called, refused = sorted(receiver.named("execute_tool web-fetch"), key=lambda span: span.end_time_unix_nano)
    assert {span.name for span in children} >= {"ringfence.credentials", "ringfence.sandbox", "ringfence.result"}
    assert attributes(chat)[names.INPUT_TOKENS] > 0 and attributes(chat)[names.PROVIDER] == "scripted"
    assert [link.span_id for link in called.links] == [chat.span_id]
    assert (attributes(called)[names.CALL_ID], attributes(called)[names.OUTCOME]) == ("c1", "allowed")
    assert (attributes(refused)[names.ERROR_TYPE], attributes(refused)[names.OUTCOME]) == (
        "argument_tainted",
        "refused",
    )
    assert attributes(failed)[names.ERROR_TYPE] == names.OTHER and attributes(failed)[names.STATED_BY] == "sandbox"
    assert all(attributes(span)[names.INVOCATION_ID] == result.invocation_id for span in receiver.spans)
    everything = str(receiver.requests)
    assert PROMPT not in everything and SECRET not in everything and "merger" not in everything
    assert {key for span in receiver.spans for key in attributes(span)} <= set(names.ALLOWED_ATTRIBUTES)


def test_two_tasks_are_two_traces_also_for_calls_that_settle_after_the_end(receiver: Receiver):
    with exported({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}) as spans:
        for task in (first := invocation(), second := invocation(conversation="ana smith")):
            spans.model_called(task, use(task.started))
            spans.ended(task, Status.SUCCEEDED, Decimal("0.25"))
        spans.model_called(first, use(first.started, input_tokens=None, output_tokens=None))
        spans.ended(second, Status.SUCCEEDED, Decimal("0.25"))
    by_task = {attributes(span)[names.INVOCATION_ID]: span.trace_id for span in receiver.spans}
    assert len(set(by_task.values())) == 2
    assert all(span.trace_id == by_task[attributes(span)[names.INVOCATION_ID]] for span in receiver.spans)
    late = [span for span in receiver.named("chat scripted") if names.ERROR_TYPE in attributes(span)]
    assert len(late) == 1 and late[0].parent_span_id in {
        span.span_id for span in receiver.named("invoke_agent ringfence")
    }
    assert "smith" not in str(receiver.requests)


def test_what_a_sandbox_says_of_times_stays_within_its_invocation(receiver: Receiver):
    task = invocation()
    with exported({"RINGFENCE_OTLP_ENDPOINT": receiver.endpoint}) as spans:
        spans.tool_called(task, {"tool": "web-fetch", "seconds": 300.0}, task.started + timedelta(seconds=2))
        spans.ended(task, Status.FAILED, Decimal(0))
    (span,), (root,) = receiver.named("execute_tool web-fetch"), receiver.named("invoke_agent ringfence")
    assert root.start_time_unix_nano == span.start_time_unix_nano < span.end_time_unix_nano
    assert attributes(root)[names.ERROR_TYPE] == "failed"


METERED = """
import sys
from ringfence.gateway.metrics import Metrics
from ringfence.gateway.prices import Tokens
from ringfence.runner.tracing import exported
with exported({"RINGFENCE_OTLP_ENDPOINT": sys.argv[1]}):
    Metrics().call("openai", Tokens(1000, 100), 3_500_000, 7_000_000, 1.5)
"""


def test_the_gateways_metrics_arrive_in_the_form_that_the_collector_takes(receiver: Receiver):
    # In a process of its own: OpenTelemetry's provider of metrics is one for a process.
    subprocess.run([sys.executable, "-c", METERED, receiver.endpoint], cwd=control.ROOT, check=True, timeout=120)
    found = {
        metric.name: metric
        for item in receiver.requests
        for resource in item.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    cost = found[names.CONVERSATION_COST.name].exponential_histogram
    # 1: delta (opentelemetry/proto/metrics/v1/metrics.proto).
    assert (cost.data_points[0].sum, cost.aggregation_temporality) == (0.007, 1)
    assert {names.MODEL_DURATION.name, names.TOKEN_USAGE.name} <= set(found)


def test_a_collector_that_is_away_stops_nothing_and_delays_the_end_a_little(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.CRITICAL)
    began = time.monotonic()
    with exported({"RINGFENCE_OTLP_ENDPOINT": "http://127.0.0.1:1"}) as spans:
        task = invocation()
        spans.model_called(task, use(task.started))
        spans.ended(task, Status.SUCCEEDED, Decimal(0))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "endpoint", ["collector:4317", "http://u:p@collector:4317", "http://collector/v1/traces", "ftp://x"]
)
def test_an_endpoint_that_is_none_is_refused_with_its_remedy(endpoint: str):
    with pytest.raises(InputError, match="RINGFENCE_OTLP_ENDPOINT"), exported({"RINGFENCE_OTLP_ENDPOINT": endpoint}):
        pass


def test_an_endpoint_without_the_exporter_is_refused_and_none_needs_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracing, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match="exporter"), exported({"RINGFENCE_OTLP_ENDPOINT": "http://127.0.0.1:1"}):
        pass
    with exported({}) as spans:
        assert isinstance(spans, NoTracing)
