"""One trace for each invocation: the agent, its model calls, the tools that they led to, the steps around it.

A sandbox has no way to the collector, so the control side makes every span: of model calls from what the gateway counted, of
tool calls from what the sandbox says, bounded. Prompts, arguments, results and messages are never in them. Names:
`ringfence.telemetry_names`. Trust zone: control side.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from ringfence import telemetry_names as names
from ringfence.errors import InputError, Problem
from ringfence.gateway.metrics import conversation_label
from ringfence.gateway.uses import ModelUse
from ringfence.invocation import Invocation, Status

ENDPOINTS = (names.OTLP_VARIABLE, "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVICE = "ringfence"
# Invocations whose late spans still find their trace: a call that the end cuts settles after it.
_KEPT = 2000
_FLUSH_MS = 5000
# What of a sandbox's word may stand in a span: ids and codes, not texts.
_CALL_ID, _CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}"), re.compile(r"[a-z_]{1,40}")


class Tracing(Protocol):
    """What runner and gateway tell of an invocation. Never raises for what a sandbox said."""

    def step(self, invocation: Invocation, name: str) -> Any:
        """A context manager around one step of the control side."""

    def model_called(self, invocation: Invocation, use: ModelUse) -> None:
        """A model call has ended."""

    def tool_called(self, invocation: Invocation, said: Mapping[str, Any], at: datetime) -> None:
        """The sandbox says that it called a tool, or was refused one. said: as recorded; at: when it was told."""

    def ended(self, invocation: Invocation, status: Status, cost_usd: Decimal) -> None:
        """The invocation is over."""


class NoTracing:
    """Where no endpoint is configured."""

    @contextmanager
    def step(self, invocation: Invocation, name: str) -> Iterator[None]:
        """See `Tracing`."""
        yield

    def model_called(self, invocation: Invocation, use: ModelUse) -> None:
        """See `Tracing`."""

    def tool_called(self, invocation: Invocation, said: Mapping[str, Any], at: datetime) -> None:
        """See `Tracing`."""

    def ended(self, invocation: Invocation, status: Status, cost_usd: Decimal) -> None:
        """See `Tracing`."""


@dataclass(slots=True)
class _Trace:
    """root: the agent's span; chat: context of the last model call, which selected the tools after it."""

    root: Any
    context: Any
    chat: Any = None


