"""Two CloudWatch dashboards as plain data: what agents do, and how the platform is."""

from __future__ import annotations

import json
from typing import Any

from ringfence import telemetry_names as t
from ringfence.names import Names

Json = dict[str, Any]
AGENTS, PLATFORM = "agents", "platform"
_WIDTH, _HEIGHT, _PERIOD = 8, 6, 300


class _Board:
    """Lays widgets out three in a row."""

    def __init__(self, names: Names):
        self._names = names
        self._widgets: list[Json] = []

    def _add(self, kind: str, title: str, properties: Json) -> None:
        n = len(self._widgets)
        place = {"x": n % 3 * _WIDTH, "y": n // 3 * _HEIGHT, "width": _WIDTH, "height": _HEIGHT}
        common = {"title": title, "region": self._names.region}
        self._widgets.append({"type": kind, **place, "properties": common | properties})

    def graph(self, title: str, *metrics: list[Any], stacked: bool = False) -> None:
        """A widget of metrics, each as CloudWatch writes it: a list with options last."""
        self._add(
            "metric",
            title,
            {"view": "timeSeries", "stacked": stacked, "period": _PERIOD, "metrics": list(metrics)},
        )

    def logs(self, title: str, stream: str, query: str) -> None:
        """A widget of CloudWatch Logs Insights on one of the environment's log groups."""
        source = f"SOURCE '{self._names.log_group(stream)}' | {query}"
        self._add("log", title, {"query": source, "view": "table"})

    def metric(
        self, metric: t.Metric, stat: str, label: str, dimensions: dict[str, str] | None = None, **more: Any
    ) -> list:
        """One of our own metrics, of this environment."""
        pairs = {t.ENVIRONMENT: self._names.base} | (dimensions or {})
        flat = [part for pair in pairs.items() for part in pair]
        return [t.METRIC_NAMESPACE, metric.name, *flat, {"stat": stat, "label": label, **more}]

    def search(self, metric: t.Metric, key: str, stat: str) -> list:
        """The metric for every value of dimension `key`."""
        keys = ",".join(f'"{name}"' for name in sorted((t.ENVIRONMENT, *self._set_with(metric, key))))
        found = f'{{{t.METRIC_NAMESPACE},{keys}}} MetricName="{metric.name}" "{self._names.base}"'
        return [{"expression": f"SEARCH('{found}', '{stat}', {_PERIOD})", "id": f"s{len(self._widgets)}{stat.lower()}"}]

    @staticmethod
    def _set_with(metric: t.Metric, key: str) -> tuple[str, ...]:
        return next(keys for keys in metric.dimensions if key in keys)

    def json(self) -> str:
        """The dashboard's body."""
        return json.dumps({"widgets": self._widgets}, indent=2)


def agents_dashboard(names: Names) -> str:
    """Tool success and latency, model calls, tokens, cost, context window, refusals."""
    board = _Board(names)
    ok, error = ({t.OUTCOME: value} for value in (t.OK, t.ERROR))
    board.graph(
        "Tool success rate (%)",
        [{"expression": "100 * FILL(ok, 0) / (FILL(ok, 0) + FILL(errors, 0))", "id": "rate", "label": "success"}],
        board.metric(t.TOOL_DURATION, "SampleCount", "ok", ok, id="ok", visible=False),
        board.metric(t.TOOL_DURATION, "SampleCount", "errors", error, id="errors", visible=False),
    )
    board.graph("Tool calls by tool and outcome", board.search(t.TOOL_DURATION, t.TOOL, "SampleCount"), stacked=True)
    board.graph(
        "Tool latency (s)",
        *(board.metric(t.TOOL_DURATION, stat, stat, ok) for stat in ("p50", "p95", "p99")),
    )
    board.graph("Model latency (s)", *(board.metric(t.MODEL_DURATION, s, s) for s in ("p50", "p95", "p99")))
    board.graph(
        "Tokens",
        *(board.metric(t.TOKEN_USAGE, "Sum", kind, {t.TOKEN_TYPE: kind}) for kind in t.VALUES[t.TOKEN_TYPE]),
        stacked=True,
    )
    board.graph(
        "Cost per conversation (USD)", *(board.metric(t.CONVERSATION_COST, s, s) for s in ("p50", "p95", "Maximum"))
    )
    board.graph(
        "Context window used (1 = full)", *(board.metric(t.CONTEXT_WINDOW, s, s) for s in ("p50", "p95", "Maximum"))
    )
    board.graph(
        "Decisions of the gate",
        *(board.metric(t.DECISIONS, "Sum", value, {t.OUTCOME: value}) for value in (t.ALLOWED, t.REFUSED)),
    )
    board.logs(
        "Refusals by reason", "control",
        f"filter attributes.`{t.OUTCOME}` = '{t.REFUSED}' | stats count(*) as refusals by "
        "attributes.`ringfence.decision.reason` as reason, attributes.`ringfence.user.role` as role | sort refusals desc "
        "| limit 20",
    )  # fmt: skip
    return board.json()


def platform_dashboard(names: Names) -> str:
    """Sandboxes, egress, credentials, node pool, secrets store, audit, collector."""
    board = _Board(names)
    board.graph("Sandboxes", *(board.metric(t.SANDBOXES, "Maximum", s, {t.STATE: s}) for s in t.VALUES[t.STATE]))
    board.graph(
        "Pods that find no node",
        [
            "AWS/EKS",
            "scheduler_pending_pods_UNSCHEDULABLE",
            "ClusterName",
            names.base,
            {"stat": "Maximum", "label": "pods"},
        ],
    )
    nodes = f'{{AWS/EC2,AutoScalingGroupName}} MetricName="CPUUtilization" "eks-{names.name("sandbox")}"'
    board.graph(
        "Sandbox nodes (one sample each)",
        [{"expression": f"SEARCH('{nodes}', 'SampleCount', {_PERIOD})", "id": "nodes"}],
        stacked=True,
    )
    board.logs(
        "Egress decisions", "proxy",
        "stats count(*) as connections by decision, tool, host, reason | sort connections desc | limit 50",
    )  # fmt: skip
    board.graph(
        "Credentials",
        *(board.metric(t.CREDENTIALS, "Sum", v, {t.OUTCOME: v}) for v in ("issued", t.REFUSED, "revoked", "expired")),
    )
    board.logs("Secrets store: requests", "vault-audit", "stats count(*) as lines by bin(5m)")
    board.graph(
        "Audit events",
        [
            "AWS/Logs",
            "IncomingLogEvents",
            "LogGroupName",
            names.log_group("audit"),
            {"stat": "Sum", "label": "arrived"},
        ],
        board.metric(t.AUDIT_WRITES, "Sum", "failed", {t.OUTCOME: t.FAILED}),
    )
    board.graph("Lost by the collector", *(board.metric(m, "Sum", m.name) for m in (*t.SEND_FAILURES, *t.REFUSALS)))
    board.graph(
        "Credentials masked in logs",
        [names.name("logs"), "MaskedFindings", {"stat": "Sum", "label": "findings"}],
    )
    return board.json()
