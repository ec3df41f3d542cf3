"""The address plan: keyed by zone, without overlap, and immovable."""

from __future__ import annotations

import ipaddress
import itertools

import pytest

from components.network_plan import plan
from ringfence.errors import InputError

REGION = "us-east-1"
ZONES = [f"{REGION}{letter}" for letter in "abcdefgh"]


def _networks(vpc_cidr: str) -> list[ipaddress.IPv4Network]:
    zones = plan(vpc_cidr, ZONES, REGION).values()
    return [
        ipaddress.IPv4Network(getattr(z, tier)) for z in zones for tier in ("sandbox", "system", "public", "firewall")
    ]


def test_the_documented_parts_of_a_slash_16():
    parts = plan("10.42.0.0/16", ["us-east-1b"], REGION)["us-east-1b"]
    assert parts.sandbox == "10.42.16.0/20"
    assert parts.system == "10.42.136.0/21"
    assert parts.public == "10.42.193.0/24"
    assert parts.firewall == "10.42.208.16/28"
    assert parts.proxy_address == "10.42.193.10"


@pytest.mark.parametrize("vpc_cidr", ["10.42.0.0/16", "172.20.128.0/17", "192.168.64.0/18"])
def test_no_two_subnets_overlap_and_all_lie_in_the_vpc(vpc_cidr):
    networks = _networks(vpc_cidr)
    assert all(network.subnet_of(ipaddress.IPv4Network(vpc_cidr)) for network in networks)
    assert not [pair for pair in itertools.combinations(networks, 2) if pair[0].overlaps(pair[1])]
    assert all(network.prefixlen <= 28 for network in networks)


def test_adding_a_zone_anywhere_in_the_alphabet_moves_no_other():
    before = plan("10.42.0.0/16", ["us-east-1b", "us-east-1d"], REGION)
    after = plan("10.42.0.0/16", ["us-east-1a", "us-east-1d", "us-east-1c", "us-east-1b"], REGION)
    assert {zone: after[zone] for zone in before} == before


@pytest.mark.parametrize("vpc_cidr", ["10.42.0.0/15", "10.42.0.0/19", "10.42.1.0/16", "fd00::/48", "nonsense"])
def test_a_range_that_does_not_fit_is_refused_with_a_remedy(vpc_cidr):
    with pytest.raises(InputError) as caught:
        plan(vpc_cidr, ["us-east-1a"], REGION)
    (problem,) = caught.value.problems
    assert problem.key == "vpc_cidr" and vpc_cidr in problem.message and "/16 to /18" in problem.remedy


def test_every_bad_zone_is_reported_at_once():
    with pytest.raises(InputError) as caught:
        plan("10.0.0.0/8", ["us-east-1i", "us-east-1-bos-1a", "eu-west-1a", "us-east-1a", "us-east-1a"], REGION)
    assert len(caught.value.problems) == 5


def test_no_zone_at_all_is_refused():
    with pytest.raises(InputError, match="no zone"):
        plan("10.42.0.0/16", [], REGION)
