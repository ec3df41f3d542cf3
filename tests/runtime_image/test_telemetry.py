"""Spans and metrics by OpenTelemetry's GenAI names, through the real SDK; and nothing at all without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_runtime import BudgetedModel, InstrumentedAgentExecutor, Tool, ToolError, loop, telemetry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ringfence import telemetry_names

SOURCE = Path(__file__).parents[2] / "runtime-image"


class Recorded:
    def __init__(self) -> None:
        self.spans, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracer = TracerProvider()
        tracer.add_span_processor(SimpleSpanProcessor(self.spans))
        self.telemetry = telemetry.Telemetry("inv1", tracer, MeterProvider([self.reader]))

    def metrics(self) -> dict[str, list]:
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def _task(recorded: Recorded, monkeypatch) -> list[dict]:
    steps = [("work", "{}"), ("delete", "{}"), ("work", "{}"), None]
    headers: list[dict] = []

    def complete(body, timeout, sent):
        headers.append(dict(sent))
        step = steps.pop(0)
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        message = {"content": "done"}
        if step:
            message = {
                "content": None,
                "tool_calls": [{"id": "c1", "function": {"name": step[0], "arguments": step[1]}}],
            }
        return {"choices": [{"message": message}], "usage": usage}

    answers = iter(["fine", ToolError("a secret reason")])

    def work(sent):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = InstrumentedAgentExecutor(prompt="a secret prompt", allowed_tools=["work"], telemetry=recorded.telemetry)
    made.register(Tool("work", "", {}, work))
    made.run(lambda: loop.run(made, BudgetedModel(made, complete, "scripted"), lambda text: None), "helper")
    return headers


def test_one_trace_holds_agent_model_and_tools(recorded, monkeypatch):
    headers = _task(recorded, monkeypatch)
    spans = recorded.spans.get_finished_spans()
    assert sorted(span.name for span in spans) == ["chat scripted"] * 4 + ["execute_tool work"] * 2 + [
        "invoke_agent helper"
    ]
    assert len({span.context.trace_id for span in spans}) == 1
    agent = next(span for span in spans if span.name == "invoke_agent helper")
    assert all(span.parent.span_id == agent.context.span_id for span in spans if span is not agent)
    failed = [
        span
        for span in spans
        if span.name == "execute_tool work" and not span.status.is_ok and span.status.status_code.name == "ERROR"
    ]
    assert [span.attributes["error.type"] for span in failed] == ["tool_failed"]
    assert all(header["traceparent"].split("-")[1] == f"{agent.context.trace_id:032x}" for header in headers)


def test_no_prompt_argument_or_result_is_in_a_span(recorded, monkeypatch):
    _task(recorded, monkeypatch)
    text = " ".join(span.to_json() for span in recorded.spans.get_finished_spans())
    assert "secret" not in text
    assert "fine" not in text


def test_metrics_count_tools_by_outcome_tokens_by_kind_and_decisions(recorded, monkeypatch):
    _task(recorded, monkeypatch)
    metrics = recorded.metrics()
    tools = {
        (point.attributes["ringfence.outcome"], point.attributes.get("error.type")): point.count
        for point in metrics["gen_ai.execute_tool.duration"]
    }
    assert tools == {("ok", None): 1, ("error", "tool_failed"): 1}
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in metrics["gen_ai.client.token.usage"]}
    assert tokens == {"input": 400, "output": 40}
    decisions = {
        (point.attributes["ringfence.outcome"], point.attributes.get("ringfence.decision.reason")): point.value
        for point in metrics["ringfence.gate.decisions"]
    }
    assert decisions == {("allowed", None): 2, ("refused", "tool_not_allowed"): 1}
    assert max(point.max for point in metrics["ringfence.conversation.cost"]) == pytest.approx(0.0018)


def test_names_and_units_are_those_that_the_collector_lets_through(recorded, monkeypatch):
    _task(recorded, monkeypatch)
    known = {metric.name: metric.unit for metric in telemetry_names.AGENT_METRICS}
    assert {name: unit for name, unit in telemetry.UNITS.items() if known.get(name) != unit} == {}
    used = {key for span in recorded.spans.get_finished_spans() for key in span.attributes}
    used |= {key for points in recorded.metrics().values() for point in points for key in point.attributes}
    assert used <= set(telemetry_names.ALLOWED_ATTRIBUTES)


def test_without_the_sdk_everything_runs_and_nothing_is_emitted():
    program = """
import sys
sys.modules["opentelemetry"] = None
from agent_runtime import InstrumentedAgentExecutor, Tool, telemetry
made = InstrumentedAgentExecutor(prompt="x", allowed_tools=["t"])
made.register(Tool("t", "", {}, lambda sent: "ok"))
assert telemetry.trace is None and telemetry.trace_headers() == {} and telemetry.current_trace() == {}
with made.model_call("scripted", 10, 10) as call:
    call.used(1, 1)
print(made.run(lambda: made.call("t", {}).content))
"""
    environment = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("ok", 0), done.stderr
