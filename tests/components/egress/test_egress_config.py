"""The egress policy's own checks, the ports, and the rendered files as reviewed."""

from __future__ import annotations

import ipaddress
import json

import pytest

from ringfence.catalog.model import EGRESS_PORT_FIRST, EGRESS_PORT_LAST
from ringfence.egress import envoy
from ringfence.egress.policy import REFUSED_RANGES, EgressPolicy, ToolEgress
from ringfence.egress.ports import NODE_PORT, PortClaim, assign_ports, derived_port
from ringfence.errors import InputError


def _problems(*tools, nodes=()):
    with pytest.raises(InputError) as caught:
        envoy.listeners(EgressPolicy(tools, nodes))
    assert all(problem.remedy for problem in caught.value.problems)
    return [(problem.key, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "domain",
    [
        "8.8.8.8", "::1", "[::1]", "2852039166", "0x7f.1", "0177.0.0.1", "API.example.com", "example.com.", "example.com:443",
        "https://example.com", "exa_mple.com", "*", "*.com", "*.*.example.com", "a.*.example.com", "localhost",
        "metadata.google.internal", "db.local", "", "-a.example.com", f"{'a' * 64}.example.com",
    ],
)  # fmt: skip
def test_what_is_not_a_public_host_name_is_refused_when_rendered(domain):
    problems = _problems(ToolEgress("fetch", (domain,), 15001))
    assert problems and all(key == "egress.domains" and repr(domain) in message for key, message in problems)


@pytest.mark.parametrize(
    "domain", ["s3.amazonaws.com", "*.s3.us-east-1.amazonaws.com", "amazonaws.com", "x.on.aws", "sts.api.aws"]
)
def test_a_tool_reaches_no_aws_name_unless_it_is_allowed_by_name(domain):
    ((_, message),) = _problems(ToolEgress("fetch", (domain,), 15001))
    assert "every AWS account" in message
    allowed = ToolEgress("fetch", (domain,), 15001, aws_domains=(domain,))
    assert len(envoy.listeners(EgressPolicy((allowed,)))["resources"]) == 1


def test_nodes_may_reach_aws_names():
    policy = EgressPolicy((), ("api.ecr.us-east-1.amazonaws.com",))
    assert [item["name"] for item in envoy.listeners(policy)["resources"]] == ["@nodes"]


def test_every_problem_of_every_tool_is_reported_at_once():
    found = _problems(
        ToolEgress("one", ("8.8.8.8", "a.example.com", "a.example.com"), 15001),
        ToolEgress("two", ("*.com",), 15001),
        ToolEgress("two", (), 15002),
        nodes=("EXAMPLE.com",),
    )
    assert len(found) == 5


def test_a_declared_port_is_kept_and_others_follow_from_the_name():
    ports = assign_ports([PortClaim("fetch"), PortClaim("mail", 15700)])
    assert ports == {"fetch": derived_port("fetch"), "mail": 15700}


def test_a_derived_port_never_moves():
    # Fixed here on purpose: a NetworkPolicy and a running proxy must agree across releases.
    assert derived_port("web-fetch") == assign_ports([PortClaim("web-fetch")])["web-fetch"] == 15130
    assert EGRESS_PORT_FIRST <= derived_port("any") <= EGRESS_PORT_LAST
    assert not EGRESS_PORT_FIRST <= NODE_PORT <= EGRESS_PORT_LAST


def test_adding_a_tool_moves_no_port():
    names = [f"tool-{number}" for number in range(20)]
    before = assign_ports([PortClaim(name) for name in names[:10]])
    after = assign_ports([PortClaim(name) for name in names])
    assert {name: after[name] for name in before} == before


def test_a_collision_is_reported_with_a_free_port():
    seen: dict[int, str] = {}
    for number in range(2000):
        name = f"tool-{number}"
        if (other := seen.setdefault(derived_port(name), name)) != name:
            break
    with pytest.raises(InputError) as caught:
        assign_ports([PortClaim(name, where="catalog/tools/x.yaml"), PortClaim(other)])
    (problem,) = caught.value.problems
    assert problem.key == "egress.port" and name in problem.message and other in problem.message
    free = int(problem.remedy.rsplit(" ", 1)[1])
    later = max(name, other)
    mended = assign_ports([PortClaim(min(name, other)), PortClaim(later, free)])
    assert mended[later] == free and len(set(mended.values())) == 2


@pytest.mark.parametrize("port", [14999, 16000, 443])
def test_a_port_out_of_range_is_refused(port):
    with pytest.raises(InputError, match="out of range"):
        assign_ports([PortClaim("fetch", port)])


def test_the_refused_ranges_cover_everything_that_is_not_globally_reachable():
    refused = [ipaddress.IPv4Network(cidr) for cidr in REFUSED_RANGES]
    special = ipaddress.IPv4Address("0.0.0.0")._constants
    for network in [*special._private_networks, special._multicast_network, special._reserved_network]:
        assert any(network.subnet_of(cidr) for cidr in refused), network
    assert any(ipaddress.IPv4Network("100.64.0.0/10").subnet_of(cidr) for cidr in refused)
    assert not any(ipaddress.IPv4Address(public) in cidr for cidr in refused for public in ("8.8.4.4", "52.94.236.248"))


def test_the_bootstrap_depends_on_no_tool_and_has_no_admin_interface():
    bootstrap = envoy.bootstrap()
    assert "admin" not in bootstrap
    assert set(bootstrap["dynamic_resources"]) == {"lds_config"}


def test_the_rendered_files_are_the_reviewed_ones(golden, policy):
    golden("egress/bootstrap.json", envoy.text(envoy.bootstrap()))
    golden("egress/lds.json", envoy.text(envoy.listeners(policy)))


def test_the_configuration_for_one_machine_has_the_very_rules_of_the_environments(policy):
    tools = EgressPolicy(policy.tools)
    whole = envoy.on_this_machine(tools, {"fetch": 40001, "mail": 40002}, ("10.0.0.2", "2001:db8::53"))
    ours, theirs = whole["static_resources"].pop("listeners"), envoy.bootstrap()
    inner = theirs["static_resources"].pop("listeners")
    assert ours[: len(inner)] == inner
    listeners = envoy.listeners(tools)["resources"]
    addresses = [listener.pop("address")["socket_address"] for listener in ours[len(inner) :]]
    assert addresses == [{"address": "127.0.0.1", "port_value": port} for port in (40001, 40002)]
    for listener in listeners:
        assert listener.pop("address")["socket_address"]["address"] == "0.0.0.0"
        del listener["@type"]
    assert ours[len(inner) :] == [listener | {"enable_reuse_port": True} for listener in listeners]
    resolvers = whole["typed_dns_resolver_config"]["typed_config"].pop("resolvers")
    assert [item["socket_address"]["address"] for item in resolvers] == ["10.0.0.2", "2001:db8::53"]
    del theirs["typed_dns_resolver_config"]["typed_config"]["resolvers"], theirs["dynamic_resources"]
    assert whole == theirs


def test_the_text_is_the_same_whatever_order_tools_and_domains_come_in(policy):
    turned = EgressPolicy(
        tuple(ToolEgress(t.name, t.domains[::-1], t.port) for t in policy.tools[::-1]), policy.node_domains[::-1]
    )
    assert envoy.text(envoy.listeners(turned)) == envoy.text(envoy.listeners(policy))
    json.loads(envoy.text(envoy.listeners(turned)))
