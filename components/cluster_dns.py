"""CoreDNS in a cluster whose pods may not talk until a policy says so."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from ringfence.names import SANDBOX_NODE_LABEL, Names
from ringfence.runner.manifests import INVOCATION_LABEL
from ringfence.versions import EKS_ADDON_VERSIONS

_NAMESPACE = "kube-system"
_COREDNS_PODS = {"k8s-app": "kube-dns"}


@dataclass(frozen=True)
class ClusterDnsArgs:
    """vpc_cidr and service_cidr: where the Kubernetes API answers. nodes: the system node groups, since CoreDNS runs
    there and the add-on is not done before its pods are ready."""

    names: Names
    cluster_name: str
    vpc_cidr: str
    service_cidr: str
    nodes: tuple[pulumi.Resource, ...]


def _ports(*ports: tuple[str, int]) -> list[dict]:
    return [{"protocol": protocol, "port": port} for protocol, port in ports]


def coredns_network_policy_spec(vpc_cidr: str, service_cidr: str) -> dict:
    """Everybody but sandboxes may ask; CoreDNS itself reaches the Kubernetes API and the VPC's resolver.

    Sandboxes' namespaces carry the invocation label; admission refuses them without it.
    """
    dns = _ports(("UDP", 53), ("TCP", 53))
    no_sandbox = {"matchExpressions": [{"key": INVOCATION_LABEL, "operator": "DoesNotExist"}]}
    inside = [{"ipBlock": {"cidr": cidr}} for cidr in (vpc_cidr, service_cidr)]
    return {
        "podSelector": {"matchLabels": _COREDNS_PODS},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"namespaceSelector": no_sandbox}], "ports": dns}],
        "egress": [
            {"to": inside, "ports": _ports(("TCP", 443))},
            {"to": [{"ipBlock": {"cidr": vpc_cidr}}, {"ipBlock": {"cidr": "169.254.169.253/32"}}], "ports": dns},
        ],
    }


class ClusterDns(pulumi.ComponentResource):
    """Name resolution for the control side. Needs a Kubernetes provider for the cluster.

    Makes: the NetworkPolicy of CoreDNS; the CoreDNS add-on, after the policy: in strict mode CoreDNS without a policy
    reaches no API server and never gets ready.
    Protects against: names as a way out of a sandbox (sandbox namespaces get no answer); CoreDNS on a sandbox node.
    Trust zone: control side.

    Outputs: addon (to depend on).
    """

    def __init__(self, name: str, args: ClusterDnsArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:ClusterDns", name, None, opts)
        policy = k8s.networking.v1.NetworkPolicy(
            f"{name}-coredns",
            metadata={"name": "coredns", "namespace": _NAMESPACE, "labels": dict(args.names.labels("coredns"))},
            spec=coredns_network_policy_spec(args.vpc_cidr, args.service_cidr),
            opts=pulumi.ResourceOptions(parent=self),
        )
        not_sandbox = {"key": SANDBOX_NODE_LABEL, "operator": "DoesNotExist"}
        affinity = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [not_sandbox]}]
                }
            }
        }
        self.addon = aws.eks.Addon(
            f"{name}-addon",
            cluster_name=args.cluster_name,
            addon_name="coredns",
            addon_version=EKS_ADDON_VERSIONS["coredns"],
            configuration_values=json.dumps({"affinity": affinity}, sort_keys=True),
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            tags=args.names.tags(),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy, *args.nodes]),
        )
        self.register_outputs({})
