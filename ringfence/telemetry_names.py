"""Names of what is measured, in one place: whoever emits, collects, shows or alarms takes them from here.

`gen_ai.*` follows OpenTelemetry's GenAI conventions (github.com/open-telemetry/semantic-conventions-genai, status
Development; cost and refusals have no convention and are ours). Emitters send counters with delta temporality and
histograms as base-2 exponential ones: CloudWatch knows percentiles of an exponential histogram only, and a cumulative
counter whose connection moves to another collector would be counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass

METRIC_NAMESPACE = "Ringfence"
# Where the collector listens: for workloads (everybody), and for its own node agents.
OTLP_PORT = 4317
# Variable that tells the control side where the collector is; OpenTelemetry's own comes after it.
OTLP_VARIABLE = "RINGFENCE_OTLP_ENDPOINT"
AGENT_OTLP_PORT = 4319
TELEMETRY_NAMESPACE = "ringfence-telemetry"
COLLECTOR = "collector"
COLLECTOR_AGENT = "collector-agent"

# Attributes. The environment is set by the collector, never taken from a sender.
ENVIRONMENT = "ringfence.environment"
STREAM = "ringfence.stream"
INVOCATION_ID = "ringfence.invocation.id"
OUTCOME = "ringfence.outcome"
STATE = "ringfence.state"
TOOL = "gen_ai.tool.name"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 (input or output tokens of a model)
ERROR_TYPE = "error.type"
OPERATION, AGENT, CONVERSATION = "gen_ai.operation.name", "gen_ai.agent.name", "gen_ai.conversation.id"
PROVIDER, MODEL, CALL_ID = "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.tool.call.id"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
COST = "ringfence.conversation.cost_usd"
# Whose word a span is: the control side's own unless it says `sandbox`.
STATED_BY = "ringfence.stated_by"

ALLOWED, REFUSED, OK, ERROR, FAILED = "allowed", "refused", "ok", "error", "failed"
OTHER = "_OTHER"
# Values that may become CloudWatch dimensions; each new value costs money, so whatever else is sent counts as OTHER.
VALUES = {
    OUTCOME: (ALLOWED, REFUSED, OK, ERROR, FAILED, "issued", "revoked", "expired"),
    STATE: ("running", "pending"),
    TOKEN_TYPE: ("input", "output"),
}

# Events of the audit trail that somebody must look at at once, as they stand in its lines, by the metric that counts them.
CREDENTIAL_ALERTS, BEHAVIOUR_ALERTS = "CredentialAlerts", "BehaviourAlerts"
ALERT_EVENTS = {
    CREDENTIAL_ALERTS: ("alert.credential", "alert.rounds"),
    BEHAVIOUR_ALERTS: ("alert.injection", "alert.refusals"),
}


@dataclass(frozen=True, slots=True)
class Metric:
    """dimensions: sets that CloudWatch gets, besides the environment. control_only: taken from the control side alone,
    since a sandbox could lie about it."""

    name: str
    unit: str
    dimensions: tuple[tuple[str, ...], ...] = ((),)
    control_only: bool = True


TOOL_DURATION = Metric("gen_ai.execute_tool.duration", "s", ((OUTCOME,), (TOOL, OUTCOME)), control_only=False)
MODEL_DURATION = Metric("gen_ai.client.operation.duration", "s", control_only=False)
TOKEN_USAGE = Metric("gen_ai.client.token.usage", "{token}", ((TOKEN_TYPE,),), control_only=False)
AGENT_DURATION = Metric("gen_ai.invoke_agent.duration", "s", control_only=False)
CONVERSATION_COST = Metric("ringfence.conversation.cost", "USD")
CONTEXT_WINDOW = Metric("ringfence.context_window.utilization", "1")
DECISIONS = Metric("ringfence.gate.decisions", "{decision}", ((OUTCOME,),))
CREDENTIALS = Metric("ringfence.credentials", "{credential}", ((OUTCOME,),))
SANDBOXES = Metric("ringfence.sandboxes", "{sandbox}", ((STATE,),))
AUDIT_WRITES = Metric("ringfence.audit.writes", "{event}", ((OUTCOME,),))
# The collector's own (opentelemetry.io/docs/collector/internal-telemetry).
COLLECTOR_UPTIME = Metric("otelcol_process_uptime", "s")
SEND_FAILURES = tuple(
    Metric(f"otelcol_exporter_send_failed_{items}", "{item}") for items in ("log_records", "metric_points", "spans")
)
REFUSALS = tuple(
    Metric(f"otelcol_receiver_refused_{items}", "{item}") for items in ("log_records", "metric_points", "spans")
)

AGENT_METRICS = (
    TOOL_DURATION, MODEL_DURATION, TOKEN_USAGE, AGENT_DURATION, CONVERSATION_COST, CONTEXT_WINDOW, DECISIONS, CREDENTIALS,
    SANDBOXES, AUDIT_WRITES,
)  # fmt: skip
COLLECTOR_METRICS = (COLLECTOR_UPTIME, *SEND_FAILURES, *REFUSALS)

# Attributes that leave the cluster, on resources, spans, log records and data points. Everything else is removed: also
# `gen_ai.input.messages`, tool arguments and results, and header values.
ALLOWED_ATTRIBUTES = (
    "service.name", "service.namespace", "service.version", "service.instance.id",
    "telemetry.sdk.language", "telemetry.sdk.name", "telemetry.sdk.version",
    "k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.container.name", "k8s.deployment.name", "k8s.node.name",
    "log.file.path", "log.iostream", "logtag", "event.name",
    "exception.type", "exception.message", ERROR_TYPE,
    "http.request.method", "http.response.status_code", "http.route", "rpc.method", "rpc.service", "rpc.system",
    "server.address", "server.port", "url.scheme",
    "gen_ai.agent.id", "gen_ai.agent.name", "gen_ai.conversation.id", "gen_ai.operation.name", "gen_ai.provider.name",
    "gen_ai.request.max_tokens", "gen_ai.request.model", "gen_ai.response.finish_reasons", "gen_ai.response.id",
    "gen_ai.response.model", TOKEN_TYPE, "gen_ai.tool.call.id", TOOL, "gen_ai.tool.type",
    "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "mcp.method.name",
    ENVIRONMENT, STREAM, INVOCATION_ID, OUTCOME, STATE, STATED_BY, "ringfence.decision.reason", "ringfence.user.role",
    COST, "ringfence.destination",
    "exporter", "receiver", "processor", "transport", "data_type",
)  # fmt: skip
