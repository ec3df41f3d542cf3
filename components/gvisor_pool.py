"""The nodes that sandboxes run on, and the RuntimeClass that brings sandboxes, and nothing else, to them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components.artifacts import read_statement
from components.cluster import KUBELET_PORT, SERVICE_CIDR
from components.gvisor_user_data import NodeSpec, user_data
from components.node_role import node_role
from components.node_template import node_launch_template
from ringfence.errors import InputError, Problem
from ringfence.names import GVISOR_HANDLER, GVISOR_RUNTIME_CLASS, LABEL_DOMAIN, SANDBOX_NODE_LABEL, Names
from ringfence.runner.places import GATEWAY_PORT
from ringfence.versions import EKS_VERSION, GVISOR_RELEASE

SPOT, ON_DEMAND = "spot", "on-demand"
_ARCHITECTURES = {"arm64": ("aarch64", "AL2023_ARM_64_STANDARD"), "x86_64": ("x86_64", "AL2023_x86_64_STANDARD")}
# What one sandbox costs beside its containers: the sentry, the gofer and the shim. An estimate, not a measurement; the
# scheduler and the quota count it.
OVERHEAD = {"cpu": "50m", "memory": "96Mi"}
OTLP_PORT = 4317
SMALLEST_DISK_GIB = 20
# What Cluster Autoscaler reads from an Auto Scaling group's tags to know the nodes of an empty one
# (kubernetes/autoscaler, cluster-autoscaler/cloudprovider/aws/README.md).
_NODE_TEMPLATE = "k8s.io/cluster-autoscaler/node-template"
# Added by the API server to every pod of the RuntimeClass.
SCHEDULING = {
    "nodeSelector": {SANDBOX_NODE_LABEL: GVISOR_RUNTIME_CLASS},
    "tolerations": [
        {"key": SANDBOX_NODE_LABEL, "operator": "Equal", "value": GVISOR_RUNTIME_CLASS, "effect": "NoSchedule"}
    ],
}


@dataclass(frozen=True)
class PoolSize:
    """Nodes of one capacity type in one zone: `minimum` always run, in the first zone only, kept by the autoscaler; at most
    `maximum`; no group is made when that is 0."""

    minimum: int = 0
    maximum: int = 4


@dataclass(frozen=True)
class ProxyEndpoint:
    """The egress proxy as nodes and sandboxes see it. node_port: the listener for the nodes' own calls; tool_ports:
    first and last port of the tools' listeners."""

    host: str
    node_port: int
    tool_ports: tuple[int, int]
    security_group_id: pulumi.Input[str]


@dataclass(frozen=True)
class GvisorPoolArgs:
    """subnet_ids: sandbox subnets by availability zone, in the order of the settings. s3_prefix_list_id: of the S3
    gateway endpoint. system_ports: TCP ports of the control side that sandbox nodes may reach (collector, model gateway).
    architecture: arm64 or x86_64, of all instance types. nodes_ready: what must exist before nodes start (the add-ons,
    the mirrored release).
    """

    names: Names
    cluster_name: pulumi.Input[str]
    vpc_id: pulumi.Input[str]
    vpc_cidr: str
    subnet_ids: Mapping[str, pulumi.Input[str]]
    control_plane_security_group_id: pulumi.Input[str]
    system_security_group_id: pulumi.Input[str]
    s3_prefix_list_id: pulumi.Input[str]
    proxy: ProxyEndpoint
    system_ports: tuple[int, ...] = (OTLP_PORT, GATEWAY_PORT)
    spot: PoolSize = PoolSize()
    on_demand: PoolSize = PoolSize(maximum=1)
    instance_types: tuple[str, ...] = ("m7g.large", "m6g.large")
    architecture: str = "arm64"
    disk_gib: int = 50
    version: str = EKS_VERSION
    nodes_ready: tuple[pulumi.Resource, ...] = ()

    @property
    def sizes(self) -> dict[str, PoolSize]:
        """Capacity type → size, of the groups to make."""
        return {kind: size for kind, size in ((SPOT, self.spot), (ON_DEMAND, self.on_demand)) if size.maximum > 0}


