"""The cluster: who reaches it, who administers it, what it keeps secret, and what its nodes may do."""

from __future__ import annotations

import json

import pulumi
import pulumi_aws as aws
import pytest

from components.cluster import (
    Cluster,
    ClusterArgs,
    SystemNodes,
    cluster_role_trust,
    dealt_out,
    kubeconfig,
    secrets_key_use,
)
from components.encryption_key import key_policy
from ringfence.errors import InputError
from ringfence.iam.document import parse
from ringfence.versions import EKS_ADDON_VERSIONS, EKS_VERSION

EKS = "aws:eks/cluster:Cluster"
ADMINS = ("arn:aws:iam::111122223333:role/deploy", "arn:aws:iam::111122223333:role/people/ops")
SUBNETS = {"us-east-1a": "subnet-a", "us-east-1b": "subnet-b"}


@pytest.fixture
def made(record, names, computed):
    def make(preview=False, returning=None, **changes):
        def program():
            group = aws.cloudwatch.LogGroup("cluster-logs", name="/aws/eks/ringfence-test/cluster")
            args = {"vpc_id": "vpc-1", "subnet_ids": SUBNETS, "log_group": group, "admin_principal_arns": ADMINS}
            cluster = Cluster("cluster", ClusterArgs(names, **(args | changes)))
            return returning(cluster) if returning else None

        return record(program, preview=preview, computed=computed)

    return make


def test_the_api_is_private_unless_ranges_are_named(made, preview):
    vpc = made(preview).one(EKS)["vpcConfig"]
    assert vpc["endpointPrivateAccess"] is True and vpc["endpointPublicAccess"] is False
    assert "publicAccessCidrs" not in vpc
    opened = made(preview, public_access_cidrs=("198.51.100.0/24",)).one(EKS)["vpcConfig"]
    assert opened["endpointPublicAccess"] is True and opened["publicAccessCidrs"] == ["198.51.100.0/24"]
    assert opened["endpointPrivateAccess"] is True


@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "::/0", "0.0.0.0/1", "10.0.0.0/8", "all"])
def test_the_api_is_never_open_to_the_world(made, cidr):
    with pytest.raises(InputError) as caught:
        made(public_access_cidrs=("198.51.100.0/24", cidr))
    (problem,) = caught.value.problems
    assert problem.key == "public_access_cidrs" and cidr in problem.message and problem.remedy


def test_all_mistakes_are_told_at_once(made):
    with pytest.raises(InputError) as caught:
        made(
            public_access_cidrs=("0.0.0.0/0",),
            admin_principal_arns=(),
            subnet_ids={"us-east-1a": "subnet-a"},
            system_nodes=SystemNodes(count=0),
        )
    assert {p.key for p in caught.value.problems} == {
        "public_access_cidrs",
        "admin_principal_arns",
        "subnet_ids",
        "system_nodes.count",
    }


def test_the_cluster_is_pinned_protected_and_in_standard_support(made, preview):
    cluster = made(preview).one(EKS)
    assert cluster["version"] == EKS_VERSION
    assert cluster["upgradePolicy"] == {"supportType": "STANDARD"}
    assert cluster["deletionProtection"] is True and cluster.options.protect
    assert cluster["bootstrapSelfManagedAddons"] is False
    loose = made(preview, deletion_protection=False).one(EKS)
    assert loose["deletionProtection"] is False and not loose.options.protect


def test_secrets_are_encrypted_with_the_clusters_own_key(made, preview, names, unknown):
    recording = made(preview)
    encryption = recording.one(EKS)["encryptionConfig"]
    key = unknown if preview else "arn:aws:mock:us-east-1:111122223333:cluster-key"
    assert encryption == {"provider": {"keyArn": key}, "resources": ["secrets"]}
    policy = parse(key_policy(names, secrets_key_use(names)), "resource")
    assert [entry.value for entry in policy.statements[-1].principals] == [
        "arn:aws:iam::111122223333:role/ringfence-test-cluster"
    ]
    assert recording.one("aws:kms/key:Key")["enableKeyRotation"] is True


def test_the_key_waits_for_the_role_that_its_policy_names(made):
    key = made().one("aws:kms/key:Key")
    assert any("Role::cluster-role" in urn for urn in key.options.depends_on)


def test_api_calls_and_logins_are_logged_into_a_group_that_is_there_first(made, preview):
    cluster = made(preview).one(EKS)
    assert cluster["enabledClusterLogTypes"] == ["audit", "authenticator"]
    assert any("LogGroup::cluster-logs" in urn for urn in cluster.options.depends_on)


