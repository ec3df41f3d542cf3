"""The whole environment as registered: what waits for what, on both targets, and what one more zone adds in production."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from ringfence.catalog import load as load_catalog
from ringfence.settings import load as load_settings
from stacks.environment import Environment
from tests.components.conftest import Recorder, Recording
from tests.environment.conftest import PROJECT

PRODUCTION = {"profile": "production", "sandboxMinOnDemandNodes": 1, "sandboxMaxOnDemandNodes": 2}
LEAN = {"profile": "lean"}
PROVIDER = "pulumi:providers:kubernetes"


def computed(type_: str, name: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """What providers compute that other components go on to use."""
    known = {
        "aws:eks/cluster:Cluster": {"endpoint": "https://api.example.com", "certificateAuthority": {"data": "Q0E="}},
        "aws:ec2/launchTemplate:LaunchTemplate": {"latestVersion": 7},
        "random:index/randomBytes:RandomBytes": {"base64": base64.b64encode(name.encode() * 32).decode()[:43] + "="},
    }
    if type_ == "aws:eks/nodeGroup:NodeGroup":
        return {"resources": [{"autoscalingGroups": [{"name": f"eks-{inputs['nodeGroupName']}-0a1b"}]}]}
    return known.get(type_, {})


@cache
def registered(target: str, profile: str, zones: str, preview: bool) -> Recording:
    """Everything that a stack with these settings registers."""
    settings = load_settings(
        (PRODUCTION if profile == "production" else LEAN)
        | {
            "accountId": "123456789012",
            "target": target,
            "clusterAdmins": [f"arn:aws:iam::123456789012:role/{role}" for role in ("operators", "deploy")],
            "availabilityZones": [f"us-east-1{zone}" for zone in zones],
        },
        "test",
    )
    catalog = load_catalog(PROJECT / "catalog")
    return Recorder()(lambda: Environment(settings, catalog).export(), preview=preview, computed=computed)


STACKS = {
    "production on AWS, preview": ("aws", "production", "abc", True),
    "production on AWS, up": ("aws", "production", "abc", False),
    "lean on one machine, up": ("embedded", "lean", "ab", False),
}


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Recording:
    return registered(*STACKS[request.param])


def names(urns: tuple[str, ...], type_: str) -> set[str]:
    """Logical names of the resources of a type."""
    return {urn.rpartition("::")[2] for urn in urns if f"{type_}::" in urn}


def test_every_kubernetes_object_goes_through_the_one_provider_that_waits_for_access(stack: Recording):
    """The engine makes a resource after its provider and what that depends on, and deletes it before them."""
    provider = stack.one(PROVIDER)
    objects = [resource for resource in stack.resources if resource.type.startswith("kubernetes:")]
    assert len(objects) > 50
    assert {resource.options.provider.rpartition("::")[0] for resource in objects} == {provider.urn}


@pytest.mark.parametrize(
    "type_",
    [
        "aws:eks/accessEntry:AccessEntry",
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        "aws:eks/nodeGroup:NodeGroup",
    ],
)
def test_the_provider_waits_for_every_administrators_access_and_the_system_nodes(stack: Recording, type_: str):
    waited = names(stack.one(PROVIDER).options.depends_on, type_)
    assert waited == {resource.name for resource in stack.of_type(type_) if resource.name.startswith("cluster-")}
    assert waited


def test_the_kubeconfig_is_the_clusters_own_on_aws_and_known_when_the_cluster_is():
    provider = registered("aws", "production", "abc", False).one(PROVIDER)
    assert "https://api.example.com" in provider["kubeconfig"]


def test_no_up_waits_for_a_sandbox_node(stack: Recording):
    groups = [group for group in stack.of_type("aws:eks/nodeGroup:NodeGroup") if group.name.startswith("gvisor-")]
    assert {(group["scalingConfig"]["minSize"], group["scalingConfig"]["desiredSize"]) for group in groups} == {(0, 0)}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("production on AWS, preview", ["UNKNOWN"]),
        ("production on AWS, up", ["--nodes=1:2:eks-ringfence-test-sandbox-on-demand-us-east-1a-0a1b"]),
        ("lean on one machine, up", []),
    ],
)
def test_the_autoscaler_keeps_the_nodes_that_always_run(name: str, told: list[str]):
    deployment = registered(*STACKS[name]).one("kubernetes:apps/v1:Deployment", "autoscaler-deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    words = [str(word) for word in container["command"]]
    assert [word for word in words if word.startswith("--nodes=") or word == "UNKNOWN"] == told


def test_one_more_zone_in_production_adds_that_zones_own_and_its_proxys_address_for_sandboxes():
    """Equal inputs are no step of the engine: what is registered alike stays as it is."""
    before, after = (
        {resource.urn: resource for resource in registered("aws", "production", zones, True).resources}
        for zones in ("abc", "abcd")
    )
    changed = {before[urn].name for urn in before if after.get(urn) and before[urn].inputs != after[urn].inputs}
    assert set(before) - set(after) == set()
    assert changed == {"sandbox-unit"}
    assert {"egress-us-east-1d", "gvisor-spot-us-east-1d", "network-system-us-east-1d"} <= {
        after[urn].name for urn in set(after) - set(before)
    }
    assert all("us-east-1d" in urn for urn in set(after) - set(before))
