"""IAM roles of EC2 nodes: join the cluster, pull images, and what the pool itself needs."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from components.iam_documents import Statement, document, statement
from ringfence.names import Names

# Pull-only rather than read-only: a node needs neither to list repositories nor to read scan findings. The CNI's own
# permissions are not here: its pods get them by Pod Identity.
_MANAGED_POLICIES = ("AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodePolicy")


def node_role(
    name: str, names: Names, purpose: str, own_statements: tuple[Statement, ...], parent: pulumi.Resource
) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
    """Makes the role ``<base>-<purpose>-node``; returns it, and what must exist before a node may start."""
    child = pulumi.ResourceOptions(parent=parent)
    role = aws.iam.Role(
        f"{name}-node-role",
        name=names.name(f"{purpose}-node"),
        description=f"Nodes of the {purpose} pool",
        assume_role_policy=document(
            statement("Allow", "sts:AssumeRole", None, principals={"Service": "ec2.amazonaws.com"})
        ),
        max_session_duration=3600,
        tags=names.tags(f"{purpose}-node"),
        opts=child,
    )
    ready: list[pulumi.Resource] = [
        aws.iam.RolePolicyAttachment(
            f"{name}-node-{policy}", role=role.name, policy_arn=names.aws_managed_policy_arn(policy), opts=child
        )
        for policy in _MANAGED_POLICIES
    ]
    if own_statements:
        ready.append(
            aws.iam.RolePolicy(
                f"{name}-node-own", name="own", role=role.name, policy=document(*own_statements), opts=child
            )
        )
    return role, ready
