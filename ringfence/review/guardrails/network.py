"""Guardrails of the network: the sandbox has no way out but the proxy, and nothing is open to the internet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ringfence.review.facts import Unknown
from ringfence.review.guardrails.model import Guardrail, entries, is_sandbox, is_true, open_to_everybody
from ringfence.review.resource import Resource

_TABLE, _SUBNET, _ROUTE = "aws:ec2/routeTable:RouteTable", "aws:ec2/subnet:Subnet", "aws:ec2/route:Route"
_ASSOCIATION = "aws:ec2/routeTableAssociation:RouteTableAssociation"
_GROUP = "aws:ec2/securityGroup:SecurityGroup"
_OLD_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
_INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
_EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
_TARGETS = (
    "gatewayId",
    "natGatewayId",
    "transitGatewayId",
    "vpcPeeringConnectionId",
    "networkInterfaceId",
    "egressOnlyGatewayId",
    "carrierGatewayId",
    "localGatewayId",
    "coreNetworkArn",
    "vpcEndpointId",
)


def _default_route(route: Any) -> bool:
    """Whether a route leads everything, or one of the internet's halves, somewhere."""
    if isinstance(route, Unknown):
        return True
    keys = ("destinationCidrBlock", "destinationIpv6CidrBlock", "cidrBlock", "ipv6CidrBlock")
    return any(route.get(key) is not None and open_to_everybody(route[key]) for key in keys)


def _sandbox_routes(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """Default routes that a sandbox subnet would have: in its own table, added to it, or by association."""
    by_id = {resource.id: resource for resource in resources if resource.id}
    open_tables: dict[str, Resource] = {}
    for resource in resources:
        if resource.type == _TABLE and any(_default_route(route) for route in entries(resource.get("routes"))):
            open_tables[resource.urn] = resource
            if is_sandbox(resource):
                yield resource, f"sandbox route table {resource.name} has a default route"
        elif resource.type == _ROUTE and _default_route(resource.props):
            table = _referred(resource, "routeTableId", _TABLE, by_id)
            if table is not None:
                open_tables[table.urn] = table
            if is_sandbox(resource) or (table is not None and is_sandbox(table)):
                through = next((name for name in _TARGETS if resource.get(name) is not None), "an unnamed target")
                yield resource, f"route {resource.name} gives a sandbox route table a default route ({through})"
    for resource in resources:
        if resource.type == _ASSOCIATION:
            table = _referred(resource, "routeTableId", _TABLE, by_id)
            subnet = _referred(resource, "subnetId", _SUBNET, by_id)
            sandbox = is_sandbox(resource) or (subnet is not None and is_sandbox(subnet))
            if sandbox and table is not None and table.urn in open_tables:
                yield resource, f"{resource.name} puts a sandbox subnet into {table.name}, which has a default route"


def _referred(resource: Resource, prop: str, type_: str, by_id: dict[str, Resource]) -> Resource | None:
    linked = resource.linked(prop, type_)
    if linked is not None:
        return linked
    value = resource.get(prop)
    other = by_id.get(value) if isinstance(value, str) else None
    return other if other is not None and other.type == type_ else None


def _public_subnet(resource: Resource) -> Iterator[str]:
    if is_sandbox(resource) and is_true(resource.get("mapPublicIpOnLaunch")):
        yield f"sandbox subnet {resource.name} gives its nodes public addresses"


def _cidrs(rule: Any) -> list[Any]:
    if isinstance(rule, Unknown):
        return [rule]
    found = [rule.get(key) for key in ("cidrIpv4", "cidrIpv6") if rule.get(key) is not None]
    return found + entries(rule.get("cidrBlocks")) + entries(rule.get("ipv6CidrBlocks"))


def _open_ingress(resource: Resource) -> Iterator[str]:
    if resource.type == _OLD_RULE and resource.get("type") != "ingress":
        return
    rules = entries(resource.get("ingress")) if resource.type == _GROUP else [resource.props]
    for rule in rules:
        wide = [cidr for cidr in _cidrs(rule) if open_to_everybody(cidr)]
        if wide:
            told = ", ".join(cidr if isinstance(cidr, str) else "a range unknown at preview" for cidr in wide)
            yield f"{resource.name} lets {told} in"


def _open_sandbox_egress(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    for resource in resources:
        if resource.type == _GROUP:
            rules, group = entries(resource.get("egress")), resource
        elif resource.type == _EGRESS or (resource.type == _OLD_RULE and resource.get("type") == "egress"):
            rules, group = [resource.props], resource.linked("securityGroupId", _GROUP) or resource
        else:
            continue
        if (is_sandbox(group) or is_sandbox(resource)) and any(
            open_to_everybody(cidr) for rule in rules for cidr in _cidrs(rule)
        ):
            yield resource, f"{resource.name} lets sandbox nodes connect to any address"


GUARDRAILS = (
    Guardrail(
        "sandbox-no-default-route",
        "network",
        "a sandbox with a default route reaches the internet past the proxy, its allow-list and its records",
        "take the route out; sandboxes leave through the egress proxy only",
        ("aws:ec2/route", "aws:ec2/subnet:"),
        stack_check=_sandbox_routes,
    ),
    Guardrail(
        "sandbox-subnet-private",
        "network",
        "a node with a public address can be reached, and reaches out, past the proxy",
        "set mapPublicIpOnLaunch to false",
        ("aws:ec2/subnet:",),
        _public_subnet,
    ),
    Guardrail(
        "security-group-closed",
        "network",
        "whatever listens behind the group is probed within minutes",
        "name the security groups or ranges that need to connect",
        (_GROUP, _OLD_RULE, _INGRESS, "aws:ec2/defaultSecurityGroup:"),
        _open_ingress,
    ),
    Guardrail(
        "sandbox-egress-closed",
        "network",
        "the group is what stops a sandbox node from connecting anywhere but to the proxy",
        "name the proxy's security group and the endpoints' prefix lists",
        ("aws:ec2/securityGroup", "aws:vpc/securityGroupEgressRule:"),
        stack_check=_open_sandbox_egress,
    ),
)
