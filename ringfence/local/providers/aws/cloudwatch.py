"""CloudWatch: metric alarms, composite alarms, dashboards."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from typing import Any

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values
from ringfence.local.providers.aws.schema import (
    Props,
    boolean,
    integer,
    json_text,
    mapping,
    number,
    record,
    record_set,
    string,
    string_set,
    tags,
)

_TAGGING = Tagging(
    listing=("list_tags_for_resource", "ResourceARN", "Tags"), parameter="ResourceARN", tags_parameter="Tags"
)
_DIMENSIONS = mapping(pairs=("Name", "Value"))
_METRIC: Props = {
    "metricName": string(required=True),
    "namespace": string(),
    "dimensions": _DIMENSIONS,
}
_STATISTIC: Props = {
    "period": integer(required=True),
    "stat": string(required=True),
    "unit": string(),
}
_QUERY: Props = {
    "id": string(required=True),
    "expression": string(),
    "label": string(),
    "period": integer(),
    "returnData": boolean(default=False),
    "accountId": string(),
}


class MetricAlarm(Resource):
    """An alarm on one metric or on an expression."""

    pulumi_type = "aws:cloudwatch/metricAlarm:MetricAlarm"
    service = "cloudwatch"
    props = {
        "name": string(api="AlarmName", replace=True),
        "alarmDescription": string(),
        "namespace": string(),
        "metricName": string(),
        "dimensions": _DIMENSIONS,
        "statistic": string(),
        "extendedStatistic": string(),
        "period": integer(),
        "evaluationPeriods": integer(),
        "datapointsToAlarm": integer(),
        "threshold": number(),
        "thresholdMetricId": string(),
        "comparisonOperator": string(),
        "treatMissingData": string(default="missing"),
        "evaluateLowSampleCountPercentiles": string(api="EvaluateLowSampleCountPercentile"),
        "unit": string(),
        "actionsEnabled": boolean(default=True),
        "alarmActions": string_set(),
        "okActions": string_set(api="OKActions"),
        "insufficientDataActions": string_set(),
        "metricQueries": record_set(_QUERY | {"metric": record(_METRIC | _STATISTIC)}, api=None),
        "tags": tags(),
    }
    outputs = {"arn": "AlarmArn"}
    known = {"arn": "arn:{partition}:cloudwatch:{region}:{account}:alarm:{name}"}
    auto_name = AutoName(limit=255)
    create_operation = "put_metric_alarm"
    read_operation = "describe_alarms"
    read_member = "MetricAlarms.0"
    delete_operation = "delete_alarms"
    keys = {"AlarmNames": "id"}
    list_keys = ("AlarmNames",)
    tagging = _TAGGING

    def request(self, inputs: Values) -> Values:
        parameters = super().request(inputs)
        if inputs.get("metricQueries"):
            parameters["Metrics"] = [self._query(query) for query in inputs["metricQueries"]]
        return parameters

    def _query(self, query: Values) -> Values:
        encoded = self.encode(_QUERY, query)
        if query.get("metric"):
            statistic = self.encode(_STATISTIC, query["metric"])
            encoded["MetricStat"] = {"Metric": self.encode(_METRIC, query["metric"]), **statistic}
        return encoded

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if described.get("Metrics"):
            state["metricQueries"] = [self._seen(query) for query in described["Metrics"]]
        return state

    def _seen(self, query: dict[str, Any]) -> Values:
        seen = self.decode(_QUERY, query)
        if query.get("MetricStat"):
            stat = query["MetricStat"]
            seen["metric"] = self.decode(_METRIC, stat["Metric"]) | self.decode(_STATISTIC, stat)
        return seen

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        cloud.call("cloudwatch", "put_metric_alarm", **self.request(new))


class CompositeAlarm(Resource):
    """An alarm on other alarms."""

    pulumi_type = "aws:cloudwatch/compositeAlarm:CompositeAlarm"
    service = "cloudwatch"
    props = {
        "alarmName": string(required=True, replace=True),
        "alarmRule": string(required=True),
        "alarmDescription": string(),
        "actionsEnabled": boolean(default=True, replace=True),
        "alarmActions": string_set(),
        "okActions": string_set(api="OKActions"),
        "insufficientDataActions": string_set(),
        "tags": tags(),
    }
    outputs = {"arn": "AlarmArn"}
    known = {"arn": "arn:{partition}:cloudwatch:{region}:{account}:alarm:{alarmName}"}
    id_property = "alarmName"
    create_operation = "put_composite_alarm"
    read_operation = "describe_alarms"
    read_member = "CompositeAlarms.0"
    delete_operation = "delete_alarms"
    keys = {"AlarmNames": "id"}
    list_keys = ("AlarmNames",)
    tagging = _TAGGING

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        answer = cloud.call("cloudwatch", "describe_alarms", AlarmNames=[id_], AlarmTypes=["CompositeAlarm"])
        return next(iter(answer["CompositeAlarms"]), None)

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        cloud.call("cloudwatch", "put_composite_alarm", **self.request(new))


class Dashboard(Resource):
    """A dashboard."""

    pulumi_type = "aws:cloudwatch/dashboard:Dashboard"
    service = "cloudwatch"
    props = {
        "dashboardName": string(required=True, replace=True),
        "dashboardBody": json_text(required=True),
    }
    outputs = {"dashboardArn": "DashboardArn"}
    known = {"dashboardArn": "arn:{partition}:cloudwatch::{account}:dashboard/{dashboardName}"}
    id_property = "dashboardName"
    create_operation = "put_dashboard"
    read_operation = "get_dashboard"
    delete_operation = "delete_dashboards"

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        return {"DashboardName": id_}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        cloud.call("cloudwatch", "put_dashboard", **self.request(new))

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("cloudwatch", "delete_dashboards", DashboardNames=[id_])


RESOURCES = (MetricAlarm, CompositeAlarm, Dashboard)
