"""Alarms on what agents and the platform do, as plain data: one definition, one `aws.cloudwatch.MetricAlarm`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ringfence import telemetry_names as t
from ringfence.names import Names

EGRESS_METRIC = "EgressRefusals"
# Refused in five minutes, before somebody should look. An agent that is refused once learns; one that tries on doesn't.
REFUSALS_PER_PERIOD = 20
TOOL_ERROR_PERCENT = 20
# Below this many calls in five minutes a percentage says nothing.
TOOL_CALLS_AT_LEAST = 20


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of an alarm's expression, called `id` there. stat: a statistic of CloudWatch's."""

    id: str
    name: str
    stat: str
    namespace: str = t.METRIC_NAMESPACE
    dimensions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alarm:
    """thing: end of the name. expression: of the measures' ids, in CloudWatch's metric math; fires above `threshold`.
    periods: of five minutes. missing: what no data at all means, ``notBreaching`` or ``breaching``."""

    thing: str
    description: str
    expression: str
    measures: tuple[Measure, ...]
    threshold: float
    periods: int = 1
    missing: str = "notBreaching"

    def queries(self) -> list[dict[str, Any]]:
        """As `metric_queries` of the alarm."""
        metrics = [
            {
                "id": measure.id,
                "metric": {
                    "namespace": measure.namespace,
                    "metric_name": measure.name,
                    "dimensions": measure.dimensions,
                    "period": 300,
                    "stat": measure.stat,
                },
                "return_data": False,
            }
            for measure in self.measures
        ]
        result = {"id": "result", "expression": self.expression, "label": self.thing, "return_data": True}
        return [*metrics, result]


def egress_namespace(names: Names) -> str:
    """Namespace of the metric that CloudWatch Logs makes of the proxy's decisions."""
    return names.name("egress")


def alerts_namespace(names: Names) -> str:
    """Namespace of the metric that CloudWatch Logs makes of the control side's alerts (`ALERT_EVENTS`)."""
    return names.name("alerts")


def _measure(names: Names, id_: str, metric: t.Metric, stat: str, outcome: str | None = None) -> Measure:
    dimensions = {t.ENVIRONMENT: names.base}
    if outcome is not None:
        dimensions[t.OUTCOME] = outcome
    return Measure(id_, metric.name, stat, dimensions=dimensions)


def _collector(names: Names) -> Alarm:
    lost = [_measure(names, f"m{n}", m, "Sum") for n, m in enumerate((*t.SEND_FAILURES, *t.REFUSALS))]
    up = _measure(names, "up", t.COLLECTOR_UPTIME, "SampleCount")
    terms = " + ".join(f"FILL({measure.id}, 0)" for measure in lost)
    return Alarm(
        "collector-failing",
        "The collector drops or refuses telemetry, or is silent: see its pods in ringfence-system",
        f"{terms} + IF(FILL(up, 0) > 0, 0, 1)",
        (*lost, up),
        threshold=0,
        periods=2,
        missing="breaching",
    )


def alarms(names: Names, conversation_cap_usd: Decimal) -> Sequence[Alarm]:
    """The environment's alarms, besides those of the log store and the proxy."""
    errors = _measure(names, "errors", t.TOOL_DURATION, "SampleCount", outcome=t.ERROR)
    calls = _measure(names, "ok", t.TOOL_DURATION, "SampleCount", outcome=t.OK)
    total = "(FILL(errors, 0) + FILL(ok, 0))"
    return (
        Alarm(
            "agent-refusals",
            "Agents keep asking for what their users may not do: see ringfence.decision.reason in the control log",
            "refused",
            (_measure(names, "refused", t.DECISIONS, "Sum", outcome=t.REFUSED),),
            threshold=REFUSALS_PER_PERIOD - 1,
        ),
        Alarm(
            "conversation-cost",
            f"A conversation cost more than its cap of {conversation_cap_usd} USD: the model gateway did not stop it",
            "cost",
            (_measure(names, "cost", t.CONVERSATION_COST, "Maximum"),),
            threshold=float(conversation_cap_usd),
        ),
        Alarm(
            "tool-errors",
            f"More than {TOOL_ERROR_PERCENT} % of tool calls fail",
            f"IF({total} >= {TOOL_CALLS_AT_LEAST}, 100 * FILL(errors, 0) / {total}, 0)",
            (errors, calls),
            threshold=TOOL_ERROR_PERCENT,
            periods=2,
        ),
        Alarm(
            "audit-writes",
            "An audit event could not be written: calls are refused until it can",
            "failed",
            (_measure(names, "failed", t.AUDIT_WRITES, "Sum", outcome=t.FAILED),),
            threshold=0,
        ),
        Alarm(
            "egress-refusals",
            "The proxy keeps refusing connections: see decision, tool and host in the proxy log",
            "refused",
            (Measure("refused", EGRESS_METRIC, "Sum", egress_namespace(names)),),
            threshold=REFUSALS_PER_PERIOD - 1,
        ),
        Alarm(
            "credential-misuse",
            "A credential was used as it should not be, or nobody can look any more: see alert.* in the control log",
            "alerts",
            (Measure("alerts", t.CREDENTIAL_ALERTS, "Sum", alerts_namespace(names)),),
            threshold=0,
        ),
        Alarm(
            "agent-behaviour",
            "An injected instruction was followed up, or one source is refused again and again: see alert.* in the control log",
            "alerts",
            (Measure("alerts", t.BEHAVIOUR_ALERTS, "Sum", alerts_namespace(names)),),
            threshold=0,
        ),
        _collector(names),
    )
