"""CoreDNS where no pod may talk until a policy says so."""

from __future__ import annotations

import json

import pulumi
import pytest

from components.cluster_dns import ClusterDns, ClusterDnsArgs, coredns_network_policy_spec
from ringfence.runner.manifests import INVOCATION_LABEL


@pytest.fixture
def made(record, names):
    def make(preview=False):
        def program():
            nodes = pulumi.ComponentResource("test:index:Nodes", "nodes")
            ClusterDns("dns", ClusterDnsArgs(names, "ringfence-test", "10.42.0.0/16", "172.20.0.0/16", (nodes,)))

        return record(program, preview=preview)

    return make


def test_coredns_starts_after_its_policy_and_the_nodes(made, preview):
    recording = made(preview)
    policy = recording.one("kubernetes:networking.k8s.io/v1:NetworkPolicy")
    addon = recording.one("aws:eks/addon:Addon")
    assert policy.urn in addon.options.depends_on
    assert addon["addonName"] == "coredns"
    assert recording.unparented() == []


def test_sandboxes_get_no_answer_and_everybody_else_does():
    spec = coredns_network_policy_spec("10.42.0.0/16", "172.20.0.0/16")
    (rule,) = spec["ingress"]
    (peer,) = rule["from"]
    assert peer["namespaceSelector"]["matchExpressions"] == [{"key": INVOCATION_LABEL, "operator": "DoesNotExist"}]
    assert {(p["protocol"], p["port"]) for p in rule["ports"]} == {("UDP", 53), ("TCP", 53)}


def test_coredns_reaches_the_api_and_the_vpcs_resolver_only():
    spec = coredns_network_policy_spec("10.42.0.0/16", "172.20.0.0/16")
    reached = {
        (peer["ipBlock"]["cidr"], port["port"])
        for rule in spec["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
    }
    assert reached == {("10.42.0.0/16", 443), ("172.20.0.0/16", 443), ("10.42.0.0/16", 53), ("169.254.169.253/32", 53)}


def test_coredns_never_runs_on_a_sandbox_node(made):
    config = json.loads(made().one("aws:eks/addon:Addon")["configurationValues"])
    term = config["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == [{"matchExpressions": [{"key": "ringfence.dev/sandbox", "operator": "DoesNotExist"}]}]
