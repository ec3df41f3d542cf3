"""Log groups: encrypted, kept as long as their class says, masked, and never unmasked."""

from __future__ import annotations

import json
import re
import string

import pytest

from components.encryption_key import key_policy
from components.log_protection import CUSTOM_IDENTIFIERS, data_protection_policy
from components.log_store import STREAMS, UNMASKED_STREAMS, LogStore, LogStoreArgs, key_use
from ringfence.errors import InputError
from ringfence.iam.request import Principal

GROUP = "aws:cloudwatch/logGroup:LogGroup"
PROTECTION = "aws:cloudwatch/logDataProtectionPolicy:LogDataProtectionPolicy"
LOGS = Principal("Service", "logs.us-east-1.amazonaws.com")
CONTEXT = "kms:EncryptionContext:aws:logs:arn"


def _made(record, names, preview=False, **args):
    return record(lambda: LogStore("logs", LogStoreArgs(names, **args)), preview=preview)


def test_every_stream_has_an_encrypted_group_with_its_classs_retention(record, preview, names, unknown):
    recording = _made(record, names, preview, audit_days=365, application_days=30, network_days=14)
    days = {"audit": 365, "application": 30, "network": 14}
    expected = {f"/ringfence/test/{stream}": days[kind] for stream, kind in STREAMS.items()}
    expected["/aws/eks/ringfence-test/cluster"] = 365
    groups = recording.of_type(GROUP)
    assert {group["name"]: group["retentionInDays"] for group in groups} == expected
    key = unknown if preview else "arn:aws:mock:us-east-1:111122223333:logs-key"
    assert {str(group["kmsKeyId"]) for group in groups} == {str(key)}
    assert recording.unparented() == []


def test_a_retention_that_cloudwatch_does_not_keep_is_refused_with_all_of_them(record, names):
    with pytest.raises(InputError) as caught:
        _made(record, names, audit_days=364, application_days=0)
    assert [problem.key for problem in caught.value.problems] == ["audit_days", "application_days"]


def test_the_log_key_turns_by_itself_and_goes_slowly(record, names):
    key = _made(record, names).one("aws:kms/key:Key")
    assert key["enableKeyRotation"] is True
    assert key["deletionWindowInDays"] == 30


@pytest.mark.parametrize("group", ["/ringfence/test/tools", "/aws/eks/ringfence-test/cluster"])
def test_cloudwatch_uses_the_key_for_the_environments_groups(resource_permits, names, group):
    policy = key_policy(names, key_use(names))
    context = {CONTEXT: f"arn:aws:logs:us-east-1:111122223333:log-group:{group}"}
    assert resource_permits(policy, LOGS, "kms:GenerateDataKey", context=context)


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:logs:us-east-1:111122223333:log-group:/ringfence/prod/tools",
        "arn:aws:logs:us-east-1:444455556666:log-group:/ringfence/test/tools",
        "arn:aws:logs:us-east-1:111122223333:log-group:/aws/eks/other/cluster",
    ],
)
def test_cloudwatch_does_not_use_the_key_for_other_groups(resource_permits, names, arn):
    policy = key_policy(names, key_use(names))
    assert not resource_permits(policy, LOGS, "kms:GenerateDataKey", context={CONTEXT: arn})
    assert not resource_permits(policy, LOGS, "kms:GenerateDataKey")


def test_another_service_does_not_use_the_key(resource_permits, names):
    context = {CONTEXT: "arn:aws:logs:us-east-1:111122223333:log-group:/ringfence/test/tools"}
    policy = key_policy(names, key_use(names))
    assert not resource_permits(policy, Principal("Service", "ec2.amazonaws.com"), "kms:Decrypt", context=context)


def test_every_group_that_may_carry_secrets_masks_them(record, preview, names):
    recording = _made(record, names, preview)
    masked = {policy["logGroupName"] for policy in recording.of_type(PROTECTION)}
    assert masked == {f"/ringfence/test/{stream}" for stream in set(STREAMS) - UNMASKED_STREAMS}
    assert {"audit", "vault-audit", "control", "tools", "traces", "proxy"} <= set(STREAMS) - UNMASKED_STREAMS


