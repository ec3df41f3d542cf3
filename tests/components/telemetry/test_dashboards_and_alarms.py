"""Dashboards show, and alarms watch, metrics that somebody emits and the collector lets through."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest
import yaml

from components.alarms import EGRESS_METRIC, alarms
from components.collector_config import gateway_config, render
from components.dashboards import agents_dashboard, platform_dashboard
from components.log_store import LogStore, LogStoreArgs
from ringfence import telemetry_names as t
from ringfence.audit import Trail

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
TOPIC = "arn:aws:sns:us-east-1:111122223333:ringfence-test-alerts"
METRICS = {metric.name: metric for metric in (*t.AGENT_METRICS, *t.COLLECTOR_METRICS)}


def _published(names) -> set[tuple[str, frozenset[str]]]:
    """Metric and set of dimension names, as the collector sends them to CloudWatch."""
    config = yaml.safe_load(render(gateway_config(names)))
    return {
        (name, frozenset(keys))
        for declaration in config["exporters"]["awsemf"]["metric_declarations"]
        for keys in declaration["dimensions"]
        for name in METRICS
        if f"^{name}\\z".replace(".", "\\.") in declaration["metric_name_selectors"]
    }


def _widgets(names):
    for body in (agents_dashboard(names), platform_dashboard(names)):
        yield from json.loads(body)["widgets"]


def test_the_dashboards_are_as_reviewed(golden, names):
    golden("telemetry/dashboard_agents.json", agents_dashboard(names))
    golden("telemetry/dashboard_platform.json", platform_dashboard(names))


def test_every_metric_on_a_dashboard_is_published_with_those_dimensions(names):
    shown = [m for w in _widgets(names) for m in w["properties"].get("metrics", []) if m[0] == t.METRIC_NAMESPACE]
    assert len(shown) > 20
    for metric in shown:
        pairs = [part for part in metric[2:] if isinstance(part, str)]
        assert dict(zip(pairs[::2], pairs[1::2], strict=True))[t.ENVIRONMENT] == "ringfence-test"
        assert (metric[1], frozenset(pairs[::2])) in _published(names), metric


def test_every_value_on_a_dashboard_is_one_that_the_collector_leaves_alone(names):
    for widget in _widgets(names):
        for metric in widget["properties"].get("metrics", []):
            if metric[0] == t.METRIC_NAMESPACE:
                pairs = [part for part in metric[4:] if isinstance(part, str)]
                for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                    assert value in t.VALUES[key]


def test_widgets_do_not_overlap_and_fit_the_grid(names):
    for body in (agents_dashboard(names), platform_dashboard(names)):
        places = [(w["x"], w["y"]) for w in json.loads(body)["widgets"]]
        assert len(set(places)) == len(places)
        assert all(w["x"] + w["width"] <= 24 for w in json.loads(body)["widgets"])


@pytest.mark.parametrize(
    ("title", "metric"),
    [("Tool success rate (%)", t.TOOL_DURATION), ("Tool latency (s)", t.TOOL_DURATION), ("Tokens", t.TOKEN_USAGE),
     ("Cost per conversation (USD)", t.CONVERSATION_COST), ("Context window used (1 = full)", t.CONTEXT_WINDOW),
     ("Decisions of the gate", t.DECISIONS), ("Sandboxes", t.SANDBOXES), ("Credentials", t.CREDENTIALS),
     ("Audit events", t.AUDIT_WRITES)],
)  # fmt: skip
def test_what_an_operator_asks_for_is_shown(names, title, metric):
    (widget,) = [w for w in _widgets(names) if w["properties"]["title"] == title]
    assert metric.name in {m[1] for m in widget["properties"]["metrics"] if m[0] == t.METRIC_NAMESPACE}


def test_every_alarm_watches_published_metrics(names):
    for alarm in alarms(names, Decimal(10)):
        ids = {measure.id for measure in alarm.measures}
        assert all(id_ in alarm.expression for id_ in ids)
        for measure in alarm.measures:
            if measure.namespace == t.METRIC_NAMESPACE:
                assert (measure.name, frozenset(measure.dimensions)) in _published(names)
            else:
                counted = {("ringfence-test-egress", EGRESS_METRIC)}
                counted |= {("ringfence-test-alerts", name) for name in t.ALERT_EVENTS}
                assert (measure.namespace, measure.name) in counted


def test_every_alarm_goes_to_the_topic_and_one_of_its_values_decides(make, preview):
    made = make(preview).of_type(ALARM)
    assert len(made) == 8
    for alarm in made:
        assert alarm["alarmActions"] == alarm["okActions"] == [TOPIC]
        assert [q["id"] for q in alarm["metricQueries"] if q["returnData"]] == ["result"]
        assert alarm["comparisonOperator"] == "GreaterThanThreshold"


def test_silence_of_the_collector_is_an_alarm_and_of_agents_none(make):
    missing = {alarm["name"]: alarm["treatMissingData"] for alarm in make().of_type(ALARM)}
    assert missing.pop("ringfence-test-collector-failing") == "breaching"
    assert set(missing.values()) == {"notBreaching"}


def test_the_cost_alarm_knows_the_cap(make):
    recording = make(conversation_cap_usd=Decimal("2.5"))
    (alarm,) = [a for a in recording.of_type(ALARM) if a["name"].endswith("conversation-cost")]
    assert alarm["threshold"] == 2.5


def test_the_proxys_refusals_are_counted_from_its_log(make, names):
    counted = make().one("aws:cloudwatch/logMetricFilter:LogMetricFilter", "telemetry-egress-refusals")
    assert counted["pattern"] == '{ $.decision = "refused" }'
    assert counted["logGroupName"] == names.log_group("proxy")
    assert counted["metricTransformation"]["name"] == EGRESS_METRIC


@pytest.mark.parametrize(
    ("metric", "thing"), [(t.CREDENTIAL_ALERTS, "credential-misuse"), (t.BEHAVIOUR_ALERTS, "agent-behaviour")]
)
def test_alerts_of_the_audit_trail_are_counted_from_whichever_log_they_come_in(make, names, tmp_path, metric, thing):
    recording = make()
    filters = recording.of_type("aws:cloudwatch/logMetricFilter:LogMetricFilter")
    counted = [item for item in filters if item["metricTransformation"]["name"] == metric]
    assert {item["logGroupName"] for item in counted} == {names.log_group("control"), names.log_group("audit")}
    trail = Trail(tmp_path / "trail.jsonl")
    kinds = [*(event for events in t.ALERT_EVENTS.values() for event in events), "credential.issued"]
    for kind in kinds:
        trail.record(kind, None, detail="d")
    lines = (tmp_path / "trail.jsonl").read_text().splitlines()
    for item in counted:
        terms = re.findall(r'\?"([^"]+)"', item["pattern"])
        found = [any(term in json.dumps({"body": line}) for term in terms) for line in lines]
        assert found == [kind in t.ALERT_EVENTS[metric] for kind in kinds]
    (alarm,) = [a for a in recording.of_type(ALARM) if a["name"].endswith(thing)]
    (watched,) = [q["metric"] for q in alarm["metricQueries"] if "metric" in q]
    assert (watched["metricName"], watched["namespace"]) == (metric, "ringfence-test-alerts")
    assert alarm["threshold"] == 0


def test_every_alert_that_the_trail_knows_raises_an_alarm():
    from ringfence.audit.events import KINDS

    watched = {event for events in t.ALERT_EVENTS.values() for event in events}
    assert watched == {kind for kind in KINDS if kind.startswith("alert.")}


def test_an_alarm_for_each_thing_to_look_at_and_no_more(record, make, names):
    store = record(lambda: LogStore("logs", LogStoreArgs(names, alarm_topic_arn=TOPIC)))
    assert len(store.of_type(ALARM)) + len(make().of_type(ALARM)) == 9


def test_nobody_who_reads_logs_takes_the_masks_off(record, names):
    policy = json.loads(
        record(lambda: LogStore("logs", LogStoreArgs(names))).one("aws:iam/policy:Policy", "logs-deny-unmask")["policy"]
    )
    (denial,) = policy["Statement"]
    assert (denial["Effect"], denial["Resource"]) == ("Deny", ["*"])
    assert "logs:Unmask" in denial["Action"] and "Condition" not in denial
