"""Instances and rules of security groups, through boto3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

LAUNCH = {"ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1}


@pytest.fixture(scope="module")
def ec2(aws: Any) -> Any:
    return aws.client("ec2")


@pytest.fixture(scope="module")
def dual_stack(ec2: Any) -> Iterator[str]:
    """A VPC with IPv6: elsewhere moto revokes no IPv6 rules."""
    made = ec2.create_vpc(CidrBlock="10.1.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]["VpcId"]
    yield made
    ec2.delete_vpc(VpcId=made)


@pytest.fixture
def group(ec2: Any, dual_stack: str) -> Iterator[str]:
    """A security group without rules for what may come in."""
    made = ec2.create_security_group(GroupName="walled", Description="of a test", VpcId=dual_stack)["GroupId"]
    yield made
    ec2.delete_security_group(GroupId=made)


@pytest.fixture
def instance(ec2: Any, network: dict[str, Any]) -> Iterator[str]:
    """A running instance with a security group."""
    group = ec2.create_security_group(GroupName="instance", Description="of a test", VpcId=network["vpc"])["GroupId"]
    launch = {**LAUNCH, "SubnetId": network["subnets"][0], "SecurityGroupIds": [group]}
    made = ec2.run_instances(**launch)["Instances"][0]["InstanceId"]
    yield made
    ec2.terminate_instances(InstanceIds=[made])
    ec2.delete_security_group(GroupId=group)


def described(ec2: Any, instance: str) -> dict[str, Any]:
    return ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


# One source of each kind: member of IpPermissions, the source's own member, a value ("" for the group itself).
SOURCES = [
    ("IpRanges", "CidrIp", "10.0.0.0/8"),
    ("Ipv6Ranges", "CidrIpv6", "fd00::/8"),
    ("UserIdGroupPairs", "GroupId", ""),
    ("PrefixListIds", "PrefixListId", "pl-63a5400a"),
]


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize(("member", "key", "value"), SOURCES)
def test_a_rule_keeps_its_description_whatever_its_source_is(
    ec2: Any, group: str, direction: str, member: str, key: str, value: str
) -> None:
    source = {key: value or group}
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}

    def shown() -> list[Any]:
        found = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
        permissions = found["IpPermissions" if direction == "ingress" else "IpPermissionsEgress"]
        entries = [entry for item in permissions if item["IpProtocol"] == "tcp" for entry in item[member]]
        rule = ec2.describe_security_group_rules(SecurityGroupRuleIds=[made["SecurityGroupRuleId"]])
        assert [entry[key] for entry in entries] == [source[key]]
        return [entries[0].get("Description"), rule["SecurityGroupRules"][0].get("Description")]

    authorize = getattr(ec2, f"authorize_security_group_{direction}")
    answer = authorize(GroupId=group, IpPermissions=[{**permission, member: [{**source, "Description": "first"}]}])
    made = answer["SecurityGroupRules"][0]
    assert made["Description"] == "first"
    assert shown() == ["first", "first"]
    with pytest.raises(ClientError, match=r"InvalidPermission\.Duplicate"):
        authorize(GroupId=group, IpPermissions=[{**permission, member: [{**source, "Description": "other"}]}])
    describe = getattr(ec2, f"update_security_group_rule_descriptions_{direction}")
    describe(GroupId=group, IpPermissions=[{**permission, member: [{**source, "Description": "second"}]}])
    assert shown() == ["second", "second"]
    describe(GroupId=group, IpPermissions=[{**permission, member: [source]}])
    assert shown() == [None, None]
    getattr(ec2, f"revoke_security_group_{direction}")(GroupId=group, IpPermissions=[{**permission, member: [source]}])
    left = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    assert made["SecurityGroupRuleId"] not in [rule["SecurityGroupRuleId"] for rule in left]


def test_rules_of_one_port_keep_their_own_descriptions(ec2: Any, group: str) -> None:
    lists = [{"PrefixListId": "pl-1", "Description": "one"}, {"PrefixListId": "pl-2"}]
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "PrefixListIds": lists}
    pairs = [{"GroupId": group, "Description": "group"}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{**permission, "UserIdGroupPairs": pairs}])
    found = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert [(item["PrefixListIds"], item["IpRanges"]) for item in found] == [(lists, [])]
    assert [pair["Description"] for pair in found[0]["UserIdGroupPairs"]] == ["group"]


def test_a_rule_can_be_given_another_source_of_its_kind(ec2: Any, group: str) -> None:
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "PrefixListIds": [{"PrefixListId": "pl-1"}]}
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])["SecurityGroupRules"][0]
    rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "PrefixListId": "pl-2", "Description": "new"}
    changes = [{"SecurityGroupRuleId": made["SecurityGroupRuleId"], "SecurityGroupRule": rule}]
    ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=changes)
    found = ec2.describe_security_group_rules(SecurityGroupRuleIds=[made["SecurityGroupRuleId"]])["SecurityGroupRules"]
    assert {name: found[0][name] for name in rule} == rule


def test_an_instance_tells_its_maintenance_options(ec2: Any, instance: str, network: dict[str, Any]) -> None:
    assert described(ec2, instance)["MaintenanceOptions"] == {"AutoRecovery": "default", "RebootMigration": "default"}
    ec2.modify_instance_maintenance_options(InstanceId=instance, AutoRecovery="disabled")
    assert described(ec2, instance)["MaintenanceOptions"] == {"AutoRecovery": "disabled", "RebootMigration": "default"}
    made = ec2.run_instances(**LAUNCH, SubnetId=network["subnets"][0], MaintenanceOptions={"AutoRecovery": "disabled"})
    assert made["Instances"][0]["MaintenanceOptions"]["AutoRecovery"] == "disabled"
    other = made["Instances"][0]["InstanceId"]
    assert described(ec2, other)["MaintenanceOptions"]["AutoRecovery"] == "disabled"
    ec2.terminate_instances(InstanceIds=[other])
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        ec2.modify_instance_maintenance_options(InstanceId="i-0123456789abcdef0", AutoRecovery="disabled")


def test_an_instance_and_its_primary_interface_have_one_source_destination_check(
    ec2: Any, network: dict[str, Any]
) -> None:
    interface = ec2.create_network_interface(SubnetId=network["subnets"][0])["NetworkInterface"]["NetworkInterfaceId"]
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck={"Value": False})
    cards = [{"DeviceIndex": 0, "NetworkInterfaceId": interface}]
    instance = ec2.run_instances(**LAUNCH, NetworkInterfaces=cards)["Instances"][0]["InstanceId"]

    def shown() -> list[bool]:
        of_instance = described(ec2, instance)
        of_interface = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]
        inside = of_instance["NetworkInterfaces"][0]["SourceDestCheck"]
        return [of_instance["SourceDestCheck"], inside, of_interface["SourceDestCheck"]]

    assert shown() == [False] * 3
    ec2.modify_instance_attribute(InstanceId=instance, SourceDestCheck={"Value": True})
    assert shown() == [True] * 3
    ec2.modify_instance_attribute(InstanceId=instance, Attribute="sourceDestCheck", Value="false")
    assert shown() == [False] * 3
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck={"Value": True})
    assert shown() == [True] * 3
    ec2.terminate_instances(InstanceIds=[instance])
    ec2.delete_network_interface(NetworkInterfaceId=interface)


def test_another_shutdown_behaviour_leaves_the_security_groups_alone(ec2: Any, instance: str) -> None:
    groups = described(ec2, instance)["SecurityGroups"]
    assert groups
    ec2.modify_instance_attribute(InstanceId=instance, InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    assert described(ec2, instance)["SecurityGroups"] == groups
    found = ec2.describe_instance_attribute(InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")
    assert found["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
