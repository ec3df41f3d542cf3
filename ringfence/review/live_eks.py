"""Cluster access as an account has it: access entries and their policies, Pod Identity, authentication mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ringfence.review.extract_eks import entry_value, pod_identity_value, principal_key, scope_value
from ringfence.review.facts import Fact, Slot, last_part
from ringfence.review.live_scope import Scope


def read(scope: Scope) -> Iterator[Fact]:
    """Facts of every cluster of the environment."""
    for page in scope.pages("eks", "list_clusters"):
        for cluster in page["clusters"]:
            if scope.covers("eks", cluster):
                yield from _cluster(scope, cluster)
                yield from _access_entries(scope, cluster)
                yield from _pod_identities(scope, cluster)


def _cluster(scope: Scope, cluster: str) -> Iterator[Fact]:
    described = scope.client("eks").describe_cluster(name=cluster)["cluster"]
    config = described.get("accessConfig") or {}
    approved = scope.approved.value(f"eks/{cluster}", Slot.CLUSTER_ACCESS) or {}
    # The API tells the mode; whether the creator became administrator shows as an access entry.
    creator = config.get("bootstrapClusterCreatorAdminPermissions", approved.get("creatorIsAdmin"))
    value = {"mode": config.get("authenticationMode") or "CONFIG_MAP", "creatorIsAdmin": creator}
    yield Fact(f"eks/{cluster}", Slot.CLUSTER_ACCESS, "", value, described.get("arn", ""))


def _access_entries(scope: Scope, cluster: str) -> Iterator[Fact]:
    client = scope.client("eks")
    made_by_eks = _made_by_eks(scope, cluster)
    for page in scope.pages("eks", "list_access_entries", clusterName=cluster):
        for arn in page["accessEntries"]:
            if "/aws-service-role/" in arn:
                continue
            entry = client.describe_access_entry(clusterName=cluster, principalArn=arn)["accessEntry"]
            subject = f"eks/{cluster}/principal/{principal_key(arn)}"
            own = arn in made_by_eks and str(entry.get("type", "")).startswith("EC2_")
            if own and scope.approved.value(subject, Slot.ACCESS_ENTRY) is None:
                continue
            value = entry_value(entry.get("type"), entry.get("kubernetesGroups") or (), entry.get("username") or "")
            yield Fact(subject, Slot.ACCESS_ENTRY, "", value, entry.get("accessEntryArn", arn))
            yield from _access_policies(scope, cluster, arn, subject)


def _made_by_eks(scope: Scope, cluster: str) -> set[str]:
    """Roles of managed node groups: EKS lets them join by an entry of its own."""
    client = scope.client("eks")
    return {
        client.describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"]["nodeRole"]
        for page in scope.pages("eks", "list_nodegroups", clusterName=cluster)
        for name in page["nodegroups"]
    }


def _access_policies(scope: Scope, cluster: str, arn: str, subject: str) -> Iterator[Fact]:
    pages = scope.pages("eks", "list_associated_access_policies", clusterName=cluster, principalArn=arn)
    for page in pages:
        for policy in page["associatedAccessPolicies"]:
            key = last_part(policy["policyArn"])
            yield Fact(subject, Slot.ACCESS_POLICY, key, scope_value(policy.get("accessScope")), policy["policyArn"])


def _pod_identities(scope: Scope, cluster: str) -> Iterator[Fact]:
    client = scope.client("eks")
    for page in scope.pages("eks", "list_pod_identity_associations", clusterName=cluster):
        for listed in page["associations"]:
            detail: dict[str, Any] = client.describe_pod_identity_association(
                clusterName=cluster, associationId=listed["associationId"]
            )["association"]
            value = pod_identity_value(
                detail.get("roleArn"),
                detail.get("targetRoleArn"),
                detail.get("policy"),
                detail.get("disableSessionTags"),
            )
            yield Fact(_subject(cluster, detail), Slot.POD_IDENTITY, "", value, detail.get("associationArn", ""))


def _subject(cluster: str, detail: dict[str, Any]) -> str:
    owner = str(detail.get("ownerArn") or "")
    if ":addon/" in owner:
        addon = owner.split(":addon/", 1)[1].split("/")[1]
        return f"eks/{cluster}/addon/{addon}/{detail['serviceAccount']}"
    return f"eks/{cluster}/pod/{detail['namespace']}/{detail['serviceAccount']}"
