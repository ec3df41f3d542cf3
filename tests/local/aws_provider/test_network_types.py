"""Every EC2 network type, through its whole life against the real server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws_provider.documents import ACCOUNT, REGION, log_group, resource_policy, role, subnet, vpc
from tests.local.aws_provider.life_cycle import Case, Made, World, live


def gateway(world: World, network: Made) -> Made:
    """An internet gateway."""
    return world.make("aws:ec2/internetGateway:InternetGateway", vpcId=network.id)


def table(world: World, network: Made) -> Made:
    """A route table."""
    return world.make("aws:ec2/routeTable:RouteTable", vpcId=network.id)


def address(world: World) -> Made:
    """An Elastic IP address."""
    return world.make("aws:ec2/eip:Eip", domain="vpc")


def interface(world: World, where: Made | None = None) -> Made:
    """A network interface."""
    return world.make("aws:ec2/networkInterface:NetworkInterface", subnetId=(where or subnet(world)).id)


def group(world: World, network: Made) -> Made:
    """A security group."""
    return world.make("aws:ec2/securityGroup:SecurityGroup", name=world.name("group"), vpcId=network.id)


def endpoint(world: World, network: Made, kind: str = "Gateway", service: str = "s3", **more: Any) -> Made:
    """A VPC endpoint."""
    name = f"com.amazonaws.{REGION}.{service}"
    return world.make(
        "aws:ec2/vpcEndpoint:VpcEndpoint", vpcId=network.id, serviceName=name, vpcEndpointType=kind, **more
    )


def _ec2(operation: str, **parameters: Any) -> Any:
    """What somebody does to the thing by hand: values may be functions of the resource."""

    def act(world: World, made: Made) -> Any:
        given = {name: value(made) if callable(value) else value for name, value in parameters.items()}
        return getattr(world.client("ec2"), operation)(**given)

    return act


def _id(made: Made) -> str:
    return made.id


def _route(world: World) -> dict[str, Any]:
    network = vpc(world)
    return {
        "routeTableId": table(world, network).id,
        "destinationCidrBlock": "0.0.0.0/0",
        "gatewayId": gateway(world, network).id,
    }


def _association(world: World) -> dict[str, Any]:
    network = vpc(world)
    return {"routeTableId": table(world, network).id, "subnetId": subnet(world, network).id}


def _network(world: World) -> Made:
    """The first VPC of this world."""
    return next(made for made in world.made if made.type == "aws:ec2/vpc:Vpc")


def _another_table(world: World) -> dict[str, Any]:
    return {"routeTableId": table(world, _network(world)).id}


def _inline_routes(world: World) -> dict[str, Any]:
    network = vpc(world)
    way_out = gateway(world, network).id
    return {"vpcId": network.id, "routes": [{"cidrBlock": "0.0.0.0/0", "gatewayId": way_out}], "tags": {"a": "b"}}


def _gateway_endpoint(world: World) -> dict[str, Any]:
    network = vpc(world)
    return {
        "vpcId": network.id,
        "serviceName": f"com.amazonaws.{REGION}.s3",
        "policy": resource_policy("s3:GetObject", principal="*"),
        "routeTableIds": [table(world, network).id],
        "tags": {"a": "b"},
    }


def _interface_endpoint(world: World) -> dict[str, Any]:
    network = vpc(world)
    return {
        "vpcId": network.id,
        "serviceName": f"com.amazonaws.{REGION}.sts",
        "vpcEndpointType": "Interface",
        "privateDnsEnabled": True,
        "subnetIds": [subnet(world, network).id],
        "securityGroupIds": [group(world, network).id],
    }


def _endpoint_table(world: World) -> dict[str, Any]:
    network = vpc(world)
    return {"vpcEndpointId": endpoint(world, network).id, "routeTableId": table(world, network).id}


def _endpoint_subnet(world: World) -> dict[str, Any]:
    network = vpc(world)
    made = endpoint(world, network, "Interface", "sts", subnetIds=[subnet(world, network).id])
    return {"vpcEndpointId": made.id, "subnetId": subnet(world, network, "10.0.1.0/24", "b").id}


def _flow_log(world: World) -> dict[str, Any]:
    return {
        "vpcId": vpc(world).id,
        "trafficType": "ALL",
        "logDestinationType": "cloud-watch-logs",
        "logDestination": log_group(world)["arn"],
        "iamRoleArn": role(world, "vpc-flow-logs.amazonaws.com")["arn"],
        "maxAggregationInterval": 60,
        "tags": {"a": "b"},
    }


CASES = [
    Case(
        "aws:ec2/vpc:Vpc",
        lambda world: {
            "cidrBlock": "10.1.0.0/16",
            "enableDnsHostnames": True,
            "tags": {"Name": "x", "ringfence.dev/environment": "local"},
        },
        update={"enableDnsHostnames": False, "enableDnsSupport": False, "tags": {"Name": "y"}},
        replace={"cidrBlock": "10.2.0.0/16"},
        drift=_ec2("modify_vpc_attribute", VpcId=_id, EnableDnsSupport={"Value": True}),
        drifted="enableDnsSupport",
    ),
    Case(
        "aws:ec2/subnet:Subnet",
        lambda world: {
            "vpcId": vpc(world).id,
            "cidrBlock": "10.0.3.0/24",
            "availabilityZone": f"{REGION}b",
            "mapPublicIpOnLaunch": True,
            "tags": {"a": "b"},
        },
        update={"mapPublicIpOnLaunch": False, "tags": {}},
        replace={"availabilityZone": f"{REGION}c"},
        drift=_ec2("modify_subnet_attribute", SubnetId=_id, MapPublicIpOnLaunch={"Value": True}),
        drifted="mapPublicIpOnLaunch",
    ),
    Case(
        "aws:ec2/internetGateway:InternetGateway",
        lambda world: {"vpcId": vpc(world).id, "tags": {"a": "b"}},
        update=lambda world: {"vpcId": vpc(world).id, "tags": {"a": "c"}},
        drift=_ec2("detach_internet_gateway", InternetGatewayId=_id, VpcId=lambda made: made["vpcId"]),
        drifted="vpcId",
        mended=False,
    ),
    Case(
        "aws:ec2/natGateway:NatGateway",
        lambda world: {"subnetId": subnet(world).id, "allocationId": address(world).id, "tags": {"a": "b"}},
        update={"tags": {"a": "c"}},
        replace={"connectivityType": "private"},
        drift=_ec2("delete_nat_gateway", NatGatewayId=_id),
        drifted="gone",
    ),
    Case(
        "aws:ec2/eip:Eip",
        lambda world: {"domain": "vpc", "networkInterface": interface(world).id, "tags": {"a": "b"}},
        update=lambda world: {"networkInterface": interface(world).id, "tags": {"a": "c"}},
        drift=_ec2("disassociate_address", AssociationId=lambda made: made["associationId"]),
        drifted="networkInterface",
    ),
    Case(
        "aws:ec2/eipAssociation:EipAssociation",
        lambda world: {"allocationId": address(world).id, "networkInterfaceId": interface(world).id},
        replace={"allocationId": "eipalloc-0000000000000000"},
        drift=_ec2("disassociate_address", AssociationId=_id),
        drifted="gone",
    ),
    Case(
        "aws:ec2/flowLog:FlowLog",
        _flow_log,
        update={"tags": {"a": "c"}},
        replace={"trafficType": "REJECT"},
        drift=_ec2("delete_flow_logs", FlowLogIds=lambda made: [made.id]),
        drifted="gone",
    ),
    Case(
        "aws:ec2/routeTable:RouteTable",
        _inline_routes,
        update={"routes": [], "tags": {"a": "c"}},
        replace={"vpcId": "vpc-00000000"},
        drift=_ec2("delete_tags", Resources=lambda made: [made.id], Tags=[{"Key": "a"}]),
        drifted="tags.a",
    ),
    Case(
        "aws:ec2/route:Route",
        _route,
        update=lambda world: {"gatewayId": None, "networkInterfaceId": interface(world).id},
        replace={"destinationCidrBlock": "10.9.0.0/16"},
        drift=_ec2("delete_route", RouteTableId=lambda made: made["routeTableId"], DestinationCidrBlock="0.0.0.0/0"),
        drifted="gone",
        importable=False,
    ),
    Case(
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        _association,
        update=_another_table,
        replace={"subnetId": "subnet-00000000"},
        drift=lambda world, made: world.client("ec2").replace_route_table_association(
            AssociationId=world.client("ec2").describe_route_tables(RouteTableIds=[made["routeTableId"]])[
                "RouteTables"
            ][0]["Associations"][0]["RouteTableAssociationId"],
            RouteTableId=_another_table(world)["routeTableId"],
        ),
        drifted="routeTableId",
    ),
    Case(
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        lambda world: {
            "routeTableId": table(world, network := vpc(world)).id,
            "gatewayId": gateway(world, network).id,
        },
        update=_another_table,
        replace={"gatewayId": "igw-00000000"},
    ),
    Case(
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        _gateway_endpoint,
        update=lambda world: {"policy": resource_policy("s3:PutObject", principal="*"), "tags": {"a": "c"}},
        replace={"serviceName": f"com.amazonaws.{REGION}.dynamodb"},
        drift=_ec2("modify_vpc_endpoint", VpcEndpointId=_id, PolicyDocument=resource_policy("*", principal="*")),
        drifted="policy",
    ),
    Case(
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        _interface_endpoint,
        update=lambda world: {
            "securityGroupIds": [group(world, _network(world)).id],
            "subnetIds": [subnet(world, _network(world), "10.0.1.0/24", "b").id],
            "privateDnsEnabled": False,
        },
        drift=_ec2("delete_vpc_endpoints", VpcEndpointIds=lambda made: [made.id]),
        drifted="gone",
    ),
    Case(
        "aws:ec2/vpcEndpointRouteTableAssociation:VpcEndpointRouteTableAssociation",
        _endpoint_table,
        replace={"routeTableId": "rtb-00000000"},
        drift=_ec2(
            "modify_vpc_endpoint",
            VpcEndpointId=lambda made: made["vpcEndpointId"],
            RemoveRouteTableIds=lambda made: [made["routeTableId"]],
        ),
        drifted="gone",
        importable=False,
    ),
    Case(
        "aws:ec2/vpcEndpointSubnetAssociation:VpcEndpointSubnetAssociation",
        _endpoint_subnet,
        replace={"subnetId": "subnet-00000000"},
        drift=_ec2(
            "modify_vpc_endpoint",
            VpcEndpointId=lambda made: made["vpcEndpointId"],
            RemoveSubnetIds=lambda made: [made["subnetId"]],
        ),
        drifted="gone",
        importable=False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_network_resource_lives_drifts_and_dies(world: World, case: Case) -> None:
    live(world, case)


def test_a_new_vpc_names_its_default_group_acl_and_table(world: World) -> None:
    made = vpc(world)
    assert made["defaultSecurityGroupId"].startswith("sg-")
    assert made["defaultNetworkAclId"].startswith("acl-")
    assert made["mainRouteTableId"].startswith("rtb-")
    assert made["arn"] == f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/{made.id}"


def test_a_route_needs_exactly_one_destination_and_one_target(world: World) -> None:
    _, failures = world.backend.check("aws:ec2/route:Route", "urn::r", {}, {"routeTableId": "rtb-1"}, b"0123")
    assert {failure.property for failure in failures} == {"destinationCidrBlock", "gatewayId"}
