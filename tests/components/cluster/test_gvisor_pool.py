"""The sandbox pool: what runs there, what the nodes reach, and that the pool is empty until needed."""

from __future__ import annotations

import base64

import pytest

from components.gvisor_pool import GvisorPool, GvisorPoolArgs, PoolSize, ProxyEndpoint, schedulable_storage
from components.gvisor_user_data import NodeSpec, user_data
from ringfence.errors import InputError
from ringfence.runner import manifests
from ringfence.runner.places import GATEWAY_PORT

SUBNETS = {"us-east-1a": "subnet-a", "us-east-1b": "subnet-b"}
GROUP = "aws:eks/nodeGroup:NodeGroup"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"


@pytest.fixture
def made(record, names, computed):
    def make(preview=False, returning=None, **changes):
        def program():
            args = {
                "cluster_name": "ringfence-test", "vpc_id": "vpc-1", "vpc_cidr": "10.42.0.0/16", "subnet_ids": SUBNETS,
                "control_plane_security_group_id": "sg-api", "system_security_group_id": "sg-system",
                "s3_prefix_list_id": "pl-s3",
                "proxy": ProxyEndpoint("egress.ringfence-test.internal", 15000, (15001, 15999), "sg-proxy"),
            }  # fmt: skip
            pool = GvisorPool("pool", GvisorPoolArgs(names, **(args | changes)))
            return returning(pool) if returning else None

        return record(program, preview=preview, computed=computed)

    return make


def test_the_pool_is_spot_and_on_demand_tainted_and_scaled_to_zero(made, preview):
    groups = {(group["capacityType"], *group["subnetIds"]): group for group in made(preview).of_type(GROUP)}
    assert set(groups) == {(kind, subnet) for kind in ("SPOT", "ON_DEMAND") for subnet in SUBNETS.values()}
    for group in groups.values():
        assert group["taints"] == [{"key": "ringfence.dev/sandbox", "value": "gvisor", "effect": "NO_SCHEDULE"}]
        assert (group["scalingConfig"]["minSize"], group["scalingConfig"]["desiredSize"]) == (0, 0)
        assert group["amiType"] == "AL2023_ARM_64_STANDARD"
        assert "remoteAccess" not in group.inputs
        assert group.options.ignore_changes == ("scalingConfig.desiredSize",)


def test_a_node_gets_the_label_from_its_boot_and_never_from_eks(made):
    assert all("labels" not in group.inputs for group in made().of_type(GROUP))


TEMPLATE = "k8s.io/cluster-autoscaler/node-template"


def test_an_empty_group_tells_the_autoscaler_what_its_nodes_will_have(made):
    tags = {
        (r["autoscalingGroupName"], r["tag"]["key"]): r["tag"]["value"]
        for r in made().of_type("aws:autoscaling/tag:Tag")
    }
    groups = [f"eks-ringfence-test-sandbox-{kind}-{zone}-0a1b" for kind in ("spot", "on-demand") for zone in SUBNETS]
    told = {
        f"{TEMPLATE}/label/ringfence.dev/sandbox": "gvisor",
        f"{TEMPLATE}/taint/ringfence.dev/sandbox": "gvisor:NoSchedule",
        f"{TEMPLATE}/resources/ephemeral-storage": "43Gi",
        "ringfence.dev/autoscaled-by/ringfence-test": "owned",
    }
    assert tags == {(group, key): value for group in groups for key, value in told.items()}


def test_what_every_sandbox_must_ask_for_is_what_an_empty_group_is_known_to_have(made):
    """Cluster Autoscaler knows cpu and memory of an instance type; of everything else only what a tag says."""
    (bounds,) = manifests.limit_range("sandbox-1", manifests.UnitLimits())["spec"]["limits"]
    asked = set(bounds["max"]) - {"cpu", "memory"}
    selected = made().one("kubernetes:node.k8s.io/v1:RuntimeClass")["scheduling"]["nodeSelector"]
    keys = {r["tag"]["key"] for r in made().of_type("aws:autoscaling/tag:Tag")}
    assert asked == {"ephemeral-storage"}
    assert {f"{TEMPLATE}/resources/{resource}" for resource in asked} <= keys
    assert {f"{TEMPLATE}/label/{label}" for label in selected} <= keys


