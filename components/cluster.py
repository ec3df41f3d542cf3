"""The EKS control plane, its add-ons and the nodes of the control side."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_aws as aws

from components.encryption_key import encryption_key
from components.iam_documents import Statement, document, statement
from components.node_role import node_role
from components.node_template import node_launch_template
from components.pod_identity import cluster_arn, pod_identity_trust
from ringfence.errors import InputError, Problem
from ringfence.names import Names
from ringfence.settings.model import NODE_ZONES
from ringfence.versions import EKS_ADDON_VERSIONS, EKS_VERSION

# EKS's own choice where the VPC lies in 10.0.0.0/8; pods resolve services in it.
SERVICE_CIDR = "172.20.0.0/16"
_ADMIN_POLICY = "AmazonEKSClusterAdminPolicy"
KUBELET_PORT = 10250
_ADDON_CONFIG: Mapping[str, dict] = {
    "vpc-cni": {
        "enableNetworkPolicy": "true",
        "env": {
            # Pods keep their own address on the way out: the NAT and the proxy see who calls.
            "AWS_VPC_K8S_CNI_EXTERNALSNAT": "true",
            # Standard mode lets everything through for a second or two after a pod's start.
            "NETWORK_POLICY_ENFORCING_MODE": "strict",
        },
    }
}


# EKS needs two, and never lets a cluster's zones be changed.
CONTROL_PLANE_ZONES = 2


@dataclass(frozen=True)
class SystemNodes:
    """The control side's nodes: count, instance types (all of `ami_type`'s architecture) and disk size in GiB."""

    count: int = 1
    instance_types: tuple[str, ...] = ("t4g.medium",)
    ami_type: str = "AL2023_ARM_64_STANDARD"
    disk_gib: int = 30


@dataclass(frozen=True)
class ClusterArgs:
    """subnet_ids: system subnets by availability zone, two or more, in the order of the settings: the control plane's
    interfaces are in the first two, system nodes are dealt out to the first three in turn; three or more need three zones.
    log_group: `LogStore.groups["cluster"]`.
    admin_principal_arns: IAM roles or users that administer the cluster; whoever runs Pulumi must be among them.
    public_access_cidrs: who may reach the API from outside; empty means the private endpoint only. deletion_protection:
    also protects the cluster in Pulumi.
    """

    names: Names
    vpc_id: pulumi.Input[str]
    subnet_ids: Mapping[str, pulumi.Input[str]]
    log_group: aws.cloudwatch.LogGroup
    admin_principal_arns: tuple[str, ...]
    public_access_cidrs: tuple[str, ...] = ()
    deletion_protection: bool = True
    system_nodes: SystemNodes = field(default_factory=SystemNodes)
    version: str = EKS_VERSION


def _cidr_problem(cidr: str) -> Problem | None:
    remedy = "name ranges of at most a /16, or none for the private endpoint only"
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError:
        return Problem("cluster", "public_access_cidrs", f"{cidr!r} is not an address range", remedy)
    if network.prefixlen < 16:
        return Problem("cluster", "public_access_cidrs", f"{cidr!r} opens the Kubernetes API to the world", remedy)
    return None


def _check(args: ClusterArgs) -> None:
    problems = [problem for cidr in args.public_access_cidrs if (problem := _cidr_problem(cidr))]
    if len(args.subnet_ids) < 2:
        zones = ", ".join(args.subnet_ids) or "none"
        problems.append(Problem("cluster", "subnet_ids", f"zones: {zones}", "give two or more zones: EKS needs them"))
    nodes = args.system_nodes.count
    if nodes >= NODE_ZONES > len(args.subnet_ids):
        message = f"{nodes} nodes in {len(args.subnet_ids)} zones: a zone added later would take one from another"
        remedy = f"name {NODE_ZONES} zones, or have at most {NODE_ZONES - 1} nodes"
        problems.append(Problem("cluster", "system_nodes.count", message, remedy))
    if not args.admin_principal_arns:
        remedy = "name the roles that administer the cluster, the one that runs Pulumi included"
        problems.append(Problem("cluster", "admin_principal_arns", "nobody could ever administer the cluster", remedy))
    if nodes < 1:
        problems.append(Problem("cluster", "system_nodes.count", f"is {nodes}", "1 or more"))
    if problems:
        raise InputError(problems)


def dealt_out(count: int, zones: tuple[str, ...]) -> dict[str, int]:
    """`count` nodes dealt out in turn to the first three zones: zone → number, zones without a node left out.

    A further zone moves none of them, since `ClusterArgs` wants three zones for three nodes.
    """
    homes = zones[:NODE_ZONES]
    shares = {zone: count // len(homes) + (index < count % len(homes)) for index, zone in enumerate(homes)}
    return {zone: share for zone, share in shares.items() if share}


def cluster_role_trust(names: Names) -> str:
    """EKS may act for this cluster only."""
    return document(
        statement(
            "Allow",
            "sts:AssumeRole",
            None,
            {
                "StringEquals": {"aws:SourceAccount": names.account_id},
                "ArnEquals": {"aws:SourceArn": cluster_arn(names, names.base)},
            },
            {"Service": "eks.amazonaws.com"},
        )
    )


def secrets_key_use(names: Names) -> Statement:
    """The cluster's role encrypts Kubernetes secrets; EKS makes a grant from it for its own API servers."""
    return statement(
        "Allow",
        ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:ListGrants"],
        "*",
        principals={"AWS": names.iam_arn(f"role/{names.name('cluster')}")},
        sid="ClusterEncryptsSecrets",
    )


