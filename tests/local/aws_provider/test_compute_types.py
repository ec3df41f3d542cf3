"""Every EC2 computing type, through its whole life against the real server."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ringfence.local.providers.base import UNKNOWN
from tests.local.aws_provider.documents import role, subnet
from tests.local.aws_provider.life_cycle import Case, Made, World, live

AMI = "ami-12c6146b"
NEWEST = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
LOCKED_DOWN = {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1}


def interface(world: World, **more: Any) -> Made:
    """A network interface."""
    return world.make("aws:ec2/networkInterface:NetworkInterface", subnetId=subnet(world).id, **more)


def template(world: World, **more: Any) -> Made:
    """A launch template."""
    made = {"imageId": AMI, "instanceType": "t4g.nano", "name": world.name("template")} | more
    return world.make("aws:ec2/launchTemplate:LaunchTemplate", **made)


def group(world: World, network: str) -> Made:
    """A security group."""
    return world.make("aws:ec2/securityGroup:SecurityGroup", name=world.name("group"), vpcId=network)


def profile(world: World) -> str:
    """An instance profile's name."""
    return world.make("aws:iam/instanceProfile:InstanceProfile", name=world.name(), role=role(world).id).id


def instance(world: World) -> Made:
    """An instance."""
    return world.make("aws:ec2/instance:Instance", ami=AMI, instanceType="t4g.nano", subnetId=subnet(world).id)


def _interface(world: World) -> dict[str, Any]:
    where = subnet(world)
    return {
        "subnetId": where.id,
        "description": "proxy",
        "privateIps": ["10.0.0.10"],
        "sourceDestCheck": False,
        "securityGroups": [group(world, where["vpcId"]).id],
        "tags": {"a": "b"},
    }


def _attachment(world: World) -> dict[str, Any]:
    return {"instanceId": instance(world).id, "networkInterfaceId": interface(world).id, "deviceIndex": 1}


def _from_template(world: World) -> dict[str, Any]:
    return {
        "launchTemplate": {"id": template(world).id, "version": "1"},
        "primaryNetworkInterface": {"networkInterfaceId": interface(world).id},
        "maintenanceOptions": {"autoRecovery": "default"},
        "tags": {"a": "b"},
    }


