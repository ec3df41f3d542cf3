"""The egress component under mocks: fixed addresses, least permissions, small plans."""

from __future__ import annotations

import base64
import dataclasses
import json

import pulumi_aws as aws
import pytest

from components.egress import Egress, EgressArgs
from components.egress_access import instance_permissions, instance_trust
from components.egress_user_data import ProxySpec, user_data
from ringfence.egress.policy import EgressPolicy, ToolEgress
from ringfence.errors import InputError
from ringfence.names import Names

NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
ZONES = ("us-east-1a", "us-east-1b")
POLICY = EgressPolicy((ToolEgress("fetch", ("docs.example.com",), 15001),), ("api.ecr.us-east-1.amazonaws.com",))
ARGS = EgressArgs(
    NAMES,
    ZONES,
    vpc_id="vpc-1",
    vpc_cidr="10.42.0.0/16",
    subnet_ids={zone: f"subnet-{zone[-1]}" for zone in ZONES},
    policy=POLICY,
    addresses={"us-east-1a": "10.42.192.10", "us-east-1b": "10.42.193.10"},
    nat=True,
    system_cidrs={"us-east-1a": "10.42.128.0/21", "us-east-1b": "10.42.136.0/21"},
)


def _egress(**changes):
    return lambda: Egress("egress", dataclasses.replace(ARGS, **changes))


def _urns(recording, *types):
    return {r.urn: r.inputs for r in recording.resources if r.custom and not any(t in r.type for t in types)}


def test_one_proxy_with_a_fixed_address_serves_all_zones(record, preview, unknown):
    recording = record(_egress(), preview=preview)
    interface = recording.one("aws:ec2/networkInterface:NetworkInterface")
    assert interface["privateIps"] == ["10.42.192.10"] and interface["subnetId"] == "subnet-a"
    instance = recording.one("aws:ec2/instance:Instance")
    expected = unknown if preview else interface.id
    assert instance["primaryNetworkInterface"]["networkInterfaceId"] == expected
    assert recording.one("aws:ec2/eip:Eip")["networkInterface"] == expected
    assert recording.of_type("aws:route53/zone:Zone") == []


def test_the_address_outlives_the_instance(record):
    recording = record(_egress())
    instance = recording.one("aws:ec2/instance:Instance")
    assert instance.options.delete_before_replace and instance.options.replace_on_changes == ("launchTemplate",)
    assert not recording.one("aws:ec2/networkInterface:NetworkInterface").options.delete_before_replace
    disk = recording.one("aws:ec2/launchTemplate:LaunchTemplate")["blockDeviceMappings"][0]["ebs"]
    assert disk["encrypted"] == "true"


def test_the_instance_does_not_take_the_interfaces_forwarding_back(record, preview):
    for replicas, count in (("single", 1), ("per-zone", 2)):
        instances = record(_egress(replicas=replicas), preview=preview).of_type("aws:ec2/instance:Instance")
        assert [r.options.ignore_changes for r in instances] == [("sourceDestCheck",)] * count
        assert all("sourceDestCheck" not in r.inputs for r in instances)


def test_the_public_address_comes_after_the_internet_gateway(record, preview):
    def program():
        gateway = aws.ec2.InternetGateway("internet", vpc_id="vpc-1")
        _egress(replicas="per-zone", internet=(gateway,))()

    recording = record(program, preview=preview)
    gateway = recording.one("aws:ec2/internetGateway:InternetGateway")
    assert all(gateway.urn in r.options.depends_on for r in recording.of_type("aws:ec2/eip:Eip"))


def test_what_the_clients_need_is_known_at_preview(record):
    outputs = record(
        lambda: (lambda e: [e.endpoint.host, e.endpoint.node_port, e.endpoint.tool_ports, e.ports])(_egress()()),
        preview=True,
    )
    assert outputs.outputs == ["10.42.192.10", 14999, [15001, 15999], {"fetch": 15001}]


def test_the_instance_metadata_needs_a_token_and_does_not_leave_the_instance(record):
    template = record(_egress()).one("aws:ec2/launchTemplate:LaunchTemplate")
    assert template["metadataOptions"]["httpTokens"] == "required"
    assert template["metadataOptions"]["httpPutResponseHopLimit"] == 1
    assert template["imageId"].startswith("resolve:ssm:/aws/service/ami-amazon-linux-latest/")
    expected = user_data(ProxySpec(NAMES, "10.42.0.0/16"))
    assert base64.b64decode(template["userData"]).decode() == expected


def test_the_proxy_forwards_only_when_asked(record):
    nat, plain = record(_egress()), record(_egress(nat=False))
    assert nat.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert nat.one("aws:ec2/networkInterface:NetworkInterface")["sourceDestCheck"] is False
    assert plain.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule") == []
    assert plain.one("aws:ec2/networkInterface:NetworkInterface")["sourceDestCheck"] is True


def test_the_security_group_opens_443_and_nothing_else(record):
    recording = record(_egress())
    out = recording.one("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule")
    assert (out["fromPort"], out["toPort"], out["ipProtocol"], out["cidrIpv4"]) == (443, 443, "tcp", "0.0.0.0/0")
    rules = recording.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert [(r["cidrIpv4"], r["fromPort"], r["toPort"]) for r in rules] == [
        ("10.42.128.0/21", 443, 443), ("10.42.136.0/21", 443, 443)
    ]  # fmt: skip
    assert "ingress" not in recording.one("aws:ec2/securityGroup:SecurityGroup").inputs