def kubeconfig(name: str, region: str, endpoint: str, certificate_authority: str) -> str:
    """A kubeconfig that holds no secret: it asks the AWS CLI for a token of the caller's own identity.

    certificate_authority: base64, as EKS gives it.
    """
    arguments = ["eks", "get-token", "--cluster-name", name, "--region", region, "--output", "json"]
    exec_ = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": arguments,
        "interactiveMode": "Never",
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": endpoint, "certificate-authority-data": certificate_authority}}
        ],
        "users": [{"name": name, "user": {"exec": exec_}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return json.dumps(config, sort_keys=True)


class Cluster(pulumi.ComponentResource):
    """The Kubernetes cluster that the control side and the sandboxes run on.

    Makes: the cluster's role, KMS key and alias; the EKS cluster; access entries; the add-ons VPC CNI (its own role by
    Pod Identity), kube-proxy and Pod Identity agent; security groups of the control plane and of the system nodes; the
    system nodes' role, launch template and node group. CoreDNS comes with ClusterDns.
    Protects against: an API open to the internet (private endpoint unless ranges are named, never all); administrators
    that nobody named (access entries only, the creator gets nothing); secrets readable in etcd (envelope encryption);
    unseen API calls (audit and authenticator logs); pods that talk before their policy applies (strict mode);
    credentials of the node stolen from a pod (IMDSv2, hop limit 1); slipping into paid extended support; deletion by
    mistake.
    Trust zone: control side.

    Outputs: cluster_name (known at preview); endpoint, certificate_authority (base64), kubeconfig (secret-free JSON);
    control_plane_security_group_id, system_security_group_id; key_alias (known); to depend on: cluster,
    system_node_groups, and access (administrators' entries, without which the Kubernetes API refuses everybody).
    """

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Cluster", name, None, opts)
        _check(args)
        self._name, self._args = name, args
        names = args.names
        self.cluster_name: str = names.base
        self.key_alias: str = names.key_alias("cluster")
        self._security_groups()
        self.cluster = self._control_plane()
        self.endpoint: pulumi.Output[str] = self.cluster.endpoint
        self.certificate_authority: pulumi.Output[str] = self.cluster.certificate_authority.data
        self.kubeconfig: pulumi.Output[str] = pulumi.Output.all(self.endpoint, self.certificate_authority).apply(
            lambda known: kubeconfig(self.cluster_name, names.region, known[0], known[1])
        )
        self.access = self._access()
        before_nodes = self._addons()
        self.system_node_groups = self._system_nodes(before_nodes)
        self.register_outputs({})

    def _child(self, *depends_on: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=list(depends_on))

    def _control_plane(self) -> aws.eks.Cluster:
        args, names = self._args, self._args.names
        role = aws.iam.Role(
            f"{self._name}-role",
            name=names.name("cluster"),
            description="EKS control plane",
            assume_role_policy=cluster_role_trust(names),
            tags=names.tags("cluster"),
            opts=self._child(),
        )
        managed = aws.iam.RolePolicyAttachment(
            f"{self._name}-role-policy",
            role=role.name,
            policy_arn=names.aws_managed_policy_arn("AmazonEKSClusterPolicy"),
            opts=self._child(),
        )
        key = encryption_key(
            self._name, names, "cluster", "Encrypts Kubernetes secrets", (secrets_key_use(names),), self, (role,)
        )
        return aws.eks.Cluster(
            self._name,
            name=self.cluster_name,
            version=args.version,
            role_arn=role.arn,
            vpc_config={
                # EKS keeps the zones that a cluster was made with (docs.aws.amazon.com/eks/latest/APIReference/
                # API_UpdateClusterConfig.html), so that a third one may come and go without touching it.
                "subnet_ids": list(args.subnet_ids.values())[:CONTROL_PLANE_ZONES],
                "security_group_ids": [self.control_plane_security_group_id],
                "endpoint_private_access": True,
                "endpoint_public_access": bool(args.public_access_cidrs),
                "public_access_cidrs": list(args.public_access_cidrs) or None,
            },
            kubernetes_network_config={"ip_family": "ipv4", "service_ipv4_cidr": SERVICE_CIDR},
            encryption_config={"provider": {"key_arn": key.arn}, "resources": ["secrets"]},
            enabled_cluster_log_types=["audit", "authenticator"],
            access_config={"authentication_mode": "API", "bootstrap_cluster_creator_admin_permissions": False},
            upgrade_policy={"support_type": "STANDARD"},
            bootstrap_self_managed_addons=False,
            deletion_protection=args.deletion_protection,
            tags=names.tags("cluster"),
            opts=pulumi.ResourceOptions(
                parent=self, protect=args.deletion_protection, depends_on=[managed, args.log_group]
            ),
        )

    def _access(self) -> list[pulumi.Resource]:
        """The only ways in, since the cluster's creator gets none: whoever makes Kubernetes objects depends on them."""
        ways_in: list[pulumi.Resource] = []
        for principal in sorted(set(self._args.admin_principal_arns)):
            key = principal.partition(":iam::")[2]
            entry = aws.eks.AccessEntry(
                f"{self._name}-admin-{key}",
                cluster_name=self.cluster.name,
                principal_arn=principal,
                type="STANDARD",
                tags=self._args.names.tags(),
                opts=self._child(),
            )
            association = aws.eks.AccessPolicyAssociation(
                f"{self._name}-admin-{key}-policy",
                cluster_name=self.cluster.name,
                principal_arn=principal,
                policy_arn=self._args.names.arn(
                    "eks", f"cluster-access-policy/{_ADMIN_POLICY}", region="", account="aws"
                ),
                access_scope={"type": "cluster"},
                opts=self._child(entry),
            )
            ways_in += [entry, association]
        return ways_in

    def _addons(self) -> list[pulumi.Resource]:
        """The add-ons that nodes need before they are ready."""
        names = self._args.names
        cni_role = aws.iam.Role(
            f"{self._name}-cni-role",
            name=names.name("cni"),
            description="VPC CNI: attaches interfaces and addresses to nodes",
            assume_role_policy=pod_identity_trust(names, self.cluster_name, "kube-system", "aws-node"),
            tags=names.tags("cni"),
            opts=self._child(),
        )
        cni_policy = aws.iam.RolePolicyAttachment(
            f"{self._name}-cni-policy",
            role=cni_role.name,
            policy_arn=names.aws_managed_policy_arn("AmazonEKS_CNI_Policy"),
            opts=self._child(),
        )
        agent = self._addon("eks-pod-identity-agent")
        cni = self._addon(
            "vpc-cni",
            agent,
            cni_policy,
            identities=[{"role_arn": cni_role.arn, "service_account": "aws-node"}],
        )
        return [agent, cni, self._addon("kube-proxy")]

    def _addon(self, addon: str, *depends_on: pulumi.Resource, identities: list[dict] | None = None) -> aws.eks.Addon:
        config = _ADDON_CONFIG.get(addon)
        return aws.eks.Addon(
            f"{self._name}-{addon}",
            cluster_name=self.cluster.name,
            addon_name=addon,
            addon_version=EKS_ADDON_VERSIONS[addon],
            configuration_values=json.dumps(config, sort_keys=True) if config else None,
            pod_identity_associations=identities,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            tags=self._args.names.tags(),
            opts=self._child(*depends_on),
        )

    def _security_groups(self) -> None:
        """EKS puts its own group on the control plane only; what nodes may do and receive is decided here."""
        group = self._group
        self.control_plane_security_group_id = group("control-plane", "EKS control plane").id
        self.system_security_group_id = group("system-nodes", "Nodes and pods of the control side").id
        control_plane, system = self.control_plane_security_group_id, self.system_security_group_id
        ingress, egress = aws.vpc.SecurityGroupIngressRule, aws.vpc.SecurityGroupEgressRule
        for name, rule, owner, peer, protocol, port, why in (
            ("system-to-api", ingress, control_plane, system, "tcp", 443, "Kubernetes API for system nodes"),
            ("api-to-system-kubelet", egress, control_plane, system, "tcp", KUBELET_PORT, "logs, exec and metrics"),
            ("system-kubelet", ingress, system, control_plane, "tcp", KUBELET_PORT, "logs, exec and metrics"),
            ("system-from-system", ingress, system, system, "-1", None, "among system pods; NetworkPolicy narrows"),
            ("system-to-system", egress, system, system, "-1", None, "among system pods; NetworkPolicy narrows"),
            ("system-api", egress, system, control_plane, "tcp", 443, "Kubernetes API"),
        ):
            rule(
                f"{self._name}-{name}", security_group_id=owner, referenced_security_group_id=peer,
                ip_protocol=protocol, from_port=port, to_port=port, description=why, tags=self._args.names.tags(),
                opts=self._child(),
            )  # fmt: skip
        egress(
            f"{self._name}-system-https", security_group_id=system, cidr_ipv4="0.0.0.0/0", ip_protocol="tcp",
            from_port=443, to_port=443, description="AWS APIs, registries and model providers, over TLS",
            tags=self._args.names.tags(), opts=self._child(),
        )  # fmt: skip

    def _group(self, thing: str, description: str) -> aws.ec2.SecurityGroup:
        return aws.ec2.SecurityGroup(
            f"{self._name}-{thing}",
            name=self._args.names.name(thing),
            description=description,
            vpc_id=self._args.vpc_id,
            tags=self._args.names.tags(thing),
            opts=self._child(),
        )

    def _system_nodes(self, before: list[pulumi.Resource]) -> list[aws.eks.NodeGroup]:
        """A group in each zone that gets a node: EKS can't change a group's subnets, and volumes stay in their zone."""
        args, names, nodes = self._args, self._args.names, self._args.system_nodes
        role, ready = node_role(f"{self._name}-system", names, "system", (), self)
        template = node_launch_template(
            f"{self._name}-system", names, "system-nodes", [self.system_security_group_id], nodes.disk_gib, self
        )
        opts = self._child(*ready, *before)
        return [
            self._system_group(zone, count, role, template, opts)
            for zone, count in dealt_out(nodes.count, tuple(args.subnet_ids)).items()
        ]

    def _system_group(
        self, zone: str, count: int, role: aws.iam.Role, template: aws.ec2.LaunchTemplate, opts: pulumi.ResourceOptions
    ) -> aws.eks.NodeGroup:
        args, names, nodes = self._args, self._args.names, self._args.system_nodes
        return aws.eks.NodeGroup(
            f"{self._name}-system-nodes-{zone}",
            cluster_name=self.cluster.name,
            node_group_name=names.name(f"system-{zone}"),
            node_role_arn=role.arn,
            subnet_ids=[args.subnet_ids[zone]],
            version=args.version,
            ami_type=nodes.ami_type,
            instance_types=list(nodes.instance_types),
            capacity_type="ON_DEMAND",
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            # One more than needed, so that an update can start the new node before it drains the old one.
            scaling_config={"min_size": count, "max_size": count + 1, "desired_size": count},
            update_config={"max_unavailable": 1},
            tags=names.tags("system-nodes"),
            opts=opts,
        )
