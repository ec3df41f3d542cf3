"""The collector's configurations: whole, redacted in every pipeline, and deaf to what a sandbox claims."""

from __future__ import annotations

import copy

import pytest
import yaml

from components.collector_config import agent_config, gateway_config, render
from components.log_store import STREAMS
from ringfence import telemetry_names as t
from ringfence.redaction.patterns import PATTERNS

KINDS = ("receivers", "processors", "exporters")
CONTENT = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.call.arguments",
           "gen_ai.tool.call.result", "http.request.header.authorization", "url.full", "url.query", "db.query.text",
           "exception.stacktrace")  # fmt: skip


@pytest.fixture
def gateway(names):
    return yaml.safe_load(render(gateway_config(names)))


@pytest.fixture
def agent():
    return yaml.safe_load(render(agent_config("collector.ringfence-system.svc.cluster.local")))


@pytest.fixture(params=["gateway", "agent"])
def config(request):
    return request.getfixturevalue(request.param)


def _problems(config: dict) -> list[str]:
    """What is wrong with a configuration's wiring and redaction."""
    found = []
    connectors = set(config.get("connectors", {}))
    declared = {kind: set(config[kind]) | (connectors if kind != "processors" else set()) for kind in KINDS}
    for name, pipeline in config["service"]["pipelines"].items():
        for kind in KINDS:
            found += [f"{name}: {part} is not declared" for part in pipeline[kind] if part not in declared[kind]]
        steps = pipeline["processors"]
        if steps[0] != "memory_limiter" or steps[-1] != "batch":
            found.append(f"{name}: memory_limiter is not first or batch not last")
        if "redaction" not in steps or "transform/redact" not in steps:
            found.append(f"{name}: is not redacted")
        elif any(
            step.startswith(("k8s_attributes", "transform/dimensions")) for step in steps[steps.index("redaction") :]
        ):
            found.append(f"{name}: attributes are added after redaction")
    used = {part for pipeline in config["service"]["pipelines"].values() for kind in KINDS for part in pipeline[kind]}
    found += [f"{part} is used nowhere" for kind in KINDS for part in config[kind] if part not in used]
    for route in config.get("connectors", {}).get("routing", {}).get("table", []):
        found += [f"no pipeline {p}" for p in route["pipelines"] if p not in config["service"]["pipelines"]]
    return found


def test_every_part_is_declared_and_used_and_every_pipeline_redacted_between_memory_and_batch(config):
    assert _problems(config) == []


@pytest.mark.parametrize(
    ("missing", "problem"),
    [("redaction", "is not redacted"), ("transform/redact", "is not redacted"), ("memory_limiter", "is not first"),
     ("batch", "not last")],
)  # fmt: skip
def test_a_pipeline_that_lost_a_step_is_noticed(config, missing, problem):
    for name in config["service"]["pipelines"]:
        broken = copy.deepcopy(config)
        broken["service"]["pipelines"][name]["processors"].remove(missing)
        assert any(name in found and problem in found for found in _problems(broken)), name


def test_the_rendered_configurations_are_as_reviewed(golden, names):
    golden("telemetry/gateway.yaml", render(gateway_config(names)))
    golden("telemetry/agent.yaml", render(agent_config("collector.ringfence-system.svc.cluster.local")))


def test_only_listed_attributes_pass_and_every_pattern_is_applied_to_values_of_any_type(config):
    redaction = config["processors"]["redaction"]
    assert redaction["allow_all_keys"] is False and redaction["redact_all_types"] is True
    assert "allowed_values" not in redaction and "ignored_keys" not in redaction
    assert redaction["blocked_values"] == [pattern.regex for pattern in PATTERNS]
    assert not set(CONTENT) & set(redaction["allowed_keys"])


def test_bodies_and_span_texts_are_read_by_every_pattern(config):
    second = config["processors"]["transform/redact"]
    assert second["error_mode"] == "propagate"
    for pattern in PATTERNS:
        for path, kind in (("log.body", "log"), ("log.severity_text", "log"), ("span.name", "trace"),
                           ("span.status.message", "trace"), ("spanevent.name", "trace")):  # fmt: skip
            marked = [s for s in second[f"{kind}_statements"]
                      if s.startswith(f"replace_pattern({path}, ") and f"[REDACTED {pattern.name}]" in s]  # fmt: skip
            assert len(marked) == 1, (path, pattern.name)
    assert "neither text nor structure" in second["log_statements"][0]


def test_nothing_is_printed_or_exported_elsewhere(gateway, agent):
    kinds = {name.split("/")[0] for name in gateway["exporters"]}
    assert kinds == {"awscloudwatchlogs", "awsemf", "awsxray"}
    assert set(agent["exporters"]) == {"otlp_grpc"}