@pytest.mark.parametrize(("disk", "said"), [(20, "16Gi"), (50, "43Gi"), (100, "88Gi")])
def test_an_empty_group_never_promises_more_storage_than_its_nodes_give(made, disk, said):
    """kubelet: what the file system has, less 1 GiB reserved, less the tenth below which it evicts."""
    tags = {
        r["tag"]["value"]
        for r in made(disk_gib=disk).of_type("aws:autoscaling/tag:Tag")
        if "storage" in r["tag"]["key"]
    }
    file_system = disk * 0.99
    assert tags == {said} == {schedulable_storage(disk)}
    assert int(said.removesuffix("Gi")) <= file_system * 0.9 - 1


def test_a_capacity_type_without_nodes_is_not_made(made):
    recording = made(on_demand=PoolSize(0, 0), spot=PoolSize(1, 3))
    assert {group["capacityType"] for group in recording.of_type(GROUP)} == {"SPOT"}


def test_nodes_that_always_run_are_the_autoscalers_in_the_zone_named_first(made, preview, unknown):
    recording = made(
        preview, returning=lambda pool: pool.always_on, on_demand=PoolSize(0, 0), spot=PoolSize(1, 3),
        subnet_ids=dict(reversed(SUBNETS.items())),
    )  # fmt: skip
    assert recording.outputs == [unknown if preview else "1:3:eks-ringfence-test-sandbox-spot-us-east-1b-0a1b"]


def test_no_up_waits_for_a_sandbox_node_that_waits_for_the_mirror(made, preview):
    recording = made(preview, on_demand=PoolSize(1, 3), spot=PoolSize(2, 3))
    sizes = [group["scalingConfig"] for group in recording.of_type(GROUP)]
    assert sizes == [{"minSize": 0, "maxSize": 3, "desiredSize": 0}] * 4


def test_without_nodes_that_always_run_the_autoscaler_is_told_of_none(made):
    assert made(returning=lambda pool: pool.always_on).outputs == []


def test_one_more_zone_leaves_the_other_zones_groups_as_they_are(made):
    before = {group.name: group.inputs for group in made().of_type(GROUP)}
    after = {group.name: group.inputs for group in made(subnet_ids=SUBNETS | {"us-east-1c": "subnet-c"}).of_type(GROUP)}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"pool-spot-us-east-1c", "pool-on-demand-us-east-1c"}


def test_nodes_boot_with_the_rendered_user_data_and_keep_their_credentials(made, preview, names):
    template = made(preview).one("aws:ec2/launchTemplate:LaunchTemplate")
    spec = NodeSpec(names, "aarch64", "egress.ringfence-test.internal", 15000, "10.42.0.0/16", "172.20.0.0/16")
    assert base64.b64decode(template["userData"]).decode() == user_data(spec)
    assert template["metadataOptions"]["httpTokens"] == "required"
    assert template["metadataOptions"]["httpPutResponseHopLimit"] == 1
    assert template["blockDeviceMappings"][0]["ebs"]["encrypted"] == "true"
    assert "keyName" not in template.inputs and "imageId" not in template.inputs


def test_the_other_architecture_gets_its_own_image_and_release(made):
    recording = made(architecture="x86_64", instance_types=("m7i.large",))
    assert {group["amiType"] for group in recording.of_type(GROUP)} == {"AL2023_x86_64_STANDARD"}
    text = base64.b64decode(recording.one("aws:ec2/launchTemplate:LaunchTemplate")["userData"]).decode()
    assert "/x86_64/gvisor.tar.bz2" in text


def test_the_runtime_class_brings_sandboxes_to_verified_nodes_and_counts_their_cost(made, preview):
    runtime = made(preview).one("kubernetes:node.k8s.io/v1:RuntimeClass")
    assert (runtime["metadata"]["name"], runtime["handler"]) == ("gvisor", "runsc")
    assert runtime["scheduling"]["nodeSelector"] == {"ringfence.dev/sandbox": "gvisor"}
    (toleration,) = runtime["scheduling"]["tolerations"]
    assert toleration == {
        "key": "ringfence.dev/sandbox",
        "operator": "Equal",
        "value": "gvisor",
        "effect": "NoSchedule",
    }
    assert set(runtime["overhead"]["podFixed"]) == {"cpu", "memory"}


