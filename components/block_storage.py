"""Encrypted disks for pods of the control side."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components.iam_documents import document, statement
from components.pod_identity import pod_identity_trust
from ringfence.names import LABEL_DOMAIN, SANDBOX_NODE_LABEL, Names
from ringfence.versions import EKS_ADDON_VERSIONS

ADDON = "aws-ebs-csi-driver"
STORAGE_CLASS = "ringfence-encrypted"
_NAMESPACE = "kube-system"
_CONTROLLER = "ebs-csi-controller-sa"
_ENVIRONMENT_TAG = f"{LABEL_DOMAIN}/environment"
_POD_IDENTITY_AGENT = "169.254.170.23/32"


@dataclass(frozen=True)
class BlockStorageArgs:
    """keep: a disk outlives its claim. cluster_ready: what must be there before the add-on's pods can run (the cluster,
    its system nodes)."""

    names: Names
    cluster_name: str
    keep: bool = True
    cluster_ready: tuple[pulumi.Resource, ...] = ()


def driver_document(names: Names) -> str:
    """What the driver may do: make, attach, change and delete volumes that carry this environment's tag.

    Narrower than AmazonEBSCSIDriverPolicy: no snapshots, no volumes of other clusters, unencrypted volumes refused.
    """
    volumes, instances = names.arn("ec2", "volume/*"), names.arn("ec2", "instance/*")
    own = {"StringEquals": {f"aws:ResourceTag/{_ENVIRONMENT_TAG}": names.environment}}
    # The driver's own tag, which nodes' root volumes don't have.
    made = {"StringEquals": own["StringEquals"] | {"aws:ResourceTag/ebs.csi.aws.com/cluster": "true"}}
    asked = {
        "StringEquals": {f"aws:RequestTag/{_ENVIRONMENT_TAG}": names.environment},
        "Bool": {"ec2:Encrypted": "true"},
    }
    return document(
        statement(
            "Allow",
            [
                "ec2:DescribeAvailabilityZones", "ec2:DescribeInstances", "ec2:DescribeTags", "ec2:DescribeVolumes",
                "ec2:DescribeVolumesModifications", "ec2:DescribeVolumeStatus",
            ],
            "*",
            {"StringEquals": {"aws:RequestedRegion": names.region}},
            sid="Look",
        ),
        statement("Allow", "ec2:CreateVolume", volumes, asked, sid="MakeEncrypted"),
        statement(
            "Allow", "ec2:CreateTags", volumes, {"StringEquals": {"ec2:CreateAction": "CreateVolume"}}, sid="TagWhenMade"
        ),
        statement(
            "Allow",
            ["ec2:AttachVolume", "ec2:DeleteVolume", "ec2:DetachVolume", "ec2:ModifyVolume"],
            volumes,
            made,
            sid="UseOwn",
        ),
        # Nodes carry the tag through their launch template.
        statement("Allow", ["ec2:AttachVolume", "ec2:DetachVolume"], instances, own, sid="OwnNodes"),
    )  # fmt: skip


def addon_configuration(names: Names) -> str:
    """The add-on's settings: nothing of it on sandbox nodes, one controller, the environment's tags on every volume."""
    term = {"matchExpressions": [{"key": SANDBOX_NODE_LABEL, "operator": "DoesNotExist"}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    controller = {
        "affinity": affinity,
        "extraVolumeTags": names.tags(),
        "region": names.region,
        "replicaCount": 1,
    }
    return json.dumps({"controller": controller, "node": {"affinity": affinity}}, sort_keys=True)


def driver_network_policy_spec() -> dict:
    """Nothing in; out to cluster DNS, the Pod Identity agent, the Kubernetes API and EC2."""
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": ADDON}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [
            {"to": [{"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}], "ports": dns},
            {"to": [{"ipBlock": {"cidr": _POD_IDENTITY_AGENT}}], "ports": [{"protocol": "TCP", "port": 80}]},
            {
                "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}],
                "ports": [{"protocol": "TCP", "port": 443}],
            },
        ],
    }


class BlockStorage(pulumi.ComponentResource):
    """Persistent volumes on EBS. Needs an AWS and a Kubernetes provider.

    Makes: the driver's role and policy; the NetworkPolicy of its pods; the EBS CSI add-on with the role by Pod Identity;
    the storage class `ringfence-encrypted` (gp3, encrypted, made in the zone of the pod that asks).
    Protects against: data in clear on a disk (the class asks for encryption and the role can't make a volume without);
    a stolen driver role that touches another environment's volumes or nodes (tag conditions); a privileged driver pod on
    a sandbox node; data lost with its claim, where it is to be kept.
    Trust zone: control side.

    Outputs: storage_class (name, known at preview); role_arn (known at preview); ready (resources to depend on).
    """

    def __init__(self, name: str, args: BlockStorageArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:BlockStorage", name, None, opts)
        names, child = args.names, pulumi.ResourceOptions(parent=self)
        self.storage_class: str = STORAGE_CLASS
        self.role_arn: str = names.iam_arn(f"role/{names.name('ebs-csi')}")
        role = aws.iam.Role(
            f"{name}-role",
            name=names.name("ebs-csi"),
            description="EBS CSI driver: volumes of this environment",
            assume_role_policy=pod_identity_trust(names, args.cluster_name, _NAMESPACE, _CONTROLLER),
            force_detach_policies=True,  # so that a policy added by hand does not hold up a destroy
            tags=names.tags("ebs-csi"),
            opts=child,
        )
        policy = aws.iam.RolePolicy(
            f"{name}-policy", name="volumes", role=role.name, policy=driver_document(names), opts=child
        )
        network = k8s.networking.v1.NetworkPolicy(
            f"{name}-network",
            metadata={"name": ADDON, "namespace": _NAMESPACE, "labels": dict(names.labels(ADDON))},
            spec=driver_network_policy_spec(),
            opts=child,
        )
        addon = aws.eks.Addon(
            f"{name}-addon",
            cluster_name=args.cluster_name,
            addon_name=ADDON,
            addon_version=EKS_ADDON_VERSIONS[ADDON],
            configuration_values=addon_configuration(names),
            pod_identity_associations=[{"role_arn": role.arn, "service_account": _CONTROLLER}],
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            tags=names.tags(),
            # In strict mode its pods reach no API server, and never get ready, before their policy is there.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*args.cluster_ready, policy, network]),
        )
        storage_class = k8s.storage.v1.StorageClass(
            f"{name}-class",
            metadata={"name": STORAGE_CLASS, "labels": dict(names.labels("block-storage"))},
            provisioner="ebs.csi.aws.com",
            parameters={"type": "gp3", "encrypted": "true", "csi.storage.k8s.io/fstype": "ext4"},
            volume_binding_mode="WaitForFirstConsumer",
            allow_volume_expansion=True,
            reclaim_policy="Retain" if args.keep else "Delete",
            opts=child,
        )
        self.ready: tuple[pulumi.Resource, ...] = (addon, storage_class)
        self.register_outputs({})
