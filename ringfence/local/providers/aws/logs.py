"""CloudWatch Logs: groups, metric filters, resource policies, data protection policies."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values
from ringfence.local.providers.aws.schema import (
    boolean,
    integer,
    json_text,
    mapping,
    policy,
    record,
    string,
    tags,
)

_TAGGING = Tagging(
    create="tags",
    style="map",
    listing=("list_tags_for_resource", "resourceArn", "tags"),
    parameter="resourceArn",
    tags_parameter="tags",
    keys_parameter="tagKeys",
)


class LogGroup(Resource):
    """A log group with its retention and key."""

    pulumi_type = "aws:cloudwatch/logGroup:LogGroup"
    service = "logs"
    case = "camel"
    props = {
        "name": string(api="logGroupName", replace=True),
        "kmsKeyId": string(),
        "logGroupClass": string(replace=True, default="STANDARD"),
        "retentionInDays": integer(api=None, default=0),
        "skipDestroy": boolean(api=None, default=False, write_only=True),
        "tags": tags(),
    }
    known = {"arn": "arn:{partition}:logs:{region}:{account}:log-group:{name}"}
    auto_name = AutoName(limit=512)
    create_operation = "create_log_group"
    delete_operation = "delete_log_group"
    keys = {"logGroupName": "id"}
    tagging = _TAGGING

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("retentionInDays"):
            cloud.call("logs", "put_retention_policy", logGroupName=id_, retentionInDays=state["retentionInDays"])

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        for page in cloud.client("logs").get_paginator("describe_log_groups").paginate(logGroupNamePrefix=id_):
            for group in page["logGroups"]:
                if group["logGroupName"] == id_:
                    return group
        return None

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if described:
            state["retentionInDays"] = described.get("retentionInDays", 0)
            if "arn" in described:
                state["arn"] = described["arn"].removesuffix(":*")
        return state

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if "retentionInDays" in changed:
            if new["retentionInDays"]:
                self.complete(cloud, id_, new)
            else:
                cloud.call("logs", "delete_retention_policy", logGroupName=id_)
        if "kmsKeyId" in changed:
            if new.get("kmsKeyId"):
                cloud.call("logs", "associate_kms_key", logGroupName=id_, kmsKeyId=new["kmsKeyId"])
            else:
                cloud.call("logs", "disassociate_kms_key", logGroupName=id_)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if not state.get("skipDestroy"):
            super().delete(cloud, id_, state)


class LogMetricFilter(Resource):
    """A metric filter of a log group."""

    pulumi_type = "aws:cloudwatch/logMetricFilter:LogMetricFilter"
    service = "logs"
    case = "camel"
    props = {
        "name": string(api="filterName", replace=True),
        "logGroupName": string(required=True, replace=True),
        "pattern": string(api="filterPattern", required=True),
        "metricTransformation": record(
            {
                "name": string(api="metricName", required=True),
                "namespace": string(api="metricNamespace", required=True),
                "value": string(api="metricValue", required=True),
                "defaultValue": string(),
                "unit": string(default="None"),
                "dimensions": mapping(),
            },
            api=None,
            required=True,
        ),
    }
    auto_name = AutoName(limit=512)
    create_operation = "put_metric_filter"
    delete_operation = "delete_metric_filter"
    keys = {"filterName": "id", "logGroupName": "logGroupName"}

    def request(self, inputs: Values) -> Values:
        prop = self.props["metricTransformation"]
        transformation = self.encode(prop.fields or {}, inputs["metricTransformation"])
        if isinstance(transformation.get("defaultValue"), str):
            transformation["defaultValue"] = float(transformation["defaultValue"])
        return super().request(inputs) | {"metricTransformations": [transformation]}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        cloud.call("logs", "put_metric_filter", **self.request(new))

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        group, _, name = id_.rpartition(":")
        group = state.get("logGroupName") or group
        answer = cloud.call("logs", "describe_metric_filters", logGroupName=group, filterNamePrefix=name or id_)
        return next((one for one in answer["metricFilters"] if one["filterName"] == (name or id_)), None)

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if described.get("metricTransformations"):
            prop = self.props["metricTransformation"]
            seen = self.decode(prop.fields or {}, described["metricTransformations"][0])
            if "defaultValue" in seen:
                seen["defaultValue"] = f"{float(seen['defaultValue']):g}"
            state["metricTransformation"] = seen
        return state


class LogResourcePolicy(Resource):
    """Who may write to log groups, as a resource policy."""

    pulumi_type = "aws:cloudwatch/logResourcePolicy:LogResourcePolicy"
    service = "logs"
    case = "camel"
    props = {
        "policyName": string(required=True, replace=True),
        "policyDocument": policy(required=True),
    }
    id_property = "policyName"
    create_operation = update_operation = "put_resource_policy"
    delete_operation = "delete_resource_policy"
    keys = {"policyName": "id"}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = cloud.call("logs", "describe_resource_policies")["resourcePolicies"]
        return next((one for one in found if one["policyName"] == id_), None)


class LogDataProtectionPolicy(Resource):
    """The data protection policy of a log group."""

    pulumi_type = "aws:cloudwatch/logDataProtectionPolicy:LogDataProtectionPolicy"
    service = "logs"
    case = "camel"
    props = {
        "logGroupName": string(api="logGroupIdentifier", required=True, replace=True),
        "policyDocument": json_text(required=True),
    }
    id_property = "logGroupName"
    create_operation = update_operation = "put_data_protection_policy"
    read_operation = "get_data_protection_policy"
    delete_operation = "delete_data_protection_policy"
    keys = {"logGroupIdentifier": "id"}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = super().describe(cloud, id_, state)
        return found if found and found.get("policyDocument") else None

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        # The API answers with the group's ARN when it was asked by name.
        return state | {"logGroupName": state["logGroupName"].rpartition("log-group:")[2]} if state else state


RESOURCES = (LogGroup, LogMetricFilter, LogResourcePolicy, LogDataProtectionPolicy)