def test_only_named_principals_administer_the_cluster(made, preview):
    recording = made(preview)
    access = recording.one(EKS)["accessConfig"]
    assert access == {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False}
    entries = recording.of_type("aws:eks/accessEntry:AccessEntry")
    assert sorted(entry["principalArn"] for entry in entries) == sorted(ADMINS)
    for binding in recording.of_type("aws:eks/accessPolicyAssociation:AccessPolicyAssociation"):
        assert binding["policyArn"] == "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
        assert binding["accessScope"] == {"type": "cluster"}


def test_adding_an_administrator_touches_nobody_else(made):
    before = {r.urn for r in made(admin_principal_arns=ADMINS[:1]).resources}
    after = {r.urn for r in made().resources}
    assert before < after and len(after - before) == 2


def test_who_depends_on_the_access_waits_for_every_entry_and_its_policy(made, preview):
    def program(cluster):
        aws.cloudwatch.LogGroup("after", opts=pulumi.ResourceOptions(depends_on=cluster.access))

    after = made(preview, returning=program).one("aws:cloudwatch/logGroup:LogGroup", "after")
    waited = {urn.rpartition("::")[2] for urn in after.options.depends_on}
    roles = ("111122223333:role/deploy", "111122223333:role/people/ops")
    assert waited == {f"cluster-admin-{role}{kind}" for role in roles for kind in ("", "-policy")}


def test_add_ons_are_pinned_and_the_cni_is_strict_from_the_first_packet(made, preview):
    addons = {r["addonName"]: r for r in made(preview).of_type("aws:eks/addon:Addon")}
    assert set(addons) == {"vpc-cni", "kube-proxy", "eks-pod-identity-agent"}
    assert {n: a["addonVersion"] for n, a in addons.items()} == {n: EKS_ADDON_VERSIONS[n] for n in addons}
    config = json.loads(addons["vpc-cni"]["configurationValues"])
    assert config["enableNetworkPolicy"] == "true"
    assert config["env"]["NETWORK_POLICY_ENFORCING_MODE"] == "strict"


def test_cni_permissions_belong_to_the_cnis_pods_and_not_to_nodes(made):
    recording = made()
    (identity,) = next(r for r in recording.of_type("aws:eks/addon:Addon") if r["addonName"] == "vpc-cni")[
        "podIdentityAssociations"
    ]
    assert identity["serviceAccount"] == "aws-node"
    attached = {
        (r["role"], r["policyArn"].rpartition("/")[2])
        for r in recording.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
    }
    assert {policy for role, policy in attached if role == "ringfence-test-system-node"} == {
        "AmazonEC2ContainerRegistryPullOnly",
        "AmazonEKSWorkerNodePolicy",
    }
    assert ("ringfence-test-cni", "AmazonEKS_CNI_Policy") in attached


def test_eks_takes_the_role_for_this_cluster_only(names):
    statement = parse(cluster_role_trust(names), "trust").statements[0]
    held = {condition.key.lower(): condition.values for condition in statement.conditions}
    assert held["aws:sourcearn"] == ("arn:aws:eks:us-east-1:111122223333:cluster/ringfence-test",)
    assert held["aws:sourceaccount"] == ("111122223333",)


def test_node_credentials_stay_out_of_the_containers_reach(made, preview):
    template = made(preview).one("aws:ec2/launchTemplate:LaunchTemplate")
    metadata = template["metadataOptions"]
    assert metadata["httpTokens"] == "required" and metadata["httpPutResponseHopLimit"] == 1
    (disk,) = template["blockDeviceMappings"]
    assert disk["ebs"]["encrypted"] == "true" and disk["ebs"]["volumeType"] == "gp3"
    assert "keyName" not in template.inputs


def test_the_control_plane_stays_in_the_first_two_zones_named(made):
    zones = {"us-east-1c": "subnet-c", "us-east-1a": "subnet-a", "us-east-1b": "subnet-b"}
    assert made(subnet_ids=zones).one(EKS)["vpcConfig"]["subnetIds"] == ["subnet-c", "subnet-a"]