class Spans:
    """Tracing by OpenTelemetry. provider: its TracerProvider. Safe to share by threads."""

    def __init__(self, provider: Any):
        self._api = import_module("opentelemetry.trace")
        self._tracer = self._api.get_tracer("ringfence.runner", tracer_provider=provider)
        self._lock = threading.Lock()
        self._traces: OrderedDict[str, _Trace] = OrderedDict()

    def _trace(self, invocation: Invocation) -> _Trace:
        with self._lock:
            if invocation.id not in self._traces:
                attributes = {
                    names.OPERATION: "invoke_agent",
                    names.AGENT: SERVICE,
                    names.INVOCATION_ID: invocation.id,
                    names.CONVERSATION: conversation_label(invocation.conversation_id),
                }
                # A context of its own: whatever span is current here has nothing to do with it.
                empty = import_module("opentelemetry.context").Context()
                root = self._tracer.start_span(
                    f"invoke_agent {SERVICE}", empty, attributes=attributes, start_time=_ns(invocation.started)
                )
                self._traces[invocation.id] = _Trace(root, self._api.set_span_in_context(root, empty))
                while len(self._traces) > _KEPT:
                    self._traces.popitem(last=False)
            return self._traces[invocation.id]

    def _span(self, invocation: Invocation, name: str, attributes: Mapping[str, Any], begin: int, **more: Any) -> Any:
        known = {key: value for key, value in attributes.items() if value is not None}
        known[names.INVOCATION_ID] = invocation.id
        return self._tracer.start_span(
            name, self._trace(invocation).context, attributes=known, start_time=begin, **more
        )

    def _fail(self, span: Any, error: str) -> None:
        span.set_attribute(names.ERROR_TYPE, error)
        span.set_status(self._api.Status(self._api.StatusCode.ERROR))

    @contextmanager
    def step(self, invocation: Invocation, name: str) -> Iterator[None]:
        """See `Tracing`."""
        span = self._span(invocation, f"ringfence.{name}", {}, time.time_ns())
        try:
            yield
        except BaseException as error:
            self._fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    def model_called(self, invocation: Invocation, use: ModelUse) -> None:
        """See `Tracing`."""
        attributes = {
            names.OPERATION: "chat",
            names.PROVIDER: use.provider,
            names.MODEL: use.model,
            names.INPUT_TOKENS: use.input_tokens,
            names.OUTPUT_TOKENS: use.output_tokens,
            names.COST: float(use.cost_usd),
        }
        begin = _ns(use.began)
        span = self._span(invocation, f"chat {use.model}", attributes, begin, kind=self._api.SpanKind.CLIENT)
        if not use.ok:
            self._fail(span, names.OTHER)
        span.end(begin + int(use.seconds * 1e9))
        self._trace(invocation).chat = span.get_span_context()

    def tool_called(self, invocation: Invocation, said: Mapping[str, Any], at: datetime) -> None:
        """See `Tracing`. The model call that selected the tool is linked."""
        tool = said.get("tool") if said.get("tool") in invocation.tools else names.OTHER
        refused = bool(said.get("refused"))
        attributes = {
            names.OPERATION: "execute_tool",
            names.TOOL: tool,
            names.CALL_ID: _matching(_CALL_ID, said.get("call_id")),
            names.OUTCOME: names.REFUSED if refused else names.ALLOWED,
            names.STATED_BY: "sandbox",
        }
        # Nothing that it says lies before its own start or after its being told.
        seconds = said.get("seconds") or 0.0
        begin = max(at - timedelta(seconds=seconds), invocation.started)
        chat = self._trace(invocation).chat
        links = [self._api.Link(chat)] if chat else []
        span = self._span(invocation, f"execute_tool {tool}", attributes, _ns(begin), links=links)
        if code := said.get("code"):
            self._fail(span, _matching(_CODE, code) or names.OTHER)
        span.end(_ns(at))

    def ended(self, invocation: Invocation, status: Status, cost_usd: Decimal) -> None:
        """See `Tracing`."""
        span = self._trace(invocation).root
        span.set_attribute(names.COST, float(cost_usd))
        span.set_attribute(names.OUTCOME, names.OK if status is Status.SUCCEEDED else names.ERROR)
        if status is not Status.SUCCEEDED:
            self._fail(span, status.value)
        span.end()


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


@contextmanager
def exported(environ: Mapping[str, str]) -> Iterator[Tracing]:
    """Spans, and the gateway's metrics, sent by OTLP (gRPC) to the endpoint that the environment names, while the context is
    open; nothing where it names none. Raises InputError when the endpoint is no address or the exporter isn't installed."""
    key = next((key for key in ENDPOINTS if environ.get(key)), "")
    if not key:
        yield NoTracing()
        return
    endpoint = environ[key]
    if not re.fullmatch(r"https?://[^/\s@?#]+/?", endpoint):
        raise InputError([Problem("environment", key, f"{endpoint[:100]!r} is no endpoint", "write http://host:4317")])
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter.otlp.proto.grpc") is None:
        remedy = "install the extra `runner`, or unset it"
        raise InputError(
            [Problem("environment", key, "needs OpenTelemetry's OTLP exporter, which isn't there", remedy)]
        )
    tracer_provider, meter_provider = _providers(endpoint)
    try:
        yield Spans(tracer_provider)
    finally:
        for provider in (tracer_provider, meter_provider):
            provider.force_flush(_FLUSH_MS)
            provider.shutdown()


def _providers(endpoint: str) -> tuple[Any, Any]:
    from opentelemetry import metrics
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk import metrics as sdk
    from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    where: dict[str, Any] = {"endpoint": endpoint, "insecure": endpoint.startswith("http://"), "timeout": 5}
    # Named here: what the machine's environment says of itself is not sent.
    resource = Resource({"service.name": SERVICE})
    tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**where)))
    kinds = (sdk.Counter, sdk.Histogram)
    exporter = OTLPMetricExporter(
        preferred_temporality=dict.fromkeys(kinds, AggregationTemporality.DELTA),
        preferred_aggregation={sdk.Histogram: ExponentialBucketHistogramAggregation()},
        **where,
    )
    meter_provider = sdk.MeterProvider(
        [PeriodicExportingMetricReader(exporter)], resource=resource, shutdown_on_exit=False
    )
    metrics.set_meter_provider(meter_provider)
    return tracer_provider, meter_provider
