"""An existing VPC: its parts, and what they must be like before a sandbox runs in them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from ringfence.errors import InputError, Problem

# A default route may be written in halves or quarters: what is wider than this is no private network (10.0.0.0/8, fc00::/7).
_WIDEST = {4: 8, 6: 7}
# What a route is judged by.
_FIELDS = (
    "cidr_block", "ipv6_cidr_block", "destination_prefix_list_id", "gateway_id", "nat_gateway_id", "egress_only_gateway_id",
)  # fmt: skip
_REMEDY = "take the route out, or name a table without one: the egress proxy is a sandbox's only way out"


@dataclass(frozen=True)
class ExistingVpc:
    """A VPC that somebody else made: its id and range, and by zone the subnets and route tables to use.

    sandbox_acl: put its sandbox subnets under a network ACL of this environment. Off unless asked for, since a subnet has
    only one: it takes the place of the owner's, and a destroy leaves the subnets with the VPC's default ACL, not with the
    one that they had.
    """

    vpc_id: str
    vpc_cidr: str
    public_subnet_ids: Mapping[str, str]
    system_subnet_ids: Mapping[str, str]
    sandbox_subnet_ids: Mapping[str, str]
    system_route_table_ids: Mapping[str, str]
    sandbox_route_table_ids: Mapping[str, str]
    public_route_table_ids: Mapping[str, str]
    sandbox_acl: bool = False


def way_out(route: Mapping[str, str]) -> str:
    """Where a route of a table leads that sandboxes must not go, in words; empty when it is harmless."""
    destination = route["cidr_block"] or route["ipv6_cidr_block"]
    shown = destination or route["destination_prefix_list_id"]
    if route["gateway_id"].startswith("igw-") or route["nat_gateway_id"] or route["egress_only_gateway_id"]:
        target = route["gateway_id"] or route["nat_gateway_id"] or route["egress_only_gateway_id"]
        return f"{shown} to the internet by {target}"
    if destination:
        network = ipaddress.ip_network(destination)
        if network.prefixlen < _WIDEST[network.version]:
            return f"{shown}, which is a default route"
    return ""


def table_problems(
    key: str, vpc_id: str, subnet_id: str, table: Mapping[str, Any], routes: Iterable[Mapping[str, str]]
) -> list[Problem]:
    """What is wrong with a subnet's route table. table: its id, its VPC's and the subnets that it is tied to; routes: those
    that must lead nowhere outside."""
    found = []
    name = table["route_table_id"]
    if table["vpc_id"] != vpc_id:
        found.append(Problem("network", key, f"{name} is of {table['vpc_id']}", f"name a table of {vpc_id}"))
    if subnet_id not in table["subnet_ids"]:
        message = f"{name} is not the table of {subnet_id}"
        found.append(Problem("network", key, message, "tie it to the subnet, or name the subnet's own table"))
    found += [Problem("network", key, f"{name} leads {out}", _REMEDY) for route in routes if (out := way_out(route))]
    return found


def checked_sandbox_subnets(existing: ExistingVpc, parent: pulumi.Resource) -> dict[str, pulumi.Output[str]]:
    """Zone → sandbox subnet, known only once no table lets a sandbox out: what is made in these subnets waits for that.

    The outputs fail with InputError naming every route, table and subnet that isn't as it must be. Routes that a virtual
    private gateway propagates are not seen: the official provider's lookup leaves them out.
    """
    return _checked(existing, "sandbox", existing.sandbox_subnet_ids, existing.sandbox_route_table_ids, parent)


def checked_public_subnets(existing: ExistingVpc, parent: pulumi.Resource) -> dict[str, pulumi.Output[str]]:
    """Zone → public subnet, known only once each has the table that was named for it: proxies in another one's subnet would
    pass by the gateway endpoints, whose policies hold S3 and DynamoDB to this account. The outputs fail with InputError."""
    return _checked(existing, "public", existing.public_subnet_ids, existing.public_route_table_ids, parent)


def _checked(
    existing: ExistingVpc, tier: str, subnets: Mapping[str, str], names: Mapping[str, str], parent: pulumi.Resource
) -> dict[str, pulumi.Output[str]]:
    tables = {
        zone: aws.ec2.get_route_table_output(route_table_id=table, opts=pulumi.InvokeOutputOptions(parent=parent))
        for zone, table in names.items()
    }

    def refuse(found: Mapping[str, aws.ec2.GetRouteTableResult]) -> None:
        problems: list[Problem] = []
        for zone, table in sorted(found.items()):
            facts = {
                "route_table_id": table.route_table_id,
                "vpc_id": table.vpc_id,
                "subnet_ids": [association.subnet_id for association in table.associations],
            }
            # Proxies do go out.
            shut = table.routes if tier == "sandbox" else ()
            routes = [{field: getattr(route, field) or "" for field in _FIELDS} for route in shut]
            key = f"existing.{tier}_route_table_ids.{zone}"
            problems += table_problems(key, existing.vpc_id, subnets[zone], facts, routes)
        if problems:
            raise InputError(problems)

    checked = pulumi.Output.all(**tables).apply(refuse)
    return {
        zone: pulumi.Output.all(checked, subnet).apply(lambda both: both[1]) for zone, subnet in sorted(subnets.items())
    }
