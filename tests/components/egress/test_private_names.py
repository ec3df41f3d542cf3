"""An interface endpoint must not take from the proxy what sandboxes or their nodes reach by it."""

from __future__ import annotations

import pytest

from components.gvisor_user_data import node_hosts
from ringfence.egress.policy import EgressPolicy, ToolEgress
from ringfence.egress.private_names import NODE_SERVICES, endpoint_names, endpoint_problems
from ringfence.names import Names

NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
TOOLS = (
    ToolEgress("tickets", ("dynamodb.us-east-1.amazonaws.com",)),
    ToolEgress("reports", ("reports-111122223333.s3.us-east-1.amazonaws.com",)),
    ToolEgress("fetch", ("docs.example.com", "*.wild.example.com")),
)
POLICY = EgressPolicy(TOOLS, node_hosts(NAMES))


def _taken(*services: str) -> list[str]:
    return [problem.message for problem in endpoint_problems(services, POLICY, NAMES)]


def test_the_services_of_sandbox_nodes_are_those_whose_hosts_the_nodes_listener_opens():
    """What the settings refuse by name is exactly what is behind the nodes' hosts, in every partition."""
    for names in (NAMES, Names("ringfence", "test", "111122223333", "cn-north-1", "aws-cn")):
        hosts = node_hosts(names)
        behind = {
            service: [
                host
                for host in hosts
                if any(f".{host}".endswith(f".{name}") for name in endpoint_names(service, names))
            ]
            for service in NODE_SERVICES
        }
        assert all(behind.values()), behind
        assert {host for found in behind.values() for host in found} == set(hosts)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("ecr.api", "ecr.api takes api.ecr.us-east-1.amazonaws.com from sandbox nodes"),
        ("ecr.dkr", "ecr.dkr takes 111122223333.dkr.ecr.us-east-1.amazonaws.com from sandbox nodes"),
        ("ec2", "ec2 takes ec2.us-east-1.amazonaws.com from sandbox nodes"),
        ("eks-auth", "eks-auth takes eks-auth.us-east-1.api.aws from sandbox nodes"),
        ("dynamodb", "dynamodb takes dynamodb.us-east-1.amazonaws.com from tool tickets"),
        ("s3", "s3 takes reports-111122223333.s3.us-east-1.amazonaws.com from tool reports"),
    ],
)
def test_an_endpoint_that_takes_a_host_from_the_proxy_is_told_with_whom_it_is_taken_from(service, said):
    assert said in _taken(service)


def test_endpoints_of_services_that_nobody_reaches_by_the_proxy_are_fine():
    assert _taken("sts", "logs", "kms", "monitoring", "ssm") == []
    # Not every name that ends alike is below another.
    assert endpoint_problems(["2"], POLICY, NAMES) == []