def test_the_data_protection_policy_is_well_formed(names, golden):
    text = data_protection_policy(names, "/ringfence/test/findings")
    golden("log_protection.json", json.dumps(json.loads(text), indent=2) + "\n")
    policy = json.loads(text)
    report, mask = policy["Statement"]
    # CloudWatch refuses a policy whose two statements name different identifiers.
    assert report["DataIdentifier"] == mask["DataIdentifier"]
    assert mask["Operation"] == {"Deidentify": {"MaskConfig": {}}}
    assert (
        report["Operation"]["Audit"]["FindingsDestination"]["CloudWatchLogs"]["LogGroup"] == "/ringfence/test/findings"
    )


@pytest.mark.parametrize(
    ("identifier", "secret"),
    [
        ("AwsAccessKeyId", "ASIA" + "Q" * 16),
        ("GitHubToken", "ghp_" + "a1B2" * 9),
        ("JsonWebToken", ".".join(["eyJ" + "a" * 20, "eyJ" + "b" * 30, "c" * 43])),
        ("ModelProviderKey", "sk-" + "ant-api03-" + "x" * 40),
        ("SlackToken", "xoxb-" + "1" * 12),
        ("VaultToken", "hvs." + "C" * 24),
    ],
)
def test_each_custom_identifier_finds_its_secret_and_not_plain_words(identifier, secret):
    regex = CUSTOM_IDENTIFIERS[identifier]
    assert re.search(regex, f'token="{secret}" used')
    assert not re.search(regex, "the broker issued a credential for tool s3-report-reader")


def test_custom_identifiers_keep_to_what_cloudwatch_takes():
    """docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL-custom-data-identifiers.html, "constraints": the characters of
    a regular expression are listed one by one there."""
    listed = {*string.ascii_letters, *string.digits, *"_#=@/;,- ", *"^$?[]{}|\\*+."}
    assert len(CUSTOM_IDENTIFIERS) <= 10
    for name, regex in CUSTOM_IDENTIFIERS.items():
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", name)
        assert len(regex) <= 200, name
        assert set(regex) <= listed, (name, set(regex) - listed)


@pytest.mark.parametrize("key", ["AKIA", "ASIA"])
def test_both_kinds_of_access_key_are_found(key):
    assert re.fullmatch(CUSTOM_IDENTIFIERS["AwsAccessKeyId"], key + "Q" * 16)


def test_whoever_reads_logs_does_not_lift_the_mask(record, names, identity_permits):
    recording = _made(record, names)
    denial = recording.one("aws:iam/policy:Policy")
    everything = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:*","Resource":"*"}]}'
    group = "arn:aws:logs:us-east-1:111122223333:log-group:/ringfence/test/tools"
    for action in ("logs:Unmask", "logs:DeleteDataProtectionPolicy", "logs:PutDataProtectionPolicy"):
        assert identity_permits([everything], action, group)
        assert not identity_permits([everything, denial["policy"]], action, group)
    assert identity_permits([everything, denial["policy"]], "logs:GetLogEvents", group)


def test_a_finding_raises_an_alarm_where_a_topic_is_given(record, names):
    topic = "arn:aws:sns:us-east-1:111122223333:ringfence-test-alerts"
    recording = _made(record, names, alarm_topic_arn=topic)
    metric = recording.one("aws:cloudwatch/logMetricFilter:LogMetricFilter")
    alarm = recording.one("aws:cloudwatch/metricAlarm:MetricAlarm")
    assert metric["logGroupName"] == "/ringfence/test/findings" and metric["pattern"] == ""
    assert alarm["alarmActions"] == [topic] and alarm["threshold"] == 1
    assert (alarm["namespace"], alarm["metricName"]) == (
        metric["metricTransformation"]["namespace"],
        metric["metricTransformation"]["name"],
    )
    assert _made(record, names).of_type("aws:cloudwatch/metricAlarm:MetricAlarm") == []


def test_names_of_groups_are_known_before_they_exist(record, names):
    def program():
        store = LogStore("logs", LogStoreArgs(names))
        return {
            "name": store.group_names["proxy"],
            "arn": store.group_arns["proxy"],
            "cluster": store.cluster_log_group,
        }

    assert record(program, preview=True).outputs == {
        "name": "/ringfence/test/proxy",
        "arn": "arn:aws:logs:us-east-1:111122223333:log-group:/ringfence/test/proxy",
        "cluster": "/aws/eks/ringfence-test/cluster",
    }
