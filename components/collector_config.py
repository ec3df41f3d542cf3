"""The OpenTelemetry Collector's configurations, gateway and node agent, as plain data. Component names and settings are
those of release 0.152.0, read in its source.

Everything passes the node agent's redaction or none, and then the gateway's: the allow-list of attributes, the secret
patterns on what is left, and the same patterns on what the redaction processor does not touch (span names, status
messages, event names, severities). Attributes of span links are the one text that no processor of this release reaches;
emitters set none. A statement that fails drops its batch (`error_mode: propagate`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from components.vault_config import NAME as VAULT_CONTAINER
from ringfence import telemetry_names as t
from ringfence.catalog.model import NAME_PATTERN
from ringfence.names import LABEL_DOMAIN, SANDBOX_NAMESPACE_PREFIX, SYSTEM_NAMESPACE, VAULT_NAMESPACE, Names
from ringfence.redaction.patterns import PATTERNS
from ringfence.runner.manifests import INVOCATION_LABEL

Json = dict[str, Any]
HEALTH_PORT = 13133
LOG_DIRECTORY = "/var/log/pods"
STORAGE_DIRECTORY = "/var/lib/otelcol"
METRICS_STREAM, TOOLS, CONTROL, AUDIT, VAULT_AUDIT = "metrics", "tools", "control", "audit", "vault-audit"
# Log streams that arrive through the collector; the proxy, DNS and flow logs have their own ways.
LOG_STREAMS = (AUDIT, CONTROL, TOOLS, VAULT_AUDIT)
_SECOND_PASS, _REDACTION = "transform/redact", "redaction"
_OWN_METRICS_SECONDS = 60


def _text(value: str) -> str:
    """`value` as an OTTL string literal."""
    return json.dumps(value, ensure_ascii=False)


def _exactly(values: Sequence[str]) -> str:
    """An OTTL literal of the expression that matches any of `values` whole. Not with a dollar sign, which the
    configuration's own language reads as a variable."""
    return _text("^(?:" + "|".join(re.escape(value) for value in sorted(values)) + ")\\z")


# The catalog's names, without the dollar sign.
_TOOL_NAME = _text(NAME_PATTERN.replace("$", r"\z"))


def _limits() -> Json:
    return {"check_interval": "1s", "limit_percentage": 75, "spike_limit_percentage": 20}


def _redaction() -> Json:
    return {
        "allow_all_keys": False,
        "allowed_keys": sorted(t.ALLOWED_ATTRIBUTES),
        "blocked_values": [pattern.regex for pattern in PATTERNS],
        # Otherwise lists and maps pass unread.
        "redact_all_types": True,
        "summary": "silent",
    }


def _replace(path: str) -> list[str]:
    return [f"replace_pattern({path}, {_text(p.regex)}, {_text(f'[REDACTED {p.name}]')})" for p in PATTERNS]


def _second_pass() -> Json:
    """Bodies once more, since the redaction processor is alpha for logs, and the texts that it leaves alone."""
    readable = " or ".join(f"Is{kind}(log.body)" for kind in ("String", "Map", "List", "Int", "Double", "Bool"))
    unreadable = f'set(log.body, "[REDACTED: neither text nor structure]") where log.body != nil and not ({readable})'
    return {
        "error_mode": "propagate",
        "log_statements": [unreadable, *_replace("log.body"), *_replace("log.severity_text")],
        "trace_statements": [
            *_replace("span.name"), *_replace("span.status.message"), *_replace("spanevent.name"), *_replace("scope.name"),
        ],
        "metric_statements": _replace("scope.name"),
    }  # fmt: skip


def _attributes_of(association: list[Json], only_node: bool) -> Json:
    made: Json = {
        "auth_type": "serviceAccount",
        "wait_for_metadata": True,
        "wait_for_metadata_timeout": "60s",
        "extract": {
            # From the ReplicaSet's name, so that reading ReplicaSets needs no permission.
            "deployment_name_from_replicaset": True,
            "metadata": [
                "k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.deployment.name", "k8s.node.name",
            ],
            "labels": [{"tag_name": t.INVOCATION_ID, "key": INVOCATION_LABEL, "from": "namespace"}],
        },
        "pod_association": association,
    }  # fmt: skip
    return made | {"filter": {"node_from_env_var": "NODE_NAME"}} if only_node else made


