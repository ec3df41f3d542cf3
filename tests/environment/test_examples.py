"""Every example previews on the real engine, where nothing stands yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from ringfence.local import services, target
from ringfence.local.console import Clock
from ringfence.local.lifecycle import ACCOUNT, Embedded
from ringfence.local.results import Result
from ringfence.local.stack import Engine
from tests.environment.conftest import PROJECT

pytestmark = [pytest.mark.engine, pytest.mark.e2e]

EXAMPLES = sorted(path.parent.name for path in (PROJECT / "examples").glob("*/Pulumi.yaml"))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """Services with nothing in them."""
    embedded = Embedded(PROJECT, home=tmp_path_factory.mktemp("examples") / "home", clock=Clock())
    try:
        services.start(embedded.home, embedded.engine().tools, ACCOUNT, lambda line: None)
        yield embedded
    finally:
        services.stop(embedded.home, lambda line: None)


def preview(empty: Embedded, example: str, **config: Any) -> Result:
    engine = Engine(
        PROJECT / "examples" / example,
        empty.home,
        empty.engine().tools,
        stack="example",
        config={"ringfence:target": "embedded"} | {f"ringfence:{key}": value for key, value in config.items()},
    )
    return engine.preview()


@dataclass
class OwnersVpc:
    """What the example of an existing VPC has of its owner: public and sandbox subnets with their tables, in two zones.

    Nothing else of it is looked up, so everything else keeps the example's made-up ids.
    """

    ec2: Any
    vpc_id: str
    config: dict[str, Any]
    sandbox_tables: list[str]


@pytest.fixture(scope="module")
def owners(empty: Embedded) -> OwnersVpc:
    """Made with boto3, as somebody else's."""
    values = target.variables(empty.home)
    ec2 = boto3.client(
        "ec2",
        endpoint_url=values["AWS_ENDPOINT_URL"],
        region_name=values["AWS_REGION"],
        aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
    )
    vpc = ec2.create_vpc(CidrBlock="10.80.0.0/16")["Vpc"]["VpcId"]
    found = OwnersVpc(ec2, vpc, {"existingVpcId": vpc}, [])
    for number, tier in enumerate(("Public", "Sandbox")):
        subnets, tables = [], []
        for index, zone in enumerate(("us-east-1a", "us-east-1b")):
            block = f"10.80.{2 * number + index}.0/24"
            subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone)["Subnet"]["SubnetId"]
            table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
            ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
            subnets.append(f"{zone}={subnet}")
            tables.append(f"{zone}={table}")
        found.config |= {f"existing{tier}Subnets": subnets, f"existing{tier}RouteTables": tables}
        found.sandbox_tables[:] = [table.partition("=")[2] for table in tables]
    return found


def test_there_are_three_examples():
    assert EXAMPLES == ["existing-vpc", "minimal", "production"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_previews(empty: Embedded, owners: OwnersVpc, example: str):
    found = preview(empty, example, **(owners.config if example == "existing-vpc" else {})).check()
    assert set(found.changes) == {"create"}
    assert found.changes["create"] > 100
    # Bring your own VPC: only the controls are made, not the VPC.
    types = {step.type for step in found.steps}
    assert ("aws:ec2/vpc:Vpc" in types) == (example != "existing-vpc")
    assert "aws:ec2/flowLog:FlowLog" in types


def test_an_existing_vpc_with_a_way_out_for_sandboxes_is_refused(empty: Embedded, owners: OwnersVpc):
    gateway = owners.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    owners.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=owners.vpc_id)
    route = {"RouteTableId": owners.sandbox_tables[1], "DestinationCidrBlock": "0.0.0.0/0"}
    owners.ec2.create_route(GatewayId=gateway, **route)
    try:
        refused = preview(empty, "existing-vpc", **owners.config)
    finally:
        owners.ec2.delete_route(**route)
    said = refused.stdout + refused.stderr
    assert not refused.ok
    assert f"{owners.sandbox_tables[1]} leads 0.0.0.0/0 to the internet by {gateway}" in said and "only way out" in said
    assert owners.sandbox_tables[0] not in said
    missing = preview(empty, "existing-vpc")  # the example's made-up ids
    assert not missing.ok and "0 route tables fit" in missing.stdout + missing.stderr