def autoscaler_tag(names: Names) -> str:
    """Key of the tag by which the autoscaler knows the pool's Auto Scaling groups, and no others."""
    return f"{LABEL_DOMAIN}/autoscaled-by/{names.base}"


def schedulable_storage(disk_gib: int) -> str:
    """Ephemeral storage that pods may ask for on a node, as a Kubernetes quantity: the disk without what the kubelet keeps
    free (a tenth), reserves for itself (1 GiB) and the file system takes (less than 1 GiB)."""
    return f"{disk_gib * 9 // 10 - 2}Gi"


def autoscaler_template_tags(disk_gib: int) -> dict[str, tuple[str, str]]:
    """What → (key, value) of the tags that say what a node of an empty group will have.

    Without the label or the storage no group fits a sandbox, which selects the one and must limit the other: the pool would
    stay empty for ever. The taint keeps pods that don't tolerate it from starting nodes.
    """
    return {
        "label": (f"{_NODE_TEMPLATE}/label/{SANDBOX_NODE_LABEL}", GVISOR_RUNTIME_CLASS),
        "taint": (f"{_NODE_TEMPLATE}/taint/{SANDBOX_NODE_LABEL}", f"{GVISOR_RUNTIME_CLASS}:NoSchedule"),
        "storage": (f"{_NODE_TEMPLATE}/resources/ephemeral-storage", schedulable_storage(disk_gib)),
    }


def _check(args: GvisorPoolArgs) -> None:
    problems = []
    if args.architecture not in _ARCHITECTURES:
        remedy = " or ".join(_ARCHITECTURES)
        problems.append(Problem("gVisor pool", "architecture", f"is {args.architecture!r}", remedy))
    if not args.sizes:
        problems.append(Problem("gVisor pool", "spot, on_demand", "no node could ever run", "a maximum above 0"))
    for kind, size in args.sizes.items():
        if not 0 <= size.minimum <= size.maximum:
            message = f"{size.minimum} to {size.maximum} nodes"
            problems.append(Problem("gVisor pool", kind, message, "0 ≤ minimum ≤ maximum"))
    if not args.subnet_ids:
        problems.append(Problem("gVisor pool", "subnet_ids", "is empty", "the sandbox subnet of each zone"))
    if args.disk_gib < SMALLEST_DISK_GIB:
        remedy = f"{SMALLEST_DISK_GIB} or more"
        problems.append(Problem("gVisor pool", "disk_gib", f"is {args.disk_gib}: no room for images", remedy))
    if not args.instance_types:
        problems.append(Problem("gVisor pool", "instance_types", "is empty", "e.g. m7g.large"))
    if problems:
        raise InputError(problems)