def test_no_dollar_sign_but_in_the_known_variables(config):
    text = render(config)
    for variable in ("POD_IP", "POD_NAME"):
        text = text.replace(f"${{env:{variable}}}", "")
    assert "$" not in text


def test_each_stream_has_its_own_pipeline_into_a_group_of_the_log_store(gateway, names):
    groups = {name: e["log_group_name"] for name, e in gateway["exporters"].items() if "log_group_name" in e}
    assert set(groups.values()) <= {names.log_group(stream) for stream in STREAMS}
    for stream in ("audit", "control", "tools", "vault-audit"):
        pipeline = gateway["service"]["pipelines"][f"logs/{stream}"]
        (exporter,) = pipeline["exporters"]
        assert groups[exporter] == names.log_group(stream)
    assert gateway["connectors"]["routing"]["default_pipelines"] == ["logs/tools"]
    assert not any("log_retention" in exporter for exporter in gateway["exporters"].values())


def test_what_a_workload_claims_is_dropped_before_its_address_is_looked_up(gateway):
    for name, pipeline in gateway["service"]["pipelines"].items():
        steps = pipeline["processors"]
        if "otlp/workloads" in pipeline["receivers"]:
            assert steps[1:3] == ["transform/unclaim", "k8s_attributes/sender"], name
            assert "otlp/agents" not in pipeline["receivers"]
    for statements in ("log_statements", "metric_statements", "trace_statements"):
        assert (
            'delete_matching_keys(resource.attributes, "^k8s[.]")'
            in gateway["processors"]["transform/unclaim"][statements]
        )
    association = gateway["processors"]["k8s_attributes/sender"]["pod_association"]
    assert association == [{"sources": [{"from": "connection"}]}]


def test_only_the_control_side_writes_to_the_audit_stream(gateway):
    control, tools = gateway["processors"]["transform/workloads"]["log_statements"]
    namespace = 'resource.attributes["k8s.namespace.name"]'
    assert control.startswith('set(resource.attributes["ringfence.stream"], "control")')
    assert tools == (
        f'set(resource.attributes["ringfence.stream"], "tools") where {namespace} == nil or {namespace} != "ringfence-system"'
    )


def test_figures_that_decide_come_from_the_control_side_only(gateway):
    unknown, elsewhere = gateway["processors"]["filter/workloads"]["metrics"]["metric"]
    for metric in t.AGENT_METRICS:
        name = metric.name.replace(".", "\\\\.")
        assert name in unknown
        assert (name in elsewhere) == metric.control_only
    assert 'resource.attributes["k8s.namespace.name"] != "ringfence-system"' in elsewhere
    assert "otelcol" not in unknown


def test_dimensions_have_known_values_only(gateway):
    statements = "\n".join(gateway["processors"]["transform/dimensions"]["metric_statements"])
    for key in {key for metric in t.AGENT_METRICS for keys in metric.dimensions for key in keys}:
        assert (
            f'set(datapoint.attributes["{key}"], "_OTHER") where datapoint.attributes["{key}"] != nil and not'
            in statements
        )
    declared = {
        key for d in gateway["exporters"]["awsemf"]["metric_declarations"] for keys in d["dimensions"] for key in keys
    }
    assert declared == {t.ENVIRONMENT, t.OUTCOME, t.TOOL, t.TOKEN_TYPE, t.STATE}
    assert gateway["exporters"]["awsemf"]["dimension_rollup_option"] == "NoDimensionRollup"


def test_a_tool_is_named_by_the_control_side_alone(gateway):
    statements = gateway["processors"]["transform/dimensions"]["metric_statements"]
    key, namespace = 'datapoint.attributes["gen_ai.tool.name"]', 'resource.attributes["k8s.namespace.name"]'
    trusted = rf'{namespace} == "ringfence-system" and IsMatch({key}, "^[a-z][a-z0-9-]{{1,29}}\\z")'
    assert f'set({key}, "_OTHER") where {key} != nil and not ({trusted})' in statements


def test_the_agent_reads_neither_itself_nor_a_sandbox(agent):
    receiver = agent["receivers"]["file_log"]
    assert receiver["include"] == ["/var/log/pods/*/*/*.log"]
    assert receiver["exclude"] == [
        "/var/log/pods/ringfence-telemetry_*/*/*.log", "/var/log/pods/ringfence-system_collector-*/*/*.log",
        "/var/log/pods/sandbox-*/*/*.log",
    ]  # fmt: skip
    assert agent["processors"]["k8s_attributes/file"]["filter"] == {"node_from_env_var": "NODE_NAME"}


def test_what_was_read_is_kept_until_the_gateway_took_it(agent):
    assert agent["receivers"]["file_log"]["storage"] == "file_storage"
    exporter = agent["exporters"]["otlp_grpc"]
    assert exporter["sending_queue"]["storage"] == "file_storage"
    assert exporter["retry_on_failure"] == {"enabled": True, "max_elapsed_time": "0s"}
