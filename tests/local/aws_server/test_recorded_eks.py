"""EKS beyond moto, through boto3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

ROLE = "arn:aws:iam::123456789012:role/nodes"
CLUSTER = "recorded"


@pytest.fixture(scope="module")
def eks(aws: Any, network: dict[str, Any]) -> Iterator[Any]:
    client = aws.client("eks")
    client.create_cluster(
        name=CLUSTER,
        version="1.34",
        roleArn=ROLE,
        resourcesVpcConfig={
            "subnetIds": network["subnets"],
            "endpointPublicAccess": False,
            "endpointPrivateAccess": True,
        },
        accessConfig={"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False},
        upgradePolicy={"supportType": "STANDARD"},
        deletionProtection=True,
    )
    yield client
    client.update_cluster_config(name=CLUSTER, deletionProtection=False)
    client.delete_cluster(name=CLUSTER)


def code_of(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_a_cluster_tells_the_settings_that_it_was_made_with(eks: Any, network: dict[str, Any]) -> None:
    cluster = eks.describe_cluster(name=CLUSTER)["cluster"]
    assert cluster["accessConfig"]["authenticationMode"] == "API"
    assert cluster["accessConfig"]["bootstrapClusterCreatorAdminPermissions"] is False
    assert cluster["upgradePolicy"] == {"supportType": "STANDARD"}
    assert cluster["deletionProtection"] is True
    vpc = cluster["resourcesVpcConfig"]
    assert (vpc["vpcId"], vpc["endpointPublicAccess"], vpc["endpointPrivateAccess"]) == (network["vpc"], False, True)


def test_the_cluster_security_group_is_a_real_one(aws: Any, eks: Any, network: dict[str, Any]) -> None:
    group = eks.describe_cluster(name=CLUSTER)["cluster"]["resourcesVpcConfig"]["clusterSecurityGroupId"]
    found = aws.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    assert found["VpcId"] == network["vpc"]


def test_a_protected_cluster_is_not_deleted(eks: Any) -> None:
    assert code_of(eks.delete_cluster, name=CLUSTER) == "InvalidRequestException"
    assert eks.describe_cluster(name=CLUSTER)["cluster"]["status"] == "ACTIVE"


def test_an_update_of_a_cluster_keeps_what_it_does_not_name(eks: Any) -> None:
    update = eks.update_cluster_config(name=CLUSTER, resourcesVpcConfig={"publicAccessCidrs": ["192.0.2.0/24"]})[
        "update"
    ]
    assert eks.describe_update(name=CLUSTER, updateId=update["id"])["update"]["status"] == "Successful"
    vpc = eks.describe_cluster(name=CLUSTER)["cluster"]["resourcesVpcConfig"]
    assert vpc["publicAccessCidrs"] == ["192.0.2.0/24"]
    assert vpc["endpointPrivateAccess"] is True


def test_a_cluster_in_one_zone_is_refused(eks: Any, network: dict[str, Any]) -> None:
    code = code_of(
        eks.create_cluster, name="narrow", roleArn=ROLE, resourcesVpcConfig={"subnetIds": network["subnets"][:1]}
    )
    assert code == "InvalidParameterException"
    assert "narrow" not in eks.list_clusters()["clusters"]


def test_an_add_on_lives_from_create_to_delete(eks: Any) -> None:
    made = eks.create_addon(
        clusterName=CLUSTER, addonName="vpc-cni", addonVersion="v1.20.0-eksbuild.1", tags={"a": "1"}
    )["addon"]
    assert made["addonArn"].startswith(f"arn:aws:eks:us-east-1:123456789012:addon/{CLUSTER}/vpc-cni/")
    assert "vpc-cni" in eks.list_addons(clusterName=CLUSTER)["addons"]
    eks.get_waiter("addon_active").wait(clusterName=CLUSTER, addonName="vpc-cni")
    update = eks.update_addon(clusterName=CLUSTER, addonName="vpc-cni", configurationValues='{"env":{}}')["update"]
    assert update["id"] in eks.list_updates(name=CLUSTER, addonName="vpc-cni")["updateIds"]
    changed = eks.describe_addon(clusterName=CLUSTER, addonName="vpc-cni")["addon"]
    assert changed["configurationValues"] == '{"env":{}}'
    assert changed["addonVersion"] == "v1.20.0-eksbuild.1"
    eks.tag_resource(resourceArn=made["addonArn"], tags={"b": "2"})
    eks.untag_resource(resourceArn=made["addonArn"], tagKeys=["a"])
    assert eks.list_tags_for_resource(resourceArn=made["addonArn"])["tags"] == {"b": "2"}
    eks.delete_addon(clusterName=CLUSTER, addonName="vpc-cni")
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        eks.describe_addon(clusterName=CLUSTER, addonName="vpc-cni")


def test_an_add_on_owns_the_pod_identities_that_it_names(eks: Any) -> None:
    given = {"clusterName": CLUSTER, "addonName": "ebs-csi", "addonVersion": "v1"}
    pods = [{"serviceAccount": "ebs-csi-controller-sa", "roleArn": ROLE}]
    addon = eks.create_addon(**given, podIdentityAssociations=pods)["addon"]
    owned = eks.list_pod_identity_associations(clusterName=CLUSTER, serviceAccount="ebs-csi-controller-sa")[
        "associations"
    ]
    assert [a["ownerArn"] for a in owned] == [addon["addonArn"]]
    assert addon["podIdentityAssociations"] == [a["associationArn"] for a in owned]
    eks.delete_addon(clusterName=CLUSTER, addonName="ebs-csi")
    assert not eks.list_pod_identity_associations(clusterName=CLUSTER, serviceAccount="ebs-csi-controller-sa")[
        "associations"
    ]


def test_a_second_add_on_of_the_name_is_refused(eks: Any) -> None:
    given = {"clusterName": CLUSTER, "addonName": "coredns", "addonVersion": "v1"}
    eks.create_addon(**given)
    with pytest.raises(eks.exceptions.ResourceInUseException):
        eks.create_addon(**given)
    eks.delete_addon(clusterName=CLUSTER, addonName="coredns")


@pytest.mark.parametrize("operation", ["list_addons", "list_access_entries", "list_pod_identity_associations"])
def test_listing_of_an_unknown_cluster_says_that_it_is_missing(eks: Any, operation: str) -> None:
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        getattr(eks, operation)(clusterName="nowhere")


def test_an_access_entry_lives_from_create_to_delete(eks: Any) -> None:
    principal = "arn:aws:iam::123456789012:role/team/operators"
    entry = eks.create_access_entry(clusterName=CLUSTER, principalArn=principal, kubernetesGroups=["ops"])[
        "accessEntry"
    ]
    assert entry["type"] == "STANDARD"
    assert entry["username"] == "arn:aws:sts::123456789012:assumed-role/team/operators/{{SessionName}}"
    assert principal in eks.list_access_entries(clusterName=CLUSTER)["accessEntries"]
    eks.update_access_entry(clusterName=CLUSTER, principalArn=principal, kubernetesGroups=["ops", "more"])
    found = eks.describe_access_entry(clusterName=CLUSTER, principalArn=principal)["accessEntry"]
    assert found["kubernetesGroups"] == ["ops", "more"]
    policy = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
    named = {"clusterName": CLUSTER, "principalArn": principal}
    eks.associate_access_policy(**named, policyArn=policy, accessScope={"type": "namespace", "namespaces": ["a"]})
    shown = eks.list_associated_access_policies(**named)["associatedAccessPolicies"]
    assert [(p["policyArn"], p["accessScope"]["namespaces"]) for p in shown] == [(policy, ["a"])]
    eks.disassociate_access_policy(**named, policyArn=policy)
    assert eks.list_associated_access_policies(**named)["associatedAccessPolicies"] == []
    eks.delete_access_entry(**named)
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        eks.describe_access_entry(**named)


def test_an_unknown_access_policy_is_refused(eks: Any) -> None:
    principal = "arn:aws:iam::123456789012:role/other"
    eks.create_access_entry(clusterName=CLUSTER, principalArn=principal)
    code = code_of(
        eks.associate_access_policy,
        clusterName=CLUSTER,
        principalArn=principal,
        policyArn="arn:aws:eks::aws:cluster-access-policy/Nonsense",
        accessScope={"type": "cluster"},
    )
    assert code == "InvalidParameterException"
    eks.delete_access_entry(clusterName=CLUSTER, principalArn=principal)


def test_a_pod_identity_association_lives_from_create_to_delete(eks: Any) -> None:
    given = {"clusterName": CLUSTER, "namespace": "ringfence-system", "serviceAccount": "broker"}
    made = eks.create_pod_identity_association(**given, roleArn=ROLE)["association"]
    with pytest.raises(eks.exceptions.ResourceInUseException):
        eks.create_pod_identity_association(**given, roleArn=ROLE)
    named = {"clusterName": CLUSTER, "associationId": made["associationId"]}
    eks.update_pod_identity_association(**named, roleArn=f"{ROLE}2")
    assert eks.describe_pod_identity_association(**named)["association"]["roleArn"] == f"{ROLE}2"
    assert len(eks.list_pod_identity_associations(**given)["associations"]) == 1
    eks.delete_pod_identity_association(**named)
    assert eks.list_pod_identity_associations(**given)["associations"] == []


def test_a_node_group_tells_its_update_settings_and_follows_version_updates(eks: Any, network: dict[str, Any]) -> None:
    named = {"clusterName": CLUSTER, "nodegroupName": "system"}
    eks.create_nodegroup(**named, subnets=network["subnets"], nodeRole=ROLE, updateConfig={"maxUnavailable": 2})
    found = eks.describe_nodegroup(**named)["nodegroup"]
    assert (found["updateConfig"], found["version"]) == ({"maxUnavailable": 2}, "1.34")
    update = eks.update_nodegroup_config(**named, scalingConfig={"minSize": 0, "maxSize": 3, "desiredSize": 1})[
        "update"
    ]
    assert (
        eks.describe_update(name=CLUSTER, updateId=update["id"], nodegroupName="system")["update"]["id"] == update["id"]
    )
    eks.update_nodegroup_version(**named, releaseVersion="1.34.1-20260714")
    found = eks.describe_nodegroup(**named)["nodegroup"]
    assert (found["releaseVersion"], found["scalingConfig"]["maxSize"]) == ("1.34.1-20260714", 3)
    eks.delete_nodegroup(**named)


def test_the_tags_of_a_node_group_can_be_listed_and_changed(eks: Any, network: dict[str, Any]) -> None:
    named = {"clusterName": CLUSTER, "nodegroupName": "labelled"}
    made = eks.create_nodegroup(**named, subnets=network["subnets"], nodeRole=ROLE, tags={"a": "1"})["nodegroup"]
    arn = made["nodegroupArn"]
    eks.tag_resource(resourceArn=arn, tags={"b": "2"})
    eks.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert eks.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "2"}
    assert eks.describe_nodegroup(**named)["nodegroup"]["tags"] == {"b": "2"}
    eks.delete_nodegroup(**named)
    assert code_of(eks.tag_resource, resourceArn=arn, tags={"b": "2"}).endswith("NotFoundException")


def test_the_group_of_a_node_group_can_be_tagged_for_as_long_as_it_lives(
    aws: Any, eks: Any, network: dict[str, Any]
) -> None:
    named = {"clusterName": CLUSTER, "nodegroupName": "tagged"}
    made = eks.create_nodegroup(**named, subnets=network["subnets"], nodeRole=ROLE)["nodegroup"]
    group = made["resources"]["autoScalingGroups"][0]["name"]
    autoscaling = aws.client("autoscaling")
    tag = {
        "ResourceType": "auto-scaling-group",
        "ResourceId": group,
        "Key": "k",
        "Value": "v",
        "PropagateAtLaunch": True,
    }
    autoscaling.create_or_update_tags(Tags=[tag])
    by_group = [{"Name": "auto-scaling-group", "Values": [group]}]
    assert autoscaling.describe_tags(Filters=by_group)["Tags"] == [tag]
    assert autoscaling.describe_tags(Filters=[*by_group, {"Name": "key", "Values": ["other"]}])["Tags"] == []
    assert code_of(autoscaling.create_or_update_tags, Tags=[{**tag, "ResourceId": "nowhere"}]) == "ValidationError"
    autoscaling.delete_tags(Tags=[tag])
    assert autoscaling.describe_tags(Filters=by_group)["Tags"] == []
    autoscaling.create_or_update_tags(Tags=[tag])
    eks.delete_nodegroup(**named)
    assert autoscaling.describe_tags(Filters=by_group)["Tags"] == []


def test_deleting_a_cluster_removes_what_hangs_on_it(aws: Any, eks: Any, network: dict[str, Any]) -> None:
    eks.create_cluster(name="brief", version="1.34", roleArn=ROLE, resourcesVpcConfig={"subnetIds": network["subnets"]})
    group = eks.describe_cluster(name="brief")["cluster"]["resourcesVpcConfig"]["clusterSecurityGroupId"]
    eks.create_addon(clusterName="brief", addonName="coredns", addonVersion="v1")
    eks.create_access_entry(clusterName="brief", principalArn=ROLE)
    eks.delete_cluster(name="brief")
    left = aws.own("inventory")["left"]
    assert not [name for names in left["eks"].values() for name in names if "brief" in name]
    assert group not in left["ec2"]["SecurityGroup"]
