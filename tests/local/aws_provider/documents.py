"""Documents and prerequisites that several test modules need."""

from __future__ import annotations

import json

from tests.local.aws_provider.life_cycle import Made, World

ACCOUNT = "123456789012"
REGION = "us-east-1"


def trust(service: str = "ec2.amazonaws.com") -> str:
    """A trust policy."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def allow(*actions: str) -> str:
    """A policy that allows `actions` on everything."""
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
    )


def resource_policy(action: str, resource: str = "*", principal: str = f"arn:aws:iam::{ACCOUNT}:root") -> str:
    """A resource policy that lets `principal` do `action`."""
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def role(world: World, service: str = "ec2.amazonaws.com") -> Made:
    """A role to hang things on."""
    return world.make("aws:iam/role:Role", assumeRolePolicy=trust(service))


def key(world: World) -> Made:
    """A KMS key."""
    return world.make("aws:kms/key:Key", description="a key")


def bucket(world: World, **more: object) -> Made:
    """A bucket."""
    return world.make("aws:s3/bucket:Bucket", bucket=world.name("bucket"), **more)


def vpc(world: World) -> Made:
    """A VPC."""
    return world.make("aws:ec2/vpc:Vpc", cidrBlock="10.0.0.0/16")


def subnet(world: World, inside: Made | None = None, block: str = "10.0.0.0/24", zone: str = "a") -> Made:
    """A subnet, in a VPC of its own unless one is given."""
    inside = inside or vpc(world)
    return world.make("aws:ec2/subnet:Subnet", vpcId=inside.id, cidrBlock=block, availabilityZone=f"{REGION}{zone}")


def log_group(world: World) -> Made:
    """A log group."""
    return world.make("aws:cloudwatch/logGroup:LogGroup", name=world.name("/group"))
