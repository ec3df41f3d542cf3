"""Every Logs, CloudWatch, SNS, CloudTrail, Budgets and Access Analyzer type, through its whole life."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.local.aws_provider.documents import ACCOUNT, bucket, key, log_group, resource_policy
from tests.local.aws_provider.life_cycle import Case, Made, World, live


def _protection(identifier: str) -> str:
    """A data protection policy, as CloudWatch Logs wants it."""
    names = [f"arn:aws:dataprotection::aws:data-identifier/{identifier}"]
    audit = {"Sid": "audit", "DataIdentifier": names, "Operation": {"Audit": {"FindingsDestination": {}}}}
    mask = {"Sid": "mask", "DataIdentifier": names, "Operation": {"Deidentify": {"MaskConfig": {}}}}
    return json.dumps({"Name": "redact", "Version": "2021-06-01", "Statement": [audit, mask]})


def _logs(operation: str, **parameters: Any) -> Any:
    return lambda world, made: getattr(world.client("logs"), operation)(logGroupName=made["logGroupName"], **parameters)


def topic(world: World) -> Made:
    """A topic."""
    return world.make("aws:sns/topic:Topic", name=world.name("topic"))


def alarm(world: World) -> Made:
    """An alarm that says nothing about anything."""
    return world.make(
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        name=world.name("alarm"),
        namespace="N",
        metricName="M",
        statistic="Sum",
        period=60,
        evaluationPeriods=1,
        threshold=1,
        comparisonOperator="GreaterThanThreshold",
    )


def _change_alarm(world: World, made: Made) -> Any:
    client = world.client("cloudwatch")
    found = client.describe_alarms(AlarmNames=[made.id])["MetricAlarms"][0]
    kept = ("AlarmName", "Namespace", "MetricName", "Statistic", "Period", "EvaluationPeriods", "ComparisonOperator")
    return client.put_metric_alarm(**{name: found[name] for name in kept}, Threshold=99)


def _trail_bucket(world: World) -> str:
    made = bucket(world)
    world.make(
        "aws:s3/bucketPolicy:BucketPolicy", bucket=made.id, policy=resource_policy("s3:PutObject", f"{made['arn']}/*")
    )
    return made.id


def _notification(threshold: float, **more: Any) -> dict[str, Any]:
    return {
        "comparisonOperator": "GREATER_THAN",
        "notificationType": "ACTUAL",
        "threshold": threshold,
        "thresholdType": "PERCENTAGE",
        **more,
    }


def _raise_budget(world: World, made: Made) -> Any:
    budget = {
        "BudgetName": made["name"],
        "BudgetType": "COST",
        "TimeUnit": "MONTHLY",
        "BudgetLimit": {"Amount": "9999", "Unit": "USD"},
    }
    return world.client("budgets").update_budget(AccountId=ACCOUNT, NewBudget=budget)


SELECTOR = {
    "name": "management",
    "fieldSelectors": [{"field": "eventCategory", "equals": ["Management"]}],
}
DATA_SELECTOR = {
    "name": "objects",
    "fieldSelectors": [
        {"field": "eventCategory", "equals": ["Data"]},
        {"field": "resources.type", "equals": ["AWS::S3::Object"]},
        {"field": "resources.ARN", "startsWiths": ["arn:aws:s3:::b/"]},
    ],
}

CASES = [
    Case(
        "aws:cloudwatch/logGroup:LogGroup",
        lambda world: {
            "name": world.name("/ringfence/group"),
            "retentionInDays": 30,
            "kmsKeyId": key(world)["arn"],
            "tags": {"a": "b"},
        },
        update=lambda world: {"retentionInDays": 90, "kmsKeyId": key(world)["arn"], "tags": {"a": "c"}},
        replace={"logGroupClass": "INFREQUENT_ACCESS"},
        drift=lambda world, made: world.client("logs").put_retention_policy(logGroupName=made.id, retentionInDays=1),
        drifted="retentionInDays",
    ),
    Case(
        "aws:cloudwatch/logGroup:LogGroup",
        lambda world: {"name": world.name("/ringfence/group"), "retentionInDays": 30, "kmsKeyId": key(world)["arn"]},
        update={"retentionInDays": None, "kmsKeyId": None},
        drift=lambda world, made: world.client("logs").delete_log_group(logGroupName=made.id),
        drifted="gone",
    ),
    Case(
        "aws:cloudwatch/logMetricFilter:LogMetricFilter",
        lambda world: {
            "name": "denied",
            "logGroupName": log_group(world).id,
            "pattern": "{ $.errorCode = AccessDenied }",
            "metricTransformation": {
                "name": "Denied",
                "namespace": "Ringfence",
                "value": "1",
                "defaultValue": "0",
                "unit": "Count",
            },
        },
        update={
            "pattern": "{ $.x = y }",
            "metricTransformation": {"name": "Denied", "namespace": "Ringfence", "value": "2"},
        },
        replace={"name": "other"},
        drift=_logs("delete_metric_filter", filterName="denied"),
        drifted="gone",
        importable=False,
    ),
    Case(
        "aws:cloudwatch/logResourcePolicy:LogResourcePolicy",
        lambda world: {"policyName": world.name(), "policyDocument": resource_policy("logs:PutLogEvents")},
        update={"policyDocument": resource_policy("logs:CreateLogStream")},
        replace={"policyName": "other"},
        drift=lambda world, made: world.client("logs").put_resource_policy(
            policyName=made.id, policyDocument=resource_policy("logs:*")
        ),
        drifted="policyDocument",
    ),
    Case(
        "aws:cloudwatch/logDataProtectionPolicy:LogDataProtectionPolicy",
        lambda world: {"logGroupName": log_group(world).id, "policyDocument": _protection("EmailAddress")},
        update={"policyDocument": _protection("AwsSecretKey")},
        replace={"logGroupName": "other"},
        drift=lambda world, made: world.client("logs").delete_data_protection_policy(logGroupIdentifier=made.id),
        drifted="gone",
    ),
    Case(
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        lambda world: {
            "name": world.name("alarm"),
            "alarmDescription": "too many",
            "namespace": "Ringfence",
            "metricName": "Denied",
            "dimensions": {"Tool": "reports", "Env": "local"},
            "statistic": "Sum",
            "period": 300,
            "evaluationPeriods": 2,
            "threshold": 5,
            "comparisonOperator": "GreaterThanOrEqualToThreshold",
            "treatMissingData": "notBreaching",
            "alarmActions": [topic(world)["arn"]],
            "tags": {"a": "b"},
        },
        update={"threshold": 7.5, "alarmActions": [], "tags": {"a": "c"}},
        replace={"name": "other"},
        drift=_change_alarm,
        drifted="threshold",
    ),
    Case(
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        lambda world: {
            "name": world.name("alarm"),
            "evaluationPeriods": 1,
            "threshold": 0.5,
            "comparisonOperator": "LessThanThreshold",
            "metricQueries": [
                {"id": "rate", "expression": "ok/all", "label": "Success", "returnData": True},
                {
                    "id": "ok",
                    "metric": {
                        "metricName": "Ok",
                        "namespace": "R",
                        "period": 60,
                        "stat": "Sum",
                        "dimensions": {"T": "x"},
                    },
                },
                {"id": "all", "metric": {"metricName": "All", "namespace": "R", "period": 60, "stat": "Sum"}},
            ],
        },
        update={"threshold": 0.75},
        drift=lambda world, made: world.client("cloudwatch").delete_alarms(AlarmNames=[made.id]),
        drifted="gone",
    ),
    Case(
        "aws:cloudwatch/compositeAlarm:CompositeAlarm",
        lambda world: {
            "alarmName": world.name("composite"),
            "alarmRule": f"ALARM({alarm(world).id})",
            "alarmDescription": "any",
            "tags": {"a": "b"},
        },
        update={"alarmDescription": "some", "tags": {"a": "c"}},
        replace={"alarmName": "other"},
        drift=lambda world, made: world.client("cloudwatch").put_composite_alarm(AlarmName=made.id, AlarmRule="FALSE"),
        drifted="alarmRule",
    ),
    Case(
        "aws:cloudwatch/dashboard:Dashboard",
        lambda world: {"dashboardName": world.name("board"), "dashboardBody": '{"widgets": []}'},
        update={"dashboardBody": '{"widgets": [{"type": "text", "properties": {"markdown": "hi"}}]}'},
        replace={"dashboardName": "other"},
        drift=lambda world, made: world.client("cloudwatch").put_dashboard(
            DashboardName=made.id, DashboardBody='{"widgets": [{"type": "text", "properties": {"markdown": "x"}}]}'
        ),
        drifted="dashboardBody",
    ),
    Case(
        "aws:sns/topic:Topic",
        lambda world: {"name": world.name("topic"), "kmsMasterKeyId": key(world).id, "tags": {"a": "b"}},
        update={"displayName": "alerts", "tags": {"a": "c"}},
        replace={"name": "other"},
        drift=lambda world, made: world.client("sns").set_topic_attributes(
            TopicArn=made.id, AttributeName="KmsMasterKeyId", AttributeValue="alias/aws/sns"
        ),
        drifted="kmsMasterKeyId",
    ),
    Case(
        "aws:sns/topicPolicy:TopicPolicy",
        lambda world: {"arn": topic(world).id, "policy": resource_policy("sns:Publish")},
        update={"policy": resource_policy("sns:Subscribe")},
        replace={"arn": "arn:aws:sns:us-east-1:123456789012:other"},
        drift=lambda world, made: world.client("sns").set_topic_attributes(
            TopicArn=made.id, AttributeName="Policy", AttributeValue=resource_policy("sns:*", principal="*")
        ),
        drifted="policy",
        outlives=True,
    ),
    Case(
        "aws:sns/topicSubscription:TopicSubscription",
        lambda world: {"topic": topic(world).id, "protocol": "email", "endpoint": "ops@example.com"},
        update={"rawMessageDelivery": True},
        replace={"endpoint": "other@example.com"},
        drift=lambda world, made: world.client("sns").unsubscribe(SubscriptionArn=made.id),
        drifted="gone",
    ),
    Case(
        "aws:cloudtrail/trail:Trail",
        lambda world: {
            "name": world.name("trail"),
            "s3BucketName": _trail_bucket(world),
            "kmsKeyId": key(world)["arn"],
            "isMultiRegionTrail": True,
            "enableLogFileValidation": True,
            "advancedEventSelectors": [SELECTOR],
            "tags": {"a": "b"},
        },
        update={"advancedEventSelectors": [SELECTOR, DATA_SELECTOR], "isMultiRegionTrail": False, "tags": {"a": "c"}},
        replace={"name": "other"},
        drift=lambda world, made: world.client("cloudtrail").stop_logging(Name=made["name"]),
        drifted="enableLogging",
    ),
    Case(
        "aws:budgets/budget:Budget",
        lambda world: {
            "name": world.name("budget"),
            "budgetType": "COST",
            "limitAmount": "150",
            "limitUnit": "USD",
            "timeUnit": "MONTHLY",
            "notifications": [
                _notification(80, subscriberSnsTopicArns=[topic(world).id], subscriberEmailAddresses=["a@example.com"]),
                _notification(100, subscriberSnsTopicArns=[topic(world).id]),
            ],
            "tags": {"a": "b"},
        },
        update={
            "limitAmount": "200",
            "notifications": [_notification(90, subscriberEmailAddresses=["b@example.com"])],
            "tags": {"a": "c"},
        },
        replace={"budgetType": "USAGE"},
        drift=_raise_budget,
        drifted="limitAmount",
    ),
    Case(
        "aws:accessanalyzer/analyzer:Analyzer",
        lambda world: {"analyzerName": world.name("analyzer"), "type": "ACCOUNT", "tags": {"a": "b"}},
        update={"tags": {"a": "c"}},
        replace={"type": "ACCOUNT_UNUSED_ACCESS"},
        drift=lambda world, made: world.client("accessanalyzer").delete_analyzer(analyzerName=made.id),
        drifted="gone",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_resource_that_watches_lives_drifts_and_dies(world: World, case: Case) -> None:
    live(world, case)