@pytest.mark.parametrize(
    ("nodes", "zones", "groups"),
    [
        (1, "ab", {"subnet-a": 1}),
        (2, "ab", {"subnet-a": 1, "subnet-b": 1}),
        (3, "abc", {"subnet-a": 1, "subnet-b": 1, "subnet-c": 1}),
        (5, "abcd", {"subnet-a": 2, "subnet-b": 2, "subnet-c": 1}),
    ],
)
def test_system_nodes_are_dealt_out_to_the_first_three_zones(made, nodes, zones, groups):
    subnets = {f"us-east-1{zone}": f"subnet-{zone}" for zone in zones}
    recording = made(system_nodes=SystemNodes(nodes), subnet_ids=subnets)
    made_groups = recording.of_type("aws:eks/nodeGroup:NodeGroup")
    assert {group["subnetIds"][0]: group["scalingConfig"]["desiredSize"] for group in made_groups} == groups


@pytest.mark.parametrize("nodes", range(1, 21))
def test_a_zone_added_at_the_end_moves_no_system_node(nodes):
    fewest = 2 if nodes < 3 else 3
    for zones in range(fewest, 6):
        assert dealt_out(nodes, tuple("abcdef"[:zones])) == dealt_out(nodes, tuple("abcdef"[: zones + 1]))


def test_three_system_nodes_in_two_zones_are_refused_since_a_third_zone_would_move_one(made):
    with pytest.raises(InputError) as caught:
        made(system_nodes=SystemNodes(3))
    (problem,) = caught.value.problems
    assert problem.key == "system_nodes.count" and "3 nodes in 2 zones" in problem.message
    assert problem.remedy == "name 3 zones, or have at most 2 nodes"


def test_system_nodes_start_once_the_add_ons_are_there(made):
    group = made().one("aws:eks/nodeGroup:NodeGroup")
    assert "remoteAccess" not in group.inputs
    assert group["launchTemplate"]["version"] == "7"
    waited = "".join(group.options.depends_on)
    for needed in ("vpc-cni", "kube-proxy", "eks-pod-identity-agent", "AmazonEKSWorkerNodePolicy"):
        assert needed in waited


def test_nodes_and_control_plane_open_only_what_each_needs(made):
    recording = made()
    rules = {
        r.name: (r["ipProtocol"], r.inputs.get("fromPort"))
        for kind in ("Ingress", "Egress")
        for r in recording.of_type(f"aws:vpc/securityGroup{kind}Rule:SecurityGroup{kind}Rule")
    }
    assert rules == {
        "cluster-system-to-api": ("tcp", 443), "cluster-api-to-system-kubelet": ("tcp", 10250),
        "cluster-system-kubelet": ("tcp", 10250), "cluster-system-from-system": ("-1", None),
        "cluster-system-to-system": ("-1", None), "cluster-system-api": ("tcp", 443),
        "cluster-system-https": ("tcp", 443),
    }  # fmt: skip
    for rule in recording.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"):
        assert "cidrIpv4" not in rule.inputs and "cidrIpv6" not in rule.inputs
    assert recording.one(EKS)["vpcConfig"]["securityGroupIds"] == ["cluster-control-plane-id"]
    template = recording.one("aws:ec2/launchTemplate:LaunchTemplate")
    assert template["vpcSecurityGroupIds"] == ["cluster-system-nodes-id"]


def test_the_kubeconfig_asks_for_a_token_and_holds_none(made):
    config = json.loads(made(returning=lambda cluster: cluster.kubeconfig).outputs)
    user = config["users"][0]["user"]
    assert set(user) == {"exec"} and user["exec"]["command"] == "aws"
    assert user["exec"]["args"] == [
        "eks",
        "get-token",
        "--cluster-name",
        "ringfence-test",
        "--region",
        "us-east-1",
        "--output",
        "json",
    ]
    assert config["clusters"][0]["cluster"] == {
        "server": "https://ABC.gr7.us-east-1.eks.amazonaws.com",
        "certificate-authority-data": "Q0E=",
    }
    assert config == json.loads(
        kubeconfig("ringfence-test", "us-east-1", "https://ABC.gr7.us-east-1.eks.amazonaws.com", "Q0E=")
    )


def test_the_name_is_known_at_preview_and_everything_hangs_on_the_component(made):
    recording = made(preview=True, returning=lambda c: {"name": c.cluster_name, "alias": c.key_alias})
    assert recording.outputs == {"name": "ringfence-test", "alias": "alias/ringfence/test/cluster"}
    assert [r.name for r in recording.unparented()] == ["cluster-logs"]


def test_adding_a_zone_adds_no_resource(made):
    before = {r.urn for r in made().resources}
    after = {r.urn for r in made(subnet_ids={**SUBNETS, "us-east-1c": "subnet-c"}).resources}
    assert before == after
