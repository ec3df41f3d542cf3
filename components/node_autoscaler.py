"""Starts sandbox nodes when sandboxes wait, and stops them when they are idle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components.gvisor_pool import ON_DEMAND, SPOT, autoscaler_tag
from components.iam_documents import document, statement
from components.node_autoscaler_manifests import (
    NAME,
    cluster_rules,
    deployment_spec,
    namespace_rules,
    network_policy_spec,
)
from components.pod_identity import pod_identity_trust
from ringfence.names import SYSTEM_NAMESPACE, Names
from ringfence.versions import CLUSTER_AUTOSCALER_IMAGE

# Spot before on-demand; the expander matches Auto Scaling group names, which EKS builds from the node group's.
_PRIORITIES = {20: SPOT, 10: ON_DEMAND}


@dataclass(frozen=True)
class NodeAutoscalerArgs:
    """vpc_cidr and service_cidr: where the Kubernetes API answers. image: by digest. always_on: `MIN:MAX:GROUP` of Auto
    Scaling groups that are never empty (`GvisorPool.always_on`). cluster_ready: what must exist before the service account
    can be bound to the role (the cluster)."""

    names: Names
    cluster_name: str
    vpc_cidr: str
    service_cidr: str
    image: str = CLUSTER_AUTOSCALER_IMAGE
    always_on: Sequence[pulumi.Input[str]] = ()
    namespace: str = SYSTEM_NAMESPACE
    cluster_ready: tuple[pulumi.Resource, ...] = ()


def autoscaler_document(names: Names, cluster_name: str) -> str:
    """What the autoscaler may do: look around, and change the size of the tagged groups."""
    return document(
        statement(
            "Allow",
            [
                "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingInstances",
                "autoscaling:DescribeLaunchConfigurations", "autoscaling:DescribeScalingActivities",
                "autoscaling:DescribeTags", "ec2:DescribeImages", "ec2:DescribeInstanceTypes",
                "ec2:DescribeLaunchTemplateVersions", "ec2:GetInstanceTypesFromInstanceRequirements",
            ],
            "*",
            {"StringEquals": {"aws:RequestedRegion": names.region}},
            sid="Look",
        ),
        statement(
            "Allow",
            "eks:DescribeNodegroup",
            names.arn("eks", f"nodegroup/{cluster_name}/{names.name('sandbox')}-*"),
            sid="ReadPool",
        ),
        statement(
            "Allow",
            ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"],
            names.arn("autoscaling", "autoScalingGroup:*:autoScalingGroupName/eks-*"),
            {"StringEquals": {f"aws:ResourceTag/{autoscaler_tag(names)}": "owned"}},
            sid="ResizePool",
        ),
    )  # fmt: skip


class NodeAutoscaler(pulumi.ComponentResource):
    """Kubernetes' Cluster Autoscaler for the gVisor pool. Needs an AWS and a Kubernetes provider.

    Makes: its role and policy, the Pod Identity association; service account, cluster role and role with bindings,
    priorities, deployment, network policy.
    Protects against: paying for idle sandbox nodes, other than those that always run; a stolen autoscaler resizing anything
    but the pool (tag condition) or reading secrets (no such rule); pods that reach it (no ingress).
    Trust zone: control side.

    Outputs: role_arn (known at preview).
    """

    def __init__(self, name: str, args: NodeAutoscalerArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:NodeAutoscaler", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self.role_arn: str = args.names.iam_arn(f"role/{args.names.name('autoscaler')}")
        identity = self._identity()
        account = k8s.core.v1.ServiceAccount(f"{name}-account", metadata=self._meta(NAME), opts=self._child)
        self._permissions()
        k8s.core.v1.ConfigMap(
            f"{name}-priorities",
            metadata=self._meta("cluster-autoscaler-priority-expander"),  # the name that the expander reads
            data={"priorities": "".join(
                f"{priority}:\n  - ^eks-{args.names.name(f'sandbox-{kind}')}-.*\n" for priority, kind in _PRIORITIES.items()
            )},
            opts=self._child,
        )  # fmt: skip
        k8s.networking.v1.NetworkPolicy(
            f"{name}-network",
            metadata=self._meta(NAME),
            spec=network_policy_spec(args.vpc_cidr, args.service_cidr),
            opts=self._child,
        )
        k8s.apps.v1.Deployment(
            f"{name}-deployment",
            # Pods take time to start; a deployment that is not ready yet is no reason to hold up everything else.
            metadata=self._meta(NAME) | {"annotations": {"pulumi.com/skipAwait": "true"}},
            spec=deployment_spec(
                args.image, args.namespace, args.names.region, autoscaler_tag(args.names), args.always_on
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[identity, account]),
        )
        self.register_outputs({})

    def _meta(self, name: str) -> dict:
        return {"name": name, "namespace": self._args.namespace, "labels": dict(self._args.names.labels(NAME))}

    def _identity(self) -> pulumi.Resource:
        args, names = self._args, self._args.names
        role = aws.iam.Role(
            f"{self._name}-role",
            name=names.name("autoscaler"),
            description="Cluster Autoscaler of the gVisor pool",
            assume_role_policy=pod_identity_trust(names, args.cluster_name, args.namespace, NAME),
            tags=names.tags("autoscaler"),
            opts=self._child,
        )
        aws.iam.RolePolicy(
            f"{self._name}-policy",
            name="resize",
            role=role.name,
            policy=autoscaler_document(names, args.cluster_name),
            opts=self._child,
        )
        return aws.eks.PodIdentityAssociation(
            f"{self._name}-pod-identity",
            cluster_name=args.cluster_name,
            namespace=args.namespace,
            service_account=NAME,
            role_arn=role.arn,
            tags=names.tags("autoscaler"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.cluster_ready)),
        )

    def _permissions(self) -> None:
        subject = {"kind": "ServiceAccount", "name": NAME, "namespace": self._args.namespace}
        group = "rbac.authorization.k8s.io"
        cluster_wide = {"name": NAME, "labels": dict(self._args.names.labels(NAME))}
        k8s.rbac.v1.ClusterRole(
            f"{self._name}-cluster-role", metadata=cluster_wide, rules=cluster_rules(), opts=self._child
        )
        k8s.rbac.v1.ClusterRoleBinding(
            f"{self._name}-cluster-binding",
            metadata=cluster_wide,
            role_ref={"apiGroup": group, "kind": "ClusterRole", "name": NAME},
            subjects=[subject],
            opts=self._child,
        )
        k8s.rbac.v1.Role(f"{self._name}-own-role", metadata=self._meta(NAME), rules=namespace_rules(), opts=self._child)
        k8s.rbac.v1.RoleBinding(
            f"{self._name}-own-binding",
            metadata=self._meta(NAME),
            role_ref={"apiGroup": group, "kind": "Role", "name": NAME},
            subjects=[subject],
            opts=self._child,
        )
