"""Which part of the VPC belongs to which zone and tier: a pure function of the VPC's range and the zone's letter.

A range is cut into sixteen blocks. Zone letters a to h own block 0 to 7 as their sandbox subnet (pods take addresses from
it), half of one of the blocks 8 to 11 as their system subnet, a sixteenth of block 12 as their public subnet and a /28 of
block 13 for a Network Firewall endpoint. Blocks 14 and 15 stay free. In 10.42.0.0/16: /20, /21, /24, /28.
A zone's part depends on its own letter only, so adding or removing a zone moves nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.errors import InputError, Problem

# Availability Zones only: Local and Wavelength Zones (us-east-1-bos-1a) have no place here.
_ZONE = re.compile(r"^(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)(?P<letter>[a-h])$")
_LARGEST, _SMALLEST = 16, 18
_FIREWALL_PREFIX = 28  # the smallest that AWS allows, and what Network Firewall's guide asks for
# AWS takes the first four addresses of a subnet; the proxy's is one that is easy to remember.
_PROXY_HOST = 10


@dataclass(frozen=True)
class ZonePlan:
    """One zone's subnets as CIDR text, and the address of its egress proxy in the public one."""

    zone: str
    sandbox: str
    system: str
    public: str
    firewall: str
    proxy_address: str


def _range_problem(vpc_cidr: str) -> Problem | None:
    remedy = "use an IPv4 network of /16 to /18, e.g. 10.42.0.0/16"
    try:
        network = ipaddress.IPv4Network(vpc_cidr)
    except ValueError as error:
        return Problem("network", "vpc_cidr", f"{vpc_cidr!r} is not an IPv4 network: {error}", remedy)
    if not _LARGEST <= network.prefixlen <= _SMALLEST:
        return Problem("network", "vpc_cidr", f"{vpc_cidr} is a /{network.prefixlen}", remedy)
    return None


def _zone_problems(zones: Sequence[str], region: str) -> list[Problem]:
    problems = []
    if not zones:
        problems.append(Problem("network", "zones", "no zone is given", f"name at least one, e.g. {region}a"))
    for zone in sorted({zone for zone in zones if list(zones).count(zone) > 1}):
        problems.append(Problem("network", "zones", f"{zone!r} is given twice", "name each zone once"))
    for zone in zones:
        match = _ZONE.match(zone)
        if not match:
            problems.append(
                Problem("network", "zones", f"{zone!r} is not a zone name", f"e.g. {region}a; letters a to h")
            )
        elif match["region"] != region:
            problems.append(Problem("network", "zones", f"{zone!r} is not in {region}", f"use a zone of {region}"))
    return problems


def plan(vpc_cidr: str, zones: Sequence[str], region: str) -> dict[str, ZonePlan]:
    """The subnets of each zone. Raises InputError with every problem of range and zones."""
    range_problem = _range_problem(vpc_cidr)
    problems = ([range_problem] if range_problem else []) + _zone_problems(zones, region)
    if problems:
        raise InputError(problems)
    network = ipaddress.IPv4Network(vpc_cidr)
    return {zone: _zone_plan(network, zone) for zone in sorted(zones)}


def _zone_plan(network: ipaddress.IPv4Network, zone: str) -> ZonePlan:
    index = ord(zone[-1]) - ord("a")
    sandbox = _part(network, network.prefixlen + 4, index)
    system = _part(network, network.prefixlen + 5, 2 * 8 + index)
    public = _part(_part(network, network.prefixlen + 4, 12), network.prefixlen + 8, index)
    firewall = _part(_part(network, network.prefixlen + 4, 13), _FIREWALL_PREFIX, index)
    return ZonePlan(zone, str(sandbox), str(system), str(public), str(firewall), str(public[_PROXY_HOST]))


def _part(network: ipaddress.IPv4Network, prefix: int, index: int) -> ipaddress.IPv4Network:
    start = int(network.network_address) + index * 2 ** (32 - prefix)
    return ipaddress.IPv4Network((start, prefix))