def test_a_sandbox_node_reaches_the_proxy_the_api_s3_and_the_named_system_ports_only(made):
    recording = made(system_ports=(4317, 8443))
    own = "pool-sandbox-id"
    out = sorted(
        (
            rule.inputs.get("referencedSecurityGroupId") or rule.inputs.get("prefixListId"),
            rule["fromPort"],
            rule["toPort"],
        )
        for rule in recording.of_type(EGRESS)
        if rule["securityGroupId"] == own
    )
    assert out == [
        ("pl-s3", 443, 443),
        ("sg-api", 443, 443),
        ("sg-proxy", 15000, 15000),
        ("sg-proxy", 15001, 15999),
        ("sg-system", 4317, 4317),
        ("sg-system", 8443, 8443),
    ]
    for rule in recording.of_type(EGRESS) + recording.of_type(INGRESS):
        assert rule["ipProtocol"] == "tcp"
        assert "cidrIpv4" not in rule.inputs and "cidrIpv6" not in rule.inputs


def test_only_the_api_server_reaches_a_sandbox_node_and_only_its_kubelet(made):
    own = [rule for rule in made().of_type(INGRESS) if rule["securityGroupId"] == "pool-sandbox-id"]
    assert [(r["referencedSecurityGroupId"], r["fromPort"], r["toPort"]) for r in own] == [("sg-api", 10250, 10250)]


def test_every_way_out_has_its_way_in_at_the_peer(made):
    recording = made()
    ways_in = {
        (r["securityGroupId"], r["fromPort"], r["toPort"])
        for r in recording.of_type(INGRESS)
        if r["referencedSecurityGroupId"] == "pool-sandbox-id"
    }
    assert ways_in == {
        ("sg-api", 443, 443),
        ("sg-proxy", 15000, 15000),
        ("sg-proxy", 15001, 15999),
        ("sg-system", 4317, 4317),
        ("sg-system", GATEWAY_PORT, GATEWAY_PORT),
    }


def test_the_nodes_role_reads_the_release_and_pulls_images_and_no_more(made, identity_of):
    recording = made()
    policy = recording.one("aws:iam/rolePolicy:RolePolicy")
    release = "arn:aws:s3:::ringfence-test-artifacts-111122223333-us-east-1/gvisor/20260928.0/aarch64/gvisor.tar.bz2"
    assert identity_of(policy["policy"], "s3:GetObject", release)
    assert not identity_of(policy["policy"], "s3:PutObject", release)
    attached = {
        r["policyArn"].rpartition("/")[2]
        for r in recording.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
    }
    assert attached == {"AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodePolicy"}


def test_nodes_start_after_their_rules_and_permissions(made):
    for group in made().of_type(GROUP):
        waited = "".join(group.options.depends_on)
        assert "sandbox-to-node-proxy" in waited and "node-own" in waited


def test_names_are_known_at_preview_and_everything_hangs_on_the_component(made):
    recording = made(preview=True, returning=lambda p: [p.node_group_names, p.node_role_arn, p.runtime_class])
    assert recording.outputs == [
        [f"ringfence-test-sandbox-{kind}-{zone}" for kind in ("spot", "on-demand") for zone in SUBNETS],
        "arn:aws:iam::111122223333:role/ringfence-test-sandbox-node",
        "gvisor",
    ]
    assert recording.unparented() == []


def test_every_impossible_pool_is_refused_with_all_reasons(made):
    with pytest.raises(InputError) as caught:
        made(architecture="sparc", spot=PoolSize(5, 2), subnet_ids={}, instance_types=(), disk_gib=5)
    assert {p.key for p in caught.value.problems} == {
        "architecture",
        "spot",
        "subnet_ids",
        "instance_types",
        "disk_gib",
    }
    with pytest.raises(InputError):
        made(spot=PoolSize(0, 0), on_demand=PoolSize(0, 0))