class GvisorPool(pulumi.ComponentResource):
    """Nodes for hostile code. Needs an AWS and a Kubernetes provider.

    Makes: a node group per zone and capacity type (spot, on-demand), tainted, made empty, with the autoscaler's tags on their
    Auto Scaling groups; their launch template with the user data of `gvisor_user_data`; their role; their
    security group and its rules, also the matching ones of control plane, system nodes and proxy; the RuntimeClass
    `gvisor` with scheduling and overhead.
    Protects against: sandboxes on an ordinary node, or ordinary pods beside sandboxes (taint, selector); a node without
    a verified gVisor being used (handler and label are written after the checksum, or never); a sandbox that reaches
    anything but the proxy and the named system ports even without a NetworkPolicy (security group); the node's
    credentials (IMDSv2, hop limit 1); flags chosen by a pod (no annotations are passed on).
    Trust zone: sandbox (hostile); the node's role can pull images and read the gVisor release, and nothing of value.

    Booting needs no EC2 API through an endpoint: nodeadm's DescribeInstances and the add-ons' calls go to the proxy's
    node listener (`gvisor_user_data.node_hosts` lists every host), the release and image layers come over the S3 gateway
    endpoint, and the Kubernetes API is reached at its private endpoint.

    Outputs: node_group_names (known at preview); always_on (`MIN:MAX:GROUP` of groups that are never empty, as the
    autoscaler takes them); security_group_id; node_role_arn (known); runtime_class (name, known).
    """

    def __init__(self, name: str, args: GvisorPoolArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:GvisorPool", name, None, opts)
        _check(args)
        self._name, self._args = name, args
        names = args.names
        machine, ami_type = _ARCHITECTURES[args.architecture]
        spec = NodeSpec(names, machine, args.proxy.host, args.proxy.node_port, args.vpc_cidr, SERVICE_CIDR)
        self.runtime_class: str = GVISOR_RUNTIME_CLASS
        self.node_role_arn: str = names.iam_arn(f"role/{names.name('sandbox-node')}")
        rules = self._security_group()
        artifacts = read_statement(names, f"gvisor/{GVISOR_RELEASE}")
        role, ready = node_role(f"{name}-sandbox", names, "sandbox", (artifacts,), self)
        template = node_launch_template(
            f"{name}-sandbox", names, "sandbox-nodes", [self.security_group_id], args.disk_gib, self,
            base64.b64encode(user_data(spec).encode()).decode(),
        )  # fmt: skip
        self.node_group_names: list[str] = []
        self.always_on: list[pulumi.Output[str]] = []
        opts = pulumi.ResourceOptions(
            parent=self,
            depends_on=[*ready, *rules, *args.nodes_ready],
            ignore_changes=["scalingConfig.desiredSize"],  # the autoscaler's
        )
        first = next(iter(args.subnet_ids))
        for kind, size in args.sizes.items():
            for zone in args.subnet_ids:
                group = self._group(kind, zone, size.maximum, role, template, ami_type, opts)
                scaling_group = self._tell_autoscaler(f"{kind}-{zone}", group)
                if size.minimum and zone == first:
                    self.always_on.append(pulumi.Output.format("{}:{}:{}", size.minimum, size.maximum, scaling_group))
        self._runtime_class()
        self.register_outputs({})

    def _group(
        self,
        kind: str,
        zone: str,
        maximum: int,
        role: aws.iam.Role,
        template: aws.ec2.LaunchTemplate,
        ami_type: str,
        opts: pulumi.ResourceOptions,
    ) -> aws.eks.NodeGroup:
        """One zone's nodes of one kind. EKS can't change a group's subnets: with a group for all zones, one more zone
        would replace every sandbox node.

        Its minimum is 0 even where nodes always run: EKS reports a group as made once its nodes are ready, and they can't
        be before the bucket, made in the same run, holds gVisor and Envoy. The autoscaler keeps the minimum instead.
        """
        args, names = self._args, self._args.names
        group_name = names.name(f"sandbox-{kind}-{zone}")
        self.node_group_names.append(group_name)
        return aws.eks.NodeGroup(
            f"{self._name}-{kind}-{zone}",
            cluster_name=args.cluster_name,
            node_group_name=group_name,
            node_role_arn=role.arn,
            subnet_ids=[args.subnet_ids[zone]],
            version=args.version,
            ami_type=ami_type,
            instance_types=list(args.instance_types),
            capacity_type=kind.upper().replace("-", "_"),
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            scaling_config={"min_size": 0, "max_size": maximum, "desired_size": 0},
            update_config={"max_unavailable": 1},
            # The label is not here: the node gives it to itself once gVisor is verified.
            taints=[{"key": SANDBOX_NODE_LABEL, "value": GVISOR_RUNTIME_CLASS, "effect": "NO_SCHEDULE"}],
            tags=names.tags(f"sandbox-{kind}"),
            opts=opts,
        )

    def _tell_autoscaler(self, key: str, group: aws.eks.NodeGroup) -> pulumi.Output[str]:
        """Tags the group as the autoscaler's, with what its nodes will have. Returns the Auto Scaling group's name."""
        tags = {
            "discovery": (autoscaler_tag(self._args.names), "owned"),
            **autoscaler_template_tags(self._args.disk_gib),
        }
        scaling_group = group.resources.apply(lambda made: made[0].autoscaling_groups[0].name)
        for what, (tag, value) in tags.items():
            aws.autoscaling.Tag(
                f"{self._name}-{key}-{what}",
                autoscaling_group_name=scaling_group,
                tag={"key": tag, "value": value, "propagate_at_launch": False},
                opts=pulumi.ResourceOptions(parent=self),
            )
        return scaling_group

    def _runtime_class(self) -> None:
        k8s.node.v1.RuntimeClass(
            f"{self._name}-runtime-class",
            metadata={"name": GVISOR_RUNTIME_CLASS, "labels": dict(self._args.names.labels("gvisor"))},
            handler=GVISOR_HANDLER,
            overhead={"podFixed": OVERHEAD},
            scheduling=SCHEDULING,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _security_group(self) -> list[pulumi.Resource]:
        """No rule among sandbox nodes themselves, and no range of addresses: every peer is a named group."""
        args, names = self._args, self._args.names
        group = aws.ec2.SecurityGroup(
            f"{self._name}-sandbox",
            name=names.name("sandbox-nodes"),
            description="Nodes of the gVisor pool and the sandboxes on them",
            vpc_id=args.vpc_id,
            tags=names.tags("sandbox-nodes"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.security_group_id: pulumi.Output[str] = group.id
        api, system, proxy = (
            args.control_plane_security_group_id, args.system_security_group_id, args.proxy.security_group_id,
        )  # fmt: skip
        first, last = args.proxy.tool_ports
        node_port = args.proxy.node_port
        rules = [
            self._rule("in", "sandbox-kubelet", group.id, api, KUBELET_PORT, KUBELET_PORT, "logs and exec"),
            self._rule("out", "api-to-sandbox", api, group.id, KUBELET_PORT, KUBELET_PORT, "logs and exec"),
            self._rule("out", "sandbox-to-api", group.id, api, 443, 443, "Kubernetes API, for the kubelet"),
            self._rule("in", "api-from-sandbox", api, group.id, 443, 443, "Kubernetes API, for the kubelet"),
            self._rule("out", "sandbox-to-node-proxy", group.id, proxy, node_port, node_port, "the nodes' own calls"),
            self._rule("in", "proxy-from-node", proxy, group.id, node_port, node_port, "the nodes' own calls"),
            self._rule("out", "sandbox-to-tool-proxy", group.id, proxy, first, last, "tools' listeners"),
            self._rule("in", "proxy-from-sandbox", proxy, group.id, first, last, "tools' listeners"),
            aws.vpc.SecurityGroupEgressRule(
                f"{self._name}-sandbox-to-s3",
                security_group_id=group.id,
                prefix_list_id=args.s3_prefix_list_id,
                ip_protocol="tcp",
                from_port=443,
                to_port=443,
                description="S3 gateway endpoint: gVisor and image layers",
                tags=names.tags(),
                opts=pulumi.ResourceOptions(parent=self),
            ),
        ]
        for port in args.system_ports:
            rules.append(self._rule("out", f"sandbox-to-system-{port}", group.id, system, port, port, "control side"))
            rules.append(self._rule("in", f"system-from-sandbox-{port}", system, group.id, port, port, "sandbox nodes"))
        return rules

    def _rule(
        self,
        direction: str,
        key: str,
        owner: pulumi.Input[str],
        peer: pulumi.Input[str],
        first: int,
        last: int,
        why: str,
    ) -> pulumi.Resource:
        kind = aws.vpc.SecurityGroupIngressRule if direction == "in" else aws.vpc.SecurityGroupEgressRule
        return kind(
            f"{self._name}-{key}",
            security_group_id=owner,
            referenced_security_group_id=peer,
            ip_protocol="tcp",
            from_port=first,
            to_port=last,
            description=why,
            tags=self._args.names.tags(),
            opts=pulumi.ResourceOptions(parent=self),
        )