def _from(source: str, name: str | None = None) -> list[Json]:
    return [{"sources": [{"from": source, "name": name} if name else {"from": source}]}]


def _unclaim() -> Json:
    """Who sends is decided by its address: what it says about its pod, its invocation and its environment is dropped."""
    claims = (
        r"^k8s[.]",
        f"^{re.escape(LABEL_DOMAIN)}",
        f"^{re.escape(t.INVOCATION_ID)}",
        f"^{re.escape(t.ENVIRONMENT)}",
    )
    drop = [f"delete_matching_keys(resource.attributes, {_text(claim)})" for claim in claims]
    return {"error_mode": "propagate", **{f"{kind}_statements": drop for kind in ("log", "metric", "trace")}}


def _set(key: str, value: str, condition: str = "") -> str:
    return f'set(resource.attributes["{key}"], {_text(value)})' + (f" where {condition}" if condition else "")


def _classify_workloads() -> Json:
    """The control side chooses between audit and control; everybody else, and whoever isn't known yet, is a tool."""
    namespace, stream = 'resource.attributes["k8s.namespace.name"]', f'resource.attributes["{t.STREAM}"]'
    control = f"{namespace} == {_text(SYSTEM_NAMESPACE)}"
    statements = [
        _set(t.STREAM, CONTROL, f"{control} and ({stream} == nil or {stream} != {_text(AUDIT)})"),
        _set(t.STREAM, TOOLS, f"{namespace} == nil or {namespace} != {_text(SYSTEM_NAMESPACE)}"),
    ]
    return {"error_mode": "propagate", "log_statements": statements}


def _classify_agents() -> Json:
    namespace, container = (f'resource.attributes["k8s.{key}.name"]' for key in ("namespace", "container"))
    store = f"{namespace} == {_text(VAULT_NAMESPACE)} and {container} == {_text(VAULT_CONTAINER)}"
    return {"error_mode": "propagate", "log_statements": [_set(t.STREAM, CONTROL), _set(t.STREAM, VAULT_AUDIT, store)]}


def _dimensions(names: Names) -> Json:
    """Sets the environment and the outcome of a tool call, and keeps dimensions to known values.

    A tool is named by the control side alone, whose names come from the catalog; what a sandbox calls its tools counts
    as `_OTHER`. So no list of tools is needed here, and a tool more doesn't restart the collector.
    """

    def attribute(key: str) -> str:
        return f'datapoint.attributes["{key}"]'

    tool_call = f"metric.name == {_text(t.TOOL_DURATION.name)}"
    error = attribute(t.ERROR_TYPE)
    statements = [
        f"set({attribute(t.ENVIRONMENT)}, {_text(names.base)})",
        f"set({attribute(t.OUTCOME)}, {_text(t.ERROR)}) where {tool_call} and {error} != nil",
        f"set({attribute(t.OUTCOME)}, {_text(t.OK)}) where {tool_call} and {error} == nil",
    ]
    namespace = 'resource.attributes["k8s.namespace.name"]'
    trusted = f"{namespace} == {_text(SYSTEM_NAMESPACE)} and IsMatch({attribute(t.TOOL)}, {_TOOL_NAME})"
    statements.append(
        f"set({attribute(t.TOOL)}, {_text(t.OTHER)}) where {attribute(t.TOOL)} != nil and not ({trusted})"
    )
    for key, values in t.VALUES.items():
        known = f"not IsMatch({attribute(key)}, {_exactly(values)})"
        statements.append(f"set({attribute(key)}, {_text(t.OTHER)}) where {attribute(key)} != nil and {known}")
    return {"error_mode": "propagate", "metric_statements": statements}


def _filter(*dropped: str) -> Json:
    return {"error_mode": "propagate", "metrics": {"metric": list(dropped)}}


def _known_metrics(metrics: Sequence[t.Metric]) -> str:
    return f"not IsMatch(name, {_exactly([metric.name for metric in metrics])})"


def _workload_metrics() -> Json:
    """Known names only, and those on which decisions rest from the control side only."""
    trusted = _exactly([metric.name for metric in t.AGENT_METRICS if metric.control_only])
    namespace = 'resource.attributes["k8s.namespace.name"]'
    elsewhere = f"({namespace} == nil or {namespace} != {_text(SYSTEM_NAMESPACE)})"
    return _filter(_known_metrics(t.AGENT_METRICS), f"IsMatch(name, {trusted}) and {elsewhere}")


