"""Logs, budgets, alarms, cost anomalies, analyzers and X-Ray, through boto3."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

POLICY = json.dumps(
    {
        "Name": "p",
        "Version": "2021-06-01",
        "Statement": [
            {
                "Sid": "audit",
                "DataIdentifier": ["arn:aws:dataprotection::aws:data-identifier/EmailAddress"],
                "Operation": {"Audit": {"FindingsDestination": {}}},
            },
            {
                "Sid": "mask",
                "DataIdentifier": ["arn:aws:dataprotection::aws:data-identifier/EmailAddress"],
                "Operation": {"Deidentify": {"MaskConfig": {}}},
            },
        ],
    }
)


def test_a_log_group_tells_its_key_class_and_protection(aws: Any) -> None:
    logs = aws.client("logs")
    logs.create_log_group(
        logGroupName="/kept", kmsKeyId="arn:aws:kms:us-east-1:123456789012:key/1", logGroupClass="STANDARD"
    )

    def group() -> dict[str, Any]:
        return next(
            g for g in logs.describe_log_groups(logGroupNamePrefix="/kept")["logGroups"] if g["logGroupName"] == "/kept"
        )

    assert (group()["kmsKeyId"], group()["logGroupClass"]) == ("arn:aws:kms:us-east-1:123456789012:key/1", "STANDARD")
    logs.associate_kms_key(logGroupName="/kept", kmsKeyId="arn:aws:kms:us-east-1:123456789012:key/2")
    assert group()["kmsKeyId"].endswith("key/2")
    logs.disassociate_kms_key(logGroupName="/kept")
    assert "kmsKeyId" not in group()
    logs.put_data_protection_policy(logGroupIdentifier="/kept", policyDocument=POLICY)
    assert logs.get_data_protection_policy(logGroupIdentifier="/kept")["policyDocument"] == POLICY
    assert group()["dataProtectionStatus"] == "ACTIVATED"
    logs.delete_data_protection_policy(logGroupIdentifier="/kept")
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.get_data_protection_policy(logGroupIdentifier="/kept")
    logs.put_log_group_deletion_protection(logGroupIdentifier="/kept", deletionProtectionEnabled=True)
    with pytest.raises(ClientError, match="deletion protection"):
        logs.delete_log_group(logGroupName="/kept")
    logs.put_log_group_deletion_protection(logGroupIdentifier="/kept", deletionProtectionEnabled=False)
    logs.delete_log_group(logGroupName="/kept")
    assert logs.describe_log_groups(logGroupNamePrefix="/kept")["logGroups"] == []


def test_settings_of_a_deleted_log_group_do_not_come_back_with_its_name(aws: Any) -> None:
    logs = aws.client("logs")
    logs.create_log_group(logGroupName="/again")
    logs.put_data_protection_policy(logGroupIdentifier="/again", policyDocument=POLICY)
    logs.delete_log_group(logGroupName="/again")
    logs.create_log_group(logGroupName="/again")
    assert "dataProtectionStatus" not in logs.describe_log_groups(logGroupNamePrefix="/again")["logGroups"][0]


@pytest.mark.parametrize("document", ["{}", "not json", json.dumps({"Statement": [{"Operation": {"Audit": {}}}]})])
def test_a_document_that_is_no_data_protection_policy_is_refused(aws: Any, document: str) -> None:
    logs = aws.client("logs")
    group = f"/policy/{len(document)}"
    logs.create_log_group(logGroupName=group)
    with pytest.raises(logs.exceptions.InvalidParameterException):
        logs.put_data_protection_policy(logGroupIdentifier=group, policyDocument=document)


def test_a_budget_can_be_changed_and_tells_its_subscribers_and_tags(aws: Any) -> None:
    budgets = aws.client("budgets")
    account = "123456789012"
    alert = {
        "NotificationType": "ACTUAL",
        "ComparisonOperator": "GREATER_THAN",
        "Threshold": 80.0,
        "ThresholdType": "PERCENTAGE",
    }
    email = {"SubscriptionType": "EMAIL", "Address": "ops@example.com"}
    topic = {"SubscriptionType": "SNS", "Address": "arn:aws:sns:us-east-1:123456789012:alerts"}
    budget = {"BudgetName": "monthly", "BudgetType": "COST", "TimeUnit": "MONTHLY"}
    budgets.create_budget(
        AccountId=account,
        Budget={**budget, "BudgetLimit": {"Amount": "125", "Unit": "USD"}},
        NotificationsWithSubscribers=[{"Notification": alert, "Subscribers": [email]}],
        ResourceTags=[{"Key": "a", "Value": "1"}],
    )
    named = {"AccountId": account, "BudgetName": "monthly", "Notification": alert}
    budgets.create_subscriber(**named, Subscriber=topic)
    assert budgets.describe_subscribers_for_notification(**named)["Subscribers"] == [email, topic]
    with pytest.raises(budgets.exceptions.DuplicateRecordException):
        budgets.create_subscriber(**named, Subscriber=topic)
    budgets.delete_subscriber(**named, Subscriber=email)
    assert budgets.describe_subscribers_for_notification(**named)["Subscribers"] == [topic]
    budgets.update_budget(AccountId=account, NewBudget={**budget, "BudgetLimit": {"Amount": "330", "Unit": "USD"}})
    shown = budgets.describe_budget(AccountId=account, BudgetName="monthly")["Budget"]
    assert float(shown["BudgetLimit"]["Amount"]) == 330
    arn = "arn:aws:budgets::123456789012:budget/monthly"
    budgets.tag_resource(ResourceARN=arn, ResourceTags=[{"Key": "b", "Value": "2"}])
    budgets.untag_resource(ResourceARN=arn, ResourceTagKeys=["a"])
    assert budgets.list_tags_for_resource(ResourceARN=arn)["ResourceTags"] == [{"Key": "b", "Value": "2"}]
    budgets.delete_budget(AccountId=account, BudgetName="monthly")
    with pytest.raises(budgets.exceptions.NotFoundException):
        budgets.list_tags_for_resource(ResourceARN=arn)


def test_a_composite_alarm_is_described_as_one(aws: Any) -> None:
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_composite_alarm(AlarmName="any", AlarmRule='ALARM("a") OR ALARM("b")', ActionsEnabled=False)
    found = cloudwatch.describe_alarms(AlarmNames=["any"], AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
    assert [(a["AlarmRule"], a["ActionsEnabled"]) for a in found] == [('ALARM("a") OR ALARM("b")', False)]
    cloudwatch.delete_alarms(AlarmNames=["any"])
    assert cloudwatch.describe_alarms(AlarmNames=["any"], AlarmTypes=["CompositeAlarm"])["CompositeAlarms"] == []


def test_an_anomaly_detector_lives_from_put_to_delete(aws: Any) -> None:
    cloudwatch = aws.client("cloudwatch")
    metric = {"Namespace": "Ringfence", "MetricName": "calls", "Stat": "Sum"}
    cloudwatch.put_anomaly_detector(SingleMetricAnomalyDetector=metric)
    cloudwatch.put_anomaly_detector(SingleMetricAnomalyDetector=metric)
    found = cloudwatch.describe_anomaly_detectors(Namespace="Ringfence")["AnomalyDetectors"]
    assert [d["MetricName"] for d in found] == ["calls"]
    cloudwatch.delete_anomaly_detector(SingleMetricAnomalyDetector=metric)
    with pytest.raises(cloudwatch.exceptions.ResourceNotFoundException):
        cloudwatch.delete_anomaly_detector(SingleMetricAnomalyDetector=metric)


def test_cost_anomaly_monitors_and_subscriptions_live_from_create_to_delete(aws: Any) -> None:
    ce = aws.client("ce")
    monitor = ce.create_anomaly_monitor(
        AnomalyMonitor={"MonitorName": "services", "MonitorType": "DIMENSIONAL", "MonitorDimension": "SERVICE"},
        ResourceTags=[{"Key": "a", "Value": "1"}],
    )["MonitorArn"]
    assert ce.list_tags_for_resource(ResourceArn=monitor)["ResourceTags"] == [{"Key": "a", "Value": "1"}]
    subscription = ce.create_anomaly_subscription(
        AnomalySubscription={
            "SubscriptionName": "alerts",
            "MonitorArnList": [monitor],
            "Subscribers": [{"Type": "EMAIL", "Address": "ops@example.com"}],
            "Frequency": "DAILY",
            "Threshold": 20.0,
        }
    )["SubscriptionArn"]
    ce.update_anomaly_subscription(SubscriptionArn=subscription, Frequency="WEEKLY")
    shown = ce.get_anomaly_subscriptions(MonitorArn=monitor)["AnomalySubscriptions"]
    assert [(s["SubscriptionArn"], s["Frequency"]) for s in shown] == [(subscription, "WEEKLY")]
    ce.delete_anomaly_subscription(SubscriptionArn=subscription)
    ce.delete_anomaly_monitor(MonitorArn=monitor)
    with pytest.raises(ce.exceptions.UnknownMonitorException):
        ce.get_anomaly_monitors(MonitorArnList=[monitor])


def test_an_analyzer_lives_from_create_to_delete(aws: Any) -> None:
    analyzer = aws.client("accessanalyzer")
    arn = analyzer.create_analyzer(analyzerName="outside", type="ACCOUNT", tags={"a": "1"})["arn"]
    with pytest.raises(analyzer.exceptions.ConflictException):
        analyzer.create_analyzer(analyzerName="outside", type="ACCOUNT")
    shown = analyzer.get_analyzer(analyzerName="outside")["analyzer"]
    assert (shown["arn"], shown["status"], shown["tags"]) == (arn, "ACTIVE", {"a": "1"})
    assert [item["arn"] for item in analyzer.list_analyzers(type="ACCOUNT")["analyzers"]] == [arn]
    analyzer.delete_analyzer(analyzerName="outside")
    with pytest.raises(analyzer.exceptions.ResourceNotFoundException):
        analyzer.get_analyzer(analyzerName="outside")


def test_xray_groups_and_sampling_rules_live_from_create_to_delete(aws: Any) -> None:
    xray = aws.client("xray")
    group = xray.create_group(GroupName="tools", FilterExpression='service("runner")')["Group"]
    xray.update_group(GroupName="tools", FilterExpression="fault")
    assert xray.get_group(GroupARN=group["GroupARN"])["Group"]["FilterExpression"] == "fault"
    rule = {
        "RuleName": "all",
        "ResourceARN": "*",
        "Priority": 1,
        "FixedRate": 0.5,
        "ReservoirSize": 1,
        "ServiceName": "*",
        "ServiceType": "*",
        "Host": "*",
        "HTTPMethod": "*",
        "URLPath": "*",
        "Version": 1,
    }
    xray.create_sampling_rule(SamplingRule=rule)
    xray.update_sampling_rule(SamplingRuleUpdate={"RuleName": "all", "FixedRate": 0.1})
    shown = xray.get_sampling_rules()["SamplingRuleRecords"]
    assert [(r["SamplingRule"]["RuleName"], r["SamplingRule"]["FixedRate"]) for r in shown] == [("all", 0.1)]
    xray.delete_sampling_rule(RuleName="all")
    xray.delete_group(GroupName="tools")
    assert (xray.get_sampling_rules()["SamplingRuleRecords"], xray.get_groups()["Groups"]) == ([], [])


def test_a_metric_filter_put_twice_is_one_and_goes_with_its_group(aws: Any) -> None:
    logs = aws.client("logs")
    for group in ("/filtered", "/other"):
        logs.create_log_group(logGroupName=group)
    change = [{"metricName": "m", "metricNamespace": "n", "metricValue": "1"}]
    for group, pattern in (("/filtered", "one"), ("/filtered", "two"), ("/other", "three")):
        logs.put_metric_filter(logGroupName=group, filterName="f", filterPattern=pattern, metricTransformations=change)
    shown = logs.describe_metric_filters(logGroupName="/filtered")["metricFilters"]
    assert [f["filterPattern"] for f in shown] == ["two"]
    logs.delete_log_group(logGroupName="/filtered")
    logs.create_log_group(logGroupName="/filtered")
    assert logs.describe_metric_filters(logGroupName="/filtered")["metricFilters"] == []
    assert len(logs.describe_metric_filters(logGroupName="/other")["metricFilters"]) == 1


def test_a_bucket_policy_is_kept_and_said_not_to_be_enforced(aws: Any) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="tls-only")
    plain = {"Bool": {"aws:SecureTransport": "false"}}
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": "arn:aws:s3:::tls-only/*",
        "Condition": plain,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    s3.put_bucket_policy(Bucket="tls-only", Policy=policy)
    s3.put_object(Bucket="tls-only", Key="k", Body=b"v")
    assert s3.get_object(Bucket="tls-only", Key="k")["Body"].read() == b"v"
    assert json.loads(s3.get_bucket_policy(Bucket="tls-only")["Policy"]) == json.loads(policy)
    remarks = {entry["service"]: entry["remarks"] for entry in aws.own("recorded")["recorded_not_emulated"]}
    assert any("Bucket policies" in remark for remark in remarks["s3"])