def test_one_proxy_in_each_zone_stands_behind_one_private_name(record, preview):
    recording = record(_egress(replicas="per-zone"), preview=preview)
    assert len(recording.of_type("aws:ec2/instance:Instance")) == 2
    records = recording.of_type("aws:route53/record:Record")
    assert {r["name"] for r in records} == {"egress.test.ringfence.internal"}
    assert {r["setIdentifier"] for r in records} == set(ZONES) and all(
        r["multivalueAnswerRoutingPolicy"] for r in records
    )
    checks = recording.of_type("aws:route53/healthCheck:HealthCheck")
    assert [r["cloudwatchAlarmName"] for r in checks] == [f"ringfence-test-egress-{zone}-down" for zone in ZONES]


@pytest.mark.parametrize("changes, zones", [({}, ZONES[:1]), ({"replicas": "per-zone"}, ZONES), ({"nat": False}, ())])
def test_the_system_subnets_may_leave_by_each_proxys_interface_where_it_forwards(record, changes, zones):
    recording = record(lambda: _egress(**changes)().nat_interface_ids)
    assert recording.outputs == {zone: f"egress-{zone}-id" for zone in zones}


def test_without_a_reserved_address_the_proxy_has_a_name(record):
    recording = record(lambda: _egress(addresses={})().endpoint.host)
    assert recording.outputs == "egress.test.ringfence.internal"
    assert "privateIps" not in recording.one("aws:ec2/networkInterface:NetworkInterface").inputs


@pytest.mark.parametrize("replicas", ["single", "per-zone"])
def test_a_proxy_that_takes_no_connections_or_is_silent_is_down(record, preview, replicas):
    """Also on a healthy host: what the health checks go by is the proxy's own word, and silence counts as no."""
    recording = record(_egress(replicas=replicas), preview=preview)
    down = [r for r in recording.of_type("aws:cloudwatch/metricAlarm:MetricAlarm") if r.name.endswith("-down")]
    assert len(down) == len(recording.of_type("aws:ec2/instance:Instance"))
    for alarm in down:
        assert (alarm["namespace"], alarm["metricName"]) == ("ringfence-test-egress-health", "Listening")
        assert (alarm["comparisonOperator"], alarm["threshold"]) == ("LessThanThreshold", 1)
        assert alarm["treatMissingData"] == "breaching"
    checks = recording.of_type("aws:route53/healthCheck:HealthCheck")
    assert {r["insufficientDataHealthStatus"] for r in checks} <= {"Unhealthy"}


def test_a_failed_host_is_recovered_and_a_hung_system_restarted(record):
    alarms = {r["metricName"]: r for r in record(_egress()).of_type("aws:cloudwatch/metricAlarm:MetricAlarm")}
    assert alarms["StatusCheckFailed_System"]["alarmActions"] == ["arn:aws:automate:us-east-1:ec2:recover"]
    assert alarms["StatusCheckFailed_Instance"]["alarmActions"] == ["arn:aws:automate:us-east-1:ec2:reboot"]
    assert all(r["dimensions"] == {"InstanceId": "egress-us-east-1a-id"} for r in alarms.values())


def test_the_instance_may_fetch_its_files_and_write_its_log_only(record, golden):
    recording = record(_egress())
    assert recording.one("aws:iam/rolePolicy:RolePolicy")["policy"] == instance_permissions(NAMES)
    assert recording.one("aws:iam/role:Role")["assumeRolePolicy"] == instance_trust()
    statements = json.loads(instance_permissions(NAMES))["Statement"]
    assert {action for s in statements for action in s["Action"]} == {
        "cloudwatch:PutMetricData", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents", "s3:GetObject"
    }  # fmt: skip
    (any_resource,) = [s for s in statements if "*" in s["Resource"]]
    assert any_resource["Action"] == ["cloudwatch:PutMetricData"]
    assert any_resource["Condition"] == {"StringEquals": {"cloudwatch:namespace": ["ringfence-test-egress-health"]}}
    golden("egress/instance-permissions.json", json.dumps(json.loads(instance_permissions(NAMES)), indent=2) + "\n")


def test_everything_hangs_on_the_component(record, preview):
    recording = record(_egress(replicas="per-zone"), preview=preview)
    assert recording.unparented() == []


def test_a_new_tool_changes_the_listeners_object_and_nothing_else(record):
    more = EgressPolicy((*POLICY.tools, ToolEgress("mail", ("mail.example.org",))), POLICY.node_domains)
    before, after = _urns(record(_egress())), _urns(record(_egress(policy=more)))
    assert [urn.rpartition("::")[2] for urn in before if before[urn] != after[urn]] == ["egress-listeners"]
    assert set(before) == set(after)


@pytest.mark.parametrize("replicas", ["single", "per-zone"])
def test_a_new_zone_touches_no_other_zones_proxy(record, replicas):
    new = "us-east-1c"
    wider = {
        "zones": (*ZONES, new),
        "subnet_ids": {**ARGS.subnet_ids, new: "subnet-c"},
        "system_cidrs": {**ARGS.system_cidrs, new: "10.42.144.0/21"},
    }
    before, after = _urns(record(_egress(replicas=replicas))), _urns(record(_egress(replicas=replicas, **wider)))
    assert [urn for urn in before if before[urn] != after[urn]] == []
    added = {urn.rpartition("::")[2] for urn in set(after) - set(before)}
    assert all(new in name for name in added) and f"egress-nat-{new}" in added


def test_every_bad_argument_is_reported_at_once(record):
    with pytest.raises(InputError) as caught:
        record(_egress(zones=("us-east-1z",), ami="latest", system_cidrs={}))
    assert [problem.key for problem in caught.value.problems] == ["subnet_ids", "ami", "nat"]
