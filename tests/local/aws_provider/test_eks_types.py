"""Every EKS type, through its whole life against the real server."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.local.providers.base import UNKNOWN
from tests.local.aws_provider.documents import ACCOUNT, key, role, subnet, vpc
from tests.local.aws_provider.life_cycle import Case, Made, World, live

VIEW = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
ADMIN = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"


def _subnets(world: World) -> list[str]:
    network = vpc(world)
    return [subnet(world, network).id, subnet(world, network, "10.0.1.0/24", "b").id]


def cluster(world: World) -> Made:
    """A cluster."""
    return world.make(
        "aws:eks/cluster:Cluster",
        name=world.name("cluster"),
        roleArn=role(world, "eks.amazonaws.com")["arn"],
        vpcConfig={"subnetIds": _subnets(world)},
        accessConfig={"authenticationMode": "API"},
    )


def entry(world: World) -> Made:
    """A principal that may use a cluster."""
    return world.make("aws:eks/accessEntry:AccessEntry", clusterName=cluster(world).id, principalArn=role(world)["arn"])


def _cluster(world: World) -> dict[str, Any]:
    return {
        "name": world.name("cluster"),
        "roleArn": role(world, "eks.amazonaws.com")["arn"],
        "version": "1.34",
        "vpcConfig": {"subnetIds": _subnets(world), "endpointPrivateAccess": True, "endpointPublicAccess": False},
        "kubernetesNetworkConfig": {"serviceIpv4Cidr": "172.20.0.0/16", "ipFamily": "ipv4"},
        "encryptionConfig": {"provider": {"keyArn": key(world)["arn"]}, "resources": ["secrets"]},
        "enabledClusterLogTypes": ["authenticator", "audit"],
        "accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False},
        "upgradePolicy": {"supportType": "STANDARD"},
        "bootstrapSelfManagedAddons": False,
        "deletionProtection": False,
        "tags": {"a": "b"},
    }


def _node_group(world: World) -> dict[str, Any]:
    template = world.make(
        "aws:ec2/launchTemplate:LaunchTemplate", name=world.name("template"), metadataOptions={"httpTokens": "required"}
    )
    return {
        "clusterName": cluster(world).id,
        "nodeGroupName": "gvisor",
        "nodeRoleArn": role(world)["arn"],
        "subnetIds": _subnets(world),
        "amiType": "AL2023_ARM_64_STANDARD",
        "capacityType": "SPOT",
        "instanceTypes": ["t4g.medium", "t4g.large"],
        "launchTemplate": {"id": template.id, "version": "1"},
        "scalingConfig": {"minSize": 0, "maxSize": 4, "desiredSize": 1},
        "updateConfig": {"maxUnavailable": 1},
        "labels": {"ringfence.dev/sandbox": "true"},
        "taints": [{"key": "ringfence.dev/sandbox", "value": "true", "effect": "NO_SCHEDULE"}],
        "tags": {"a": "b"},
    }


def _scaling_group(world: World) -> str:
    made = world.make("aws:eks/nodeGroup:NodeGroup", **_node_group(world))
    return made["resources"][0]["autoscalingGroups"][0]["name"]


def _retag(world: World, made: Made) -> Any:
    tag = {"ResourceId": made["autoscalingGroupName"], "ResourceType": "auto-scaling-group"}
    tag |= {"Key": "k8s.io/label", "Value": "mine", "PropagateAtLaunch": True}
    return world.client("autoscaling").create_or_update_tags(Tags=[tag])


def _eks(operation: str, **parameters: Any) -> Any:
    def act(world: World, made: Made) -> Any:
        given = {name: value(made) if callable(value) else value for name, value in parameters.items()}
        return getattr(world.client("eks"), operation)(**given)

    return act


def _in_cluster(made: Made) -> str:
    return made["clusterName"]


CASES = [
    Case(
        "aws:eks/cluster:Cluster",
        _cluster,
        update={"enabledClusterLogTypes": ["audit"], "deletionProtection": True, "tags": {"a": "c"}},
        replace={"kubernetesNetworkConfig": {"serviceIpv4Cidr": "10.100.0.0/16", "ipFamily": "ipv4"}},
        drift=_eks("update_cluster_config", name=lambda made: made.id, deletionProtection=False),
        drifted="deletionProtection",
        # EKS doesn't say whether a cluster was made with its own add-ons.
        importable=False,
        # Mended it would be protected again, and could not be deleted.
        mended=False,
    ),
    Case(
        "aws:eks/cluster:Cluster",
        _cluster,
        update=lambda world: {
            "version": "1.35",
            "upgradePolicy": {"supportType": "EXTENDED"},
            "vpcConfig": {**next(one for one in world.made if one.type.endswith(":Cluster")).inputs["vpcConfig"]}
            | {"endpointPublicAccess": True, "publicAccessCidrs": ["192.0.2.0/24"]},
        },
        replace={"bootstrapSelfManagedAddons": True},
        drift=_eks(
            "update_cluster_config",
            name=lambda made: made.id,
            resourcesVpcConfig={"publicAccessCidrs": ["0.0.0.0/0"], "endpointPublicAccess": True},
        ),
        drifted="vpcConfig.publicAccessCidrs",
        importable=False,
    ),
    Case(
        "aws:eks/nodeGroup:NodeGroup",
        _node_group,
        update={
            "scalingConfig": {"minSize": 1, "maxSize": 5, "desiredSize": 1},
            "labels": {"other": "true"},
            "taints": [],
            "tags": {"a": "c"},
        },
        replace={"amiType": "AL2023_x86_64_STANDARD"},
        drift=_eks(
            "update_nodegroup_config",
            clusterName=_in_cluster,
            nodegroupName="gvisor",
            scalingConfig={"minSize": 1, "maxSize": 50, "desiredSize": 1},
        ),
        drifted="scalingConfig.maxSize",
    ),
    Case(
        "aws:eks/addon:Addon",
        lambda world: {
            "clusterName": cluster(world).id,
            "addonName": "vpc-cni",
            "addonVersion": "v1.20.4-eksbuild.1",
            "configurationValues": '{"env": {"NETWORK_POLICY_ENFORCING_MODE": "strict"}}',
            "podIdentityAssociations": [{"roleArn": role(world)["arn"], "serviceAccount": "aws-node"}],
            "resolveConflictsOnCreate": "OVERWRITE",
            "resolveConflictsOnUpdate": "OVERWRITE",
            "tags": {"a": "b"},
        },
        update={"addonVersion": "v1.21.0-eksbuild.1", "configurationValues": "{}", "tags": {"a": "c"}},
        replace={"addonName": "coredns"},
        drift=_eks("update_addon", clusterName=_in_cluster, addonName="vpc-cni", configurationValues='{"env": {}}'),
        drifted="configurationValues",
    ),
    Case(
        "aws:eks/accessEntry:AccessEntry",
        lambda world: {
            "clusterName": cluster(world).id,
            "principalArn": role(world)["arn"],
            "kubernetesGroups": ["viewers"],
            "tags": {"a": "b"},
        },
        update={"kubernetesGroups": ["operators"], "tags": {"a": "c"}},
        replace={"type": "EC2_LINUX"},
        drift=_eks(
            "update_access_entry",
            clusterName=_in_cluster,
            principalArn=lambda made: made["principalArn"],
            kubernetesGroups=["system:masters-like"],
        ),
        drifted="kubernetesGroups",
    ),
    Case(
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        lambda world: {
            "clusterName": (made := entry(world))["clusterName"],
            "principalArn": made["principalArn"],
            "policyArn": VIEW,
            "accessScope": {"type": "namespace", "namespaces": ["sandbox-a", "sandbox-b"]},
        },
        replace={"policyArn": ADMIN},
        drift=_eks(
            "disassociate_access_policy",
            clusterName=_in_cluster,
            principalArn=lambda made: made["principalArn"],
            policyArn=VIEW,
        ),
        drifted="gone",
    ),
    Case(
        "aws:eks/podIdentityAssociation:PodIdentityAssociation",
        lambda world: {
            "clusterName": cluster(world).id,
            "namespace": "ringfence-system",
            "serviceAccount": "broker",
            "roleArn": role(world)["arn"],
            "tags": {"a": "b"},
        },
        update=lambda world: {"roleArn": role(world)["arn"], "tags": {"a": "c"}},
        replace={"namespace": "other"},
        drift=_eks(
            "update_pod_identity_association",
            clusterName=_in_cluster,
            associationId=lambda made: made.id,
            roleArn=f"arn:aws:iam::{ACCOUNT}:role/other",
        ),
        drifted="roleArn",
        importable=False,
    ),
    Case(
        "aws:autoscaling/tag:Tag",
        lambda world: {
            "autoscalingGroupName": _scaling_group(world),
            "tag": {"key": "k8s.io/label", "value": "true", "propagateAtLaunch": False},
        },
        update={"tag": {"key": "k8s.io/label", "value": "false", "propagateAtLaunch": False}},
        replace={"tag": {"key": "other", "value": "true", "propagateAtLaunch": False}},
        drift=_retag,
        drifted="tag.propagateAtLaunch",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_eks_resource_lives_drifts_and_dies(world: World, case: Case) -> None:
    live(world, case)


def test_what_eks_adds_to_a_cluster_is_unknown_at_preview_and_known_after(world: World) -> None:
    declared = {
        "name": world.name("cluster"),
        "roleArn": role(world)["arn"],
        "vpcConfig": {"subnetIds": _subnets(world)},
    }
    _, preview = world.backend.create("aws:eks/cluster:Cluster", "urn::c", declared, True)
    assert preview["vpcConfig"]["clusterSecurityGroupId"] is UNKNOWN
    assert preview["endpoint"] is UNKNOWN
    assert preview["arn"] == f"arn:aws:eks:us-east-1:{ACCOUNT}:cluster/{declared['name']}"
    made = world.make("aws:eks/cluster:Cluster", **declared)
    assert made["endpoint"].startswith("https://")
    assert made["certificateAuthority"]["data"]
    assert made["vpcConfig"]["subnetIds"] == declared["vpcConfig"]["subnetIds"]
    assert made["identities"][0]["oidcs"][0]["issuer"].startswith("https://")


def test_a_value_that_eks_does_not_know_is_refused_with_those_that_it_knows(world: World) -> None:
    declared = {"clusterName": "c", "addonName": "a", "resolveConflictsOnCreate": "MAYBE"}
    _, failures = world.backend.check("aws:eks/addon:Addon", "urn::a", {}, declared, b"0123")
    assert [failure.property for failure in failures] == ["resolveConflictsOnCreate"]
    assert "OVERWRITE" in failures[0].reason
