"""Spans and metrics of OpenTelemetry's GenAI conventions; nothing at all where its API isn't installed.

Names as `ringfence.telemetry_names` has them, which the collector lets through; a test compares the two. Prompts,
arguments and results are never attributes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

try:
    from opentelemetry import metrics, trace
    from opentelemetry.propagate import inject
except ImportError:
    metrics = trace = inject = None  # type: ignore[assignment]

TOOL_DURATION = "gen_ai.execute_tool.duration"
MODEL_DURATION = "gen_ai.client.operation.duration"
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 (a metric's name)
AGENT_DURATION = "gen_ai.invoke_agent.duration"
CONTEXT_WINDOW = "ringfence.context_window.utilization"
CONVERSATION_COST = "ringfence.conversation.cost"
DECISIONS = "ringfence.gate.decisions"
OPERATION, TOOL, CALL_ID, MODEL = (
    "gen_ai.operation.name",
    "gen_ai.tool.name",
    "gen_ai.tool.call.id",
    "gen_ai.request.model",
)
TOKEN_TYPE, ERROR_TYPE, OUTCOME = "gen_ai.token.type", "error.type", "ringfence.outcome"
INVOCATION_ID, REASON = "ringfence.invocation.id", "ringfence.decision.reason"
UNITS = {
    TOOL_DURATION: "s", MODEL_DURATION: "s", AGENT_DURATION: "s", TOKEN_USAGE: "{token}", CONTEXT_WINDOW: "1",
    CONVERSATION_COST: "USD", DECISIONS: "{decision}",
}  # fmt: skip


class _NoSpan:
    """What stands for a span where nothing records."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Does nothing."""


class Running:
    """A span under way."""

    def __init__(self, span: Any):
        self._span = span
        self.error = ""

    def set_attribute(self, key: str, value: Any) -> None:
        """Adds an attribute."""
        self._span.set_attribute(key, value)

    def fail(self, error: str) -> None:
        """Marks the span as failed. error: stable and of few values, never a message, which might quote a prompt."""
        self.error = error
        self._span.set_attribute(ERROR_TYPE, error)
        if trace and not isinstance(self._span, _NoSpan):
            self._span.set_status(trace.Status(trace.StatusCode.ERROR))


class Telemetry:
    """Emits for one invocation. tracer_provider, meter_provider: OpenTelemetry's; None means the global ones."""

    def __init__(self, invocation: str = "", tracer_provider: Any = None, meter_provider: Any = None):
        self._invocation = invocation
        self._tracer = trace.get_tracer("agent_runtime", tracer_provider=tracer_provider) if trace else None
        self._histograms: dict[str, Any] = {}
        self._counter: Any = None
        if metrics:
            meter = metrics.get_meter("agent_runtime", meter_provider=meter_provider)
            for name in (TOOL_DURATION, MODEL_DURATION, AGENT_DURATION, TOKEN_USAGE, CONTEXT_WINDOW, CONVERSATION_COST):
                self._histograms[name] = meter.create_histogram(name, UNITS[name])
            self._counter = meter.create_counter(DECISIONS, UNITS[DECISIONS])

    @contextlib.contextmanager
    def span(self, name: str, attributes: dict[str, Any], duration: str) -> Iterator[Running]:
        """A span named ``<operation> <what>``, and its length in seconds in the histogram `duration`, split by
        `error.type` and outcome. An exception fails the span, by its code or type."""
        started = time.perf_counter()
        sent = {**attributes, INVOCATION_ID: self._invocation}
        with self._start(name, sent) as span:
            running = Running(span)
            try:
                yield running
            except BaseException as fault:
                running.fail(getattr(fault, "code", None) or type(fault).__name__)
                raise
            finally:
                kept = {key: value for key, value in attributes.items() if key in (OPERATION, TOOL, MODEL)}
                split = {OUTCOME: "error", ERROR_TYPE: running.error} if running.error else {OUTCOME: "ok"}
                self.record(duration, time.perf_counter() - started, {**kept, **split})

    def _start(self, name: str, attributes: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
        if self._tracer is None:
            return contextlib.nullcontext(_NoSpan())
        return self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        )

    def record(self, name: str, value: float, attributes: dict[str, Any] | None = None) -> None:
        """One value of a histogram, in the unit of UNITS."""
        if histogram := self._histograms.get(name):
            histogram.record(value, attributes or {})

    def tokens(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """Tokens of one model call."""
        for kind, count in (("input", input_tokens), ("output", output_tokens)):
            self.record(TOKEN_USAGE, count, {TOKEN_TYPE: kind, MODEL: model, OPERATION: "chat"})

    def cost(self, usd: Decimal) -> None:
        """What the conversation has cost so far, by this side's own count."""
        self.record(CONVERSATION_COST, float(usd))

    def decision(self, tool: str, allowed: bool, code: str) -> None:
        """One decision of the gate."""
        if self._counter:
            reason = {REASON: code} if code else {}
            self._counter.add(1, {TOOL: tool, OUTCOME: "allowed" if allowed else "refused", **reason})


def trace_headers() -> dict[str, str]:
    """The current span as W3C headers, so that the gateway's spans join the same trace."""
    headers: dict[str, str] = {}
    if inject:
        inject(headers)
    return headers


def current_trace() -> dict[str, str]:
    """trace_id and span_id of the current span; empty without one."""
    if not trace:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