def _metric_declarations() -> list[Json]:
    declared: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for metric in (*t.AGENT_METRICS, *t.COLLECTOR_METRICS):
        declared.setdefault(metric.dimensions, []).append(metric.name)
    return [
        {
            "dimensions": [[t.ENVIRONMENT, *keys] for keys in dimensions],
            "metric_name_selectors": [f"^{re.escape(name)}\\z" for name in names],
        }
        for dimensions, names in declared.items()
    ]


def _exporters(names: Names) -> Json:
    """No log group is ever made here: one that isn't there already has no key, no retention and no mask."""
    there = {"region": names.region, "local_mode": True}
    own_stream = {"log_stream_name": "${env:POD_NAME}"}
    logs = {
        f"awscloudwatchlogs/{stream}": {
            **there, "log_group_name": names.log_group(stream), **own_stream, "sending_queue": {"queue_size": 1000},
        }
        for stream in LOG_STREAMS
    }  # fmt: skip
    return {
        **logs,
        "awsemf": {
            **there,
            "log_group_name": names.log_group(METRICS_STREAM),
            **own_stream,
            "namespace": t.METRIC_NAMESPACE,
            "version": "1",
            "dimension_rollup_option": "NoDimensionRollup",
            # Refusals and failures are rare; without this the first one would be lost.
            "retain_initial_value_of_delta_metric": True,
            "metric_declarations": _metric_declarations(),
        },
        "awsxray": {**there, "indexed_attributes": ["gen_ai.conversation.id", t.TOOL, t.INVOCATION_ID, t.ENVIRONMENT]},
    }


def _own_telemetry(endpoint: str) -> Json:
    reader = {
        "periodic": {
            "interval": _OWN_METRICS_SECONDS * 1000,
            "exporter": {
                "otlp": {"protocol": "grpc", "endpoint": endpoint, "insecure": True, "temporality_preference": "delta"}
            },
        }
    }
    return {"logs": {"level": "warn", "encoding": "json"}, "metrics": {"level": "normal", "readers": [reader]}}


def _otlp(port: int) -> Json:
    """gRPC only, with bounds for a sender that means harm."""
    return {
        "protocols": {
            "grpc": {
                "endpoint": f"${{env:POD_IP}}:{port}",
                "max_recv_msg_size_mib": 4,
                "max_concurrent_streams": 32,
                "keepalive": {"server_parameters": {"max_connection_age": "10m", "max_connection_age_grace": "30s"}},
            }
        }
    }


def _pipeline(receivers: Sequence[str], processors: Sequence[str], exporters: Sequence[str]) -> Json:
    """Memory first, so that nothing is taken in that can't be held; redaction always; batches last."""
    middle = [*processors, _SECOND_PASS, _REDACTION]
    return {
        "receivers": list(receivers),
        "processors": ["memory_limiter", *middle, "batch"],
        "exporters": list(exporters),
    }


def _gateway_processors(names: Names) -> Json:
    return {
        "memory_limiter": _limits(),
        "transform/unclaim": _unclaim(),
        "k8s_attributes/sender": _attributes_of(_from("connection"), only_node=False),
        "transform/workloads": _classify_workloads(),
        "transform/agents": _classify_agents(),
        "filter/workloads": _workload_metrics(),
        "filter/agents": _filter(_known_metrics(t.COLLECTOR_METRICS)),
        "transform/dimensions": _dimensions(names),
        _SECOND_PASS: _second_pass(),
        _REDACTION: _redaction(),
        "batch": {"timeout": "5s", "send_batch_size": 512, "send_batch_max_size": 1024},
    }