CASES = [
    Case(
        "aws:ec2/launchTemplate:LaunchTemplate",
        lambda world: {
            "name": world.name("template"),
            "imageId": NEWEST,
            "instanceType": "t4g.nano",
            "userData": base64.b64encode(b"#!/bin/sh\n").decode(),
            "metadataOptions": LOCKED_DOWN,
            "monitoring": {"enabled": True},
            "blockDeviceMappings": [
                {
                    "deviceName": "/dev/xvda",
                    "ebs": {"volumeSize": 20, "volumeType": "gp3", "encrypted": "true", "deleteOnTermination": "true"},
                }
            ],
            "iamInstanceProfile": {"name": profile(world)},
            "updateDefaultVersion": True,
            "tagSpecifications": [{"resourceType": "instance", "tags": {"Name": "x", "a": "b"}}],
            "tags": {"a": "b"},
        },
        update={
            "instanceType": "t4g.small",
            "userData": base64.b64encode(b"#!/bin/bash\n").decode(),
            "tagSpecifications": [{"resourceType": "instance", "tags": {"Name": "y"}}],
            "tags": {"a": "c"},
        },
        replace={"name": "other"},
        drift=lambda world, made: world.client("ec2").create_launch_template_version(
            LaunchTemplateId=made.id, LaunchTemplateData={"ImageId": AMI, "InstanceType": "p5.48xlarge"}
        ),
        drifted="instanceType",
    ),
    Case(
        "aws:ec2/networkInterface:NetworkInterface",
        _interface,
        update={"sourceDestCheck": True, "tags": {"a": "c"}},
        replace={"privateIps": ["10.0.0.11"]},
        drift=lambda world, made: world.client("ec2").modify_network_interface_attribute(
            NetworkInterfaceId=made.id, SourceDestCheck={"Value": False}
        ),
        drifted="sourceDestCheck",
    ),
    Case(
        "aws:ec2/networkInterfaceAttachment:NetworkInterfaceAttachment",
        _attachment,
        replace={"deviceIndex": 2},
        drift=lambda world, made: world.client("ec2").detach_network_interface(AttachmentId=made.id),
        drifted="gone",
    ),
    Case(
        "aws:ec2/instance:Instance",
        _from_template,
        update={
            "disableApiTermination": True,
            "forceDestroy": True,
            "maintenanceOptions": {"autoRecovery": "disabled"},
            "tags": {"a": "c"},
        },
        replace={"primaryNetworkInterface": {"networkInterfaceId": "eni-00000000"}},
        drift=lambda world, made: world.client("ec2").modify_instance_attribute(
            InstanceId=made.id, DisableApiTermination={"Value": False}
        ),
        drifted="disableApiTermination",
        # An instance doesn't tell the template that it was launched from.
        importable=False,
    ),
    Case(
        "aws:ec2/instance:Instance",
        lambda world: {
            "ami": AMI,
            "instanceType": "t4g.nano",
            "subnetId": (where := subnet(world)).id,
            "vpcSecurityGroupIds": [group(world, where["vpcId"]).id],
            "iamInstanceProfile": profile(world),
            "sourceDestCheck": False,
            "userData": "#!/bin/sh\n",
            "rootBlockDevice": {"volumeSize": 10, "volumeType": "gp3", "encrypted": True},
            "tags": {"a": "b"},
        },
        update={"sourceDestCheck": True, "instanceType": "t4g.small"},
        replace={"ami": "ami-00000000"},
        drift=lambda world, made: world.client("ec2").terminate_instances(InstanceIds=[made.id]),
        drifted="gone",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_computing_resource_lives_drifts_and_dies(world: World, case: Case) -> None:
    live(world, case)


@pytest.mark.parametrize(
    ("change", "unknown"),
    [
        ({"instanceType": "t4g.micro"}, {"latestVersion"}),
        ({"instanceType": "t4g.micro", "updateDefaultVersion": True}, {"latestVersion", "defaultVersion"}),
        ({"tags": {"a": "b"}}, {"latestVersion"}),
        ({"updateDefaultVersion": True}, {"defaultVersion"}),
    ],
    ids=lambda value: "+".join(sorted(value)),
)
def test_a_preview_of_a_changed_template_leaves_its_next_version_open(world: World, change: dict, unknown: set) -> None:
    """As the official provider says it: otherwise a preview would keep quiet about what the new version replaces."""
    made = template(world)
    news = made.inputs | change
    arguments = (made.type, made.urn, made.id, made.inputs, made.outputs, news)
    outputs = world.backend.update(*arguments, True)
    assert {name for name in ("latestVersion", "defaultVersion") if outputs[name] is UNKNOWN} == unknown


def test_a_protected_instance_is_not_terminated(world: World) -> None:
    made = instance(world)
    world.update(made, made.inputs | {"disableApiTermination": True})
    with pytest.raises(Exception, match="OperationNotPermitted"):
        world.delete(made)
    world.update(made, made.inputs | {"disableApiTermination": False})


def test_user_data_reaches_the_instance_as_it_was_declared(world: World) -> None:
    for given in ({"userData": "plain"}, {"userDataBase64": base64.b64encode(b"plain").decode()}):
        made = world.make(
            "aws:ec2/instance:Instance", ami=AMI, instanceType="t4g.nano", subnetId=subnet(world).id, **given
        )
        answer = world.client("ec2").describe_instance_attribute(InstanceId=made.id, Attribute="userData")
        assert base64.b64decode(answer["UserData"]["Value"]) == b"plain"


def test_an_instance_holds_its_own_default_against_an_interface_that_forwards(world: World) -> None:
    """As the official provider does: without ignoreChanges the second update would end the forwarding."""
    forwarding = interface(world, sourceDestCheck=False)
    made = world.make(
        "aws:ec2/instance:Instance",
        launchTemplate={"id": template(world).id, "version": "1"},
        primaryNetworkInterface={"networkInterfaceId": forwarding.id},
    )
    assert world.changes(made) == ("sourceDestCheck",)
    world.update(made, made.inputs)
    world.read(forwarding)
    assert world.changes(forwarding) == ("sourceDestCheck",)


def test_forwarding_is_declared_on_the_interface_and_not_beside_it(world: World) -> None:
    declared = _from_template(world) | {"sourceDestCheck": False}
    _, failures = world.backend.check("aws:ec2/instance:Instance", "urn:x::x", {}, declared, b"0123")
    assert [failure.property for failure in failures] == ["sourceDestCheck"]
