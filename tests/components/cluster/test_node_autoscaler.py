"""The autoscaler: resizes the sandbox pool, and can do nothing else."""

from __future__ import annotations

import pytest

from components.node_autoscaler import NodeAutoscaler, NodeAutoscalerArgs, autoscaler_document
from components.node_autoscaler_manifests import cluster_rules, namespace_rules, network_policy_spec
from ringfence.iam.document import parse
from ringfence.iam.evaluate import evaluate
from ringfence.iam.model import Permissions
from ringfence.iam.request import Request

TAG = "aws:ResourceTag/ringfence.dev/autoscaled-by/ringfence-test"
SPOT_GROUP = (
    "arn:aws:autoscaling:us-east-1:111122223333:autoScalingGroup:0a1b:"
    "autoScalingGroupName/eks-ringfence-test-sandbox-spot-0a1b"
)


@pytest.fixture
def made(record, names):
    def make(preview=False, **changes):
        args = NodeAutoscalerArgs(names, "ringfence-test", "10.42.0.0/16", "172.20.0.0/16", **changes)
        return record(lambda: NodeAutoscaler("autoscaler", args), preview=preview)

    return make


def _permits(names, action, resource, **context):
    document = parse(autoscaler_document(names, "ringfence-test"))
    values = {key: (value,) for key, value in ({"aws:RequestedRegion": "us-east-1"} | context).items()}
    return evaluate(Permissions((document,)), Request(action, resource, values)).allowed


def test_the_autoscaler_resizes_tagged_groups_only(names):
    for action in ("autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"):
        assert _permits(names, action, SPOT_GROUP, **{TAG: "owned"})
        assert not _permits(names, action, SPOT_GROUP)
        assert not _permits(names, action, SPOT_GROUP, **{TAG.replace("-test", "-prod"): "owned"})


@pytest.mark.parametrize(
    "action",
    [
        "autoscaling:UpdateAutoScalingGroup",
        "autoscaling:CreateOrUpdateTags",
        "ec2:RunInstances",
        "ec2:TerminateInstances",
        "iam:PassRole",
    ],
)
def test_the_autoscaler_changes_nothing_else(names, action):
    assert not _permits(names, action, SPOT_GROUP, **{TAG: "owned"})


def test_the_autoscaler_reads_its_own_pools_node_groups(names):
    arn = "arn:aws:eks:us-east-1:111122223333:nodegroup/ringfence-test/ringfence-test-sandbox-spot/0a1b"
    assert _permits(names, "eks:DescribeNodegroup", arn)
    assert not _permits(names, "eks:DescribeNodegroup", arn.replace("sandbox-spot", "system"))


def test_the_autoscaler_reads_no_secret_and_writes_only_what_it_needs():
    for rule in cluster_rules() + namespace_rules():
        assert "secrets" not in rule["resources"] and "*" not in rule["resources"] + rule["verbs"] + rule["apiGroups"]
    writes = {
        (resource, verb)
        for rule in cluster_rules()
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in ("get", "list", "watch")
    }
    assert writes == {
        ("nodes", "patch"),
        ("nodes", "update"),
        ("pods/eviction", "create"),
        ("events", "create"),
        ("events", "patch"),
    }
    for rule in namespace_rules():
        assert rule.get("resourceNames") or set(rule["verbs"]) <= {"create", "list", "watch"}


def test_nobody_reaches_the_autoscaler_and_node_credentials_are_out_of_its_reach():
    spec = network_policy_spec("10.42.0.0/16", "172.20.0.0/16")
    assert spec["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in spec
    wide = next(rule for rule in spec["egress"] if rule["to"][0]["ipBlock"]["cidr"] == "0.0.0.0/0")
    assert wide["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]
    assert wide["ports"] == [{"protocol": "TCP", "port": 443}]


def test_the_autoscaler_runs_restricted_by_digest_and_off_the_sandbox_nodes(made, preview):
    spec = made(preview).one("kubernetes:apps/v1:Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert "@sha256:" in container["image"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    term = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term[0]["matchExpressions"][0] == {"key": "ringfence.dev/sandbox", "operator": "DoesNotExist"}


def test_the_autoscaler_looks_for_the_tag_that_the_pool_carries_and_prefers_spot(made):
    recording = made()
    (container,) = recording.one("kubernetes:apps/v1:Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--node-group-auto-discovery=asg:tag=ringfence.dev/autoscaled-by/ringfence-test" in container["command"]
    priorities = recording.one("kubernetes:core/v1:ConfigMap")["data"]["priorities"]
    assert priorities == (
        "20:\n  - ^eks-ringfence-test-sandbox-spot-.*\n10:\n  - ^eks-ringfence-test-sandbox-on-demand-.*\n"
    )


def test_the_role_is_bound_to_the_autoscalers_service_account(made, preview):
    recording = made(preview)
    binding = recording.one("aws:eks/podIdentityAssociation:PodIdentityAssociation")
    account = recording.one("kubernetes:core/v1:ServiceAccount")["metadata"]
    assert (binding["namespace"], binding["serviceAccount"]) == (account["namespace"], account["name"])
    assert recording.unparented() == []


def test_groups_that_are_never_empty_are_filled_by_the_autoscaler(made, preview):
    recording = made(preview, always_on=("1:2:eks-ringfence-test-sandbox-on-demand-us-east-1a-0a1b",))
    command = _command(recording)
    assert "--nodes=1:2:eks-ringfence-test-sandbox-on-demand-us-east-1a-0a1b" in command
    # Without it a minimum is only a bound for scaling down, and nothing starts the first node.
    assert "--enforce-node-group-min-size=true" in command
    assert not any(argument.startswith("--nodes=") for argument in _command(made()))


def _command(recording):
    (container,) = recording.one("kubernetes:apps/v1:Deployment")["spec"]["template"]["spec"]["containers"]
    return container["command"]