def gateway_config(names: Names) -> Json:
    """The gateway: takes OTLP from workloads and node agents, redacts, sorts by stream, hands over to AWS."""
    sender = ["transform/unclaim", "k8s_attributes/sender"]
    routes = [
        {"condition": f'attributes["{t.STREAM}"] == {_text(stream)}', "pipelines": [f"logs/{stream}"]}
        for stream in LOG_STREAMS
    ]
    pipelines = {
        "logs/workloads": _pipeline(["otlp/workloads"], [*sender, "transform/workloads"], ["routing"]),
        "logs/agents": _pipeline(["otlp/agents"], ["transform/agents"], ["routing"]),
        **{f"logs/{s}": _pipeline(["routing"], [], [f"awscloudwatchlogs/{s}"]) for s in LOG_STREAMS},
        "metrics/workloads": _pipeline(
            ["otlp/workloads"], [*sender, "filter/workloads", "transform/dimensions"], ["awsemf"]
        ),
        "metrics/agents": _pipeline(["otlp/agents"], ["filter/agents", "transform/dimensions"], ["awsemf"]),
        "traces/workloads": _pipeline(["otlp/workloads"], sender, ["awsxray"]),
    }
    return {
        "extensions": {"health_check": {"endpoint": f"${{env:POD_IP}}:{HEALTH_PORT}"}},
        "receivers": {"otlp/workloads": _otlp(t.OTLP_PORT), "otlp/agents": _otlp(t.AGENT_OTLP_PORT)},
        "processors": _gateway_processors(names),
        "connectors": {"routing": {"error_mode": "propagate", "default_pipelines": [f"logs/{TOOLS}"], "table": routes}},
        "exporters": _exporters(names),
        "service": {
            "extensions": ["health_check"],
            "telemetry": _own_telemetry(f"http://${{env:POD_IP}}:{t.AGENT_OTLP_PORT}"),
            "pipelines": pipelines,
        },
    }


def _not_read() -> list[str]:
    """The collector's own logs, which would feed on themselves, and sandboxes', which the runner reads and sends."""
    pods = (f"{t.TELEMETRY_NAMESPACE}_*", f"{SYSTEM_NAMESPACE}_{t.COLLECTOR}-*", f"{SANDBOX_NAMESPACE_PREFIX}*")
    return [f"{LOG_DIRECTORY}/{pod}/*/*.log" for pod in pods]


def agent_config(gateway: str) -> Json:
    """The node agent: reads containers' logs, says whose they are, redacts, sends them to `gateway` (host name)."""
    endpoint = f"{gateway}:{t.AGENT_OTLP_PORT}"
    return {
        "extensions": {
            "health_check": {"endpoint": f"${{env:POD_IP}}:{HEALTH_PORT}"},
            "file_storage": {"directory": STORAGE_DIRECTORY},
        },
        "receivers": {
            "file_log": {
                "include": [f"{LOG_DIRECTORY}/*/*/*.log"],
                "exclude": _not_read(),
                # A line twice is better than an audit record lost while the agent was replaced.
                "start_at": "beginning",
                "include_file_path": True,
                "storage": "file_storage",
                "retry_on_failure": {"enabled": True, "max_elapsed_time": "0s"},
                "operators": [{"type": "container", "format": "containerd", "max_log_size": "256KiB"}],
            }
        },
        "processors": {
            "memory_limiter": _limits(),
            "k8s_attributes/file": _attributes_of(_from("resource_attribute", "k8s.pod.uid"), only_node=True),
            _SECOND_PASS: _second_pass(),
            _REDACTION: _redaction(),
            "batch": {"timeout": "2s", "send_batch_size": 512, "send_batch_max_size": 1024},
        },
        "exporters": {
            "otlp_grpc": {
                "endpoint": endpoint,
                # Inside of the cluster, between two pods that NetworkPolicies pair, after redaction.
                "tls": {"insecure": True},
                "compression": "gzip",
                "sending_queue": {"storage": "file_storage", "queue_size": 1000},
                "retry_on_failure": {"enabled": True, "max_elapsed_time": "0s"},
            }
        },
        "service": {
            "extensions": ["health_check", "file_storage"],
            "telemetry": _own_telemetry(f"http://{endpoint}"),
            "pipelines": {"logs": _pipeline(["file_log"], ["k8s_attributes/file"], ["otlp_grpc"])},
        },
    }


class _Plain(yaml.SafeDumper):
    """Writes a list that is used twice out twice: anchors are hard to review."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(config: Mapping[str, Any]) -> str:
    """The configuration as YAML, in the order in which it was written."""
    return yaml.dump(dict(config), Dumper=_Plain, sort_keys=False, width=10_000)
