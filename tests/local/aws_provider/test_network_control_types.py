"""Every security group and network ACL type, through its whole life against the real server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws_provider.documents import subnet, vpc
from tests.local.aws_provider.life_cycle import Case, Made, World, live

ANYWHERE = "0.0.0.0/0"


def group(world: World) -> Made:
    """A security group."""
    return world.make("aws:ec2/securityGroup:SecurityGroup", name=world.name("group"), vpcId=vpc(world).id)


def acl(world: World, network: Made) -> Made:
    """A network ACL."""
    return world.make("aws:ec2/networkAcl:NetworkAcl", vpcId=network.id)


def _rule(port: int, **more: Any) -> dict[str, Any]:
    return {"protocol": "tcp", "fromPort": port, "toPort": port, **more}


def _entry(number: int, action: str = "allow", **more: Any) -> dict[str, Any]:
    entry = {"ruleNo": number, "action": action, "protocol": "tcp", "fromPort": 443, "toPort": 443}
    return entry | {"cidrBlock": "10.0.0.0/16"} | more


def _open(direction: str) -> Any:
    """Somebody opens everything, in a group."""

    def act(world: World, made: Made) -> Any:
        permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ANYWHERE}]}
        operation = getattr(world.client("ec2"), f"authorize_security_group_{direction}")
        return operation(GroupId=made.id, IpPermissions=[permission])

    return act


def _open_acl(world: World, made: Made) -> Any:
    return world.client("ec2").create_network_acl_entry(
        NetworkAclId=made.id, RuleNumber=1, Protocol="-1", RuleAction="allow", Egress=True, CidrBlock=ANYWHERE
    )


def _taken_acl(world: World) -> dict[str, Any]:
    network = vpc(world)
    return {"networkAclId": acl(world, network).id, "subnetId": subnet(world, network).id}


def _give_back(world: World, made: Made) -> Any:
    client = world.client("ec2")
    network = next(one for one in world.made if one.type == "aws:ec2/vpc:Vpc")
    return client.replace_network_acl_association(AssociationId=made.id, NetworkAclId=network["defaultNetworkAclId"])


def _revoke(direction: str) -> Any:
    def act(world: World, made: Made) -> Any:
        operation = getattr(world.client("ec2"), f"revoke_security_group_{direction}")
        return operation(GroupId=made["securityGroupId"], SecurityGroupRuleIds=[made.id])

    return act


CASES = [
    Case(
        "aws:ec2/securityGroup:SecurityGroup",
        lambda world: {
            "name": world.name("group"),
            "description": "the proxy",
            "vpcId": vpc(world).id,
            "ingress": [
                _rule(443, cidrBlocks=["10.0.1.0/24", "10.0.0.0/24"], description="tls"),
                {"protocol": "-1", "fromPort": 0, "toPort": 0, "self": True},
            ],
            "egress": [_rule(443, cidrBlocks=[ANYWHERE])],
            "tags": {"a": "b"},
        },
        update={"ingress": [_rule(8443, cidrBlocks=["10.0.1.0/24"])], "egress": [], "tags": {"a": "c"}},
        replace={"description": "another"},
        drift=_open("ingress"),
        drifted="ingress",
    ),
    Case(
        "aws:ec2/securityGroup:SecurityGroup",
        lambda world: {"name": world.name("group"), "vpcId": vpc(world).id},
        update={"tags": {"a": "b"}},
        replace={"name": "other"},
        drift=lambda world, made: world.client("ec2").delete_security_group(GroupId=made.id),
        drifted="gone",
    ),
    Case(
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
        lambda world: {"vpcId": vpc(world).id, "ingress": [], "egress": [], "tags": {"a": "b"}},
        update={"ingress": [_rule(443, cidrBlocks=["10.0.0.0/8"])]},
        replace={"vpcId": "vpc-00000000"},
        drift=_open("egress"),
        drifted="egress",
        outlives=True,
    ),
    Case(
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        lambda world: {
            "securityGroupId": group(world).id,
            "ipProtocol": "tcp",
            "fromPort": 3128,
            "toPort": 3130,
            "cidrIpv4": "10.0.0.0/16",
            "description": "proxy",
            "tags": {"a": "b"},
        },
        update={"toPort": 3140, "description": "more", "tags": {"a": "c"}},
        replace={"securityGroupId": "sg-00000000"},
        drift=_revoke("ingress"),
        drifted="gone",
    ),
    Case(
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        lambda world: {
            "securityGroupId": group(world).id,
            "ipProtocol": "tcp",
            "fromPort": 443,
            "toPort": 443,
            "referencedSecurityGroupId": group(world).id,
            "description": "from the nodes",
        },
        update=lambda world: {"referencedSecurityGroupId": group(world).id, "toPort": 444, "description": "other"},
        drift=_revoke("ingress"),
        drifted="gone",
    ),
    Case(
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        lambda world: {
            "securityGroupId": group(world).id,
            "ipProtocol": "tcp",
            "fromPort": 443,
            "toPort": 443,
            "prefixListId": "pl-63a5400a",
            "description": "to S3",
        },
        update={"description": "to S3 only"},
    ),
    Case(
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        lambda world: {"securityGroupId": group(world).id, "ipProtocol": "-1", "cidrIpv4": ANYWHERE},
        update={"cidrIpv4": "10.0.0.0/8"},
        replace={"securityGroupId": "sg-00000000"},
        drift=_revoke("egress"),
        drifted="gone",
    ),
    Case(
        "aws:ec2/networkAcl:NetworkAcl",
        lambda world: {
            "vpcId": vpc(world).id,
            "ingress": [_entry(100), _entry(200, "deny", protocol="-1", fromPort=0, toPort=0, cidrBlock=ANYWHERE)],
            "egress": [_entry(100, protocol="6")],
            "tags": {"a": "b"},
        },
        update={"ingress": [_entry(100, fromPort=444, toPort=444)], "egress": [], "tags": {"a": "c"}},
        replace={"vpcId": "vpc-00000000"},
        drift=_open_acl,
        drifted="egress",
    ),
    Case(
        "aws:ec2/networkAcl:NetworkAcl",
        lambda world: {"vpcId": (network := vpc(world)).id, "subnetIds": [subnet(world, network).id]},
        update={"subnetIds": []},
    ),
    Case(
        "aws:ec2/defaultNetworkAcl:DefaultNetworkAcl",
        lambda world: {"defaultNetworkAclId": vpc(world)["defaultNetworkAclId"], "tags": {"a": "b"}},
        update={"egress": [_entry(100)], "tags": {"a": "c"}},
        replace={"defaultNetworkAclId": "acl-00000000"},
        drift=_open_acl,
        drifted="egress",
        outlives=True,
    ),
    Case(
        "aws:ec2/networkAclRule:NetworkAclRule",
        lambda world: {
            "networkAclId": acl(world, vpc(world)).id,
            "ruleNumber": 100,
            "protocol": "tcp",
            "ruleAction": "allow",
            "cidrBlock": "10.0.0.0/16",
            "fromPort": 443,
            "toPort": 443,
        },
        replace={"ruleNumber": 200},
        drift=lambda world, made: world.client("ec2").delete_network_acl_entry(
            NetworkAclId=made["networkAclId"], RuleNumber=100, Egress=False
        ),
        drifted="gone",
    ),
    Case(
        "aws:ec2/networkAclAssociation:NetworkAclAssociation",
        _taken_acl,
        replace={"subnetId": "subnet-00000000"},
        drift=_give_back,
        drifted="gone",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_network_control_lives_drifts_and_dies(world: World, case: Case) -> None:
    live(world, case)


def test_a_new_security_group_lets_nothing_out_that_is_not_declared(world: World) -> None:
    made = group(world)
    found = world.client("ec2").describe_security_groups(GroupIds=[made.id])["SecurityGroups"][0]
    assert found["IpPermissionsEgress"] == []


def test_the_default_security_group_is_closed_when_it_is_taken_over(world: World) -> None:
    network = vpc(world)
    before = world.client("ec2").describe_security_groups(GroupIds=[network["defaultSecurityGroupId"]])
    assert before["SecurityGroups"][0]["IpPermissionsEgress"]
    world.make("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup", vpcId=network.id)
    after = world.client("ec2").describe_security_groups(GroupIds=[network["defaultSecurityGroupId"]])
    assert after["SecurityGroups"][0]["IpPermissions"] == []
    assert after["SecurityGroups"][0]["IpPermissionsEgress"] == []
