"""Kubernetes objects of the Cluster Autoscaler as plain data."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from ringfence.names import SANDBOX_NODE_LABEL

NAME = "cluster-autoscaler"
_READ = ["get", "list", "watch"]
# What its scheduling simulation reads (kubernetes/autoscaler, cluster-autoscaler/cloudprovider/aws/examples). No secrets.
_READ_RESOURCES = {
    "": ["namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes", "pods", "replicationcontrollers", "services"],
    "apps": ["daemonsets", "replicasets", "statefulsets"],
    "batch": ["cronjobs", "jobs"],
    "policy": ["poddisruptionbudgets"],
    "resource.k8s.io": ["deviceclasses", "resourceclaims", "resourceslices"],
    "storage.k8s.io": ["csidrivers", "csinodes", "csistoragecapacities", "storageclasses", "volumeattachments"],
}  # fmt: skip


def _rule(group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> dict:
    rule: dict = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return rule | {"resourceNames": names} if names else rule


def cluster_rules() -> list[dict]:
    """Read what scheduling depends on; taint and cordon nodes; evict pods; say so in events."""
    read = [_rule(group, resources, _READ) for group, resources in _READ_RESOURCES.items()]
    return [
        *read,
        _rule("", ["nodes"], ["patch", "update"]),
        _rule("", ["pods/eviction"], ["create"]),
        _rule("", ["events"], ["create", "patch"]),
    ]


def namespace_rules() -> list[dict]:
    """Its own lease, status and priorities."""
    own = ["cluster-autoscaler-status", "cluster-autoscaler-priority-expander"]
    return [
        _rule("", ["configmaps"], ["create", "list", "watch"]),
        _rule("", ["configmaps"], ["delete", "get", "update"], own),
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        _rule("coordination.k8s.io", ["leases"], ["get", "update"], [NAME]),
    ]


def network_policy_spec(vpc_cidr: str, service_cidr: str) -> dict:
    """Nothing in; out to the Kubernetes API, cluster DNS, the Pod Identity agent and, over TLS, AWS."""
    inside = [{"ipBlock": {"cidr": cidr}} for cidr in (vpc_cidr, service_cidr)]
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [
            {"to": inside, "ports": dns},
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}],
             "ports": [{"protocol": "TCP", "port": 443}]},
            {"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}], "ports": [{"protocol": "TCP", "port": 80}]},
        ],
    }  # fmt: skip


def deployment_spec(
    image: str, namespace: str, region: str, discovery_tag: str, always_on: Sequence[pulumi.Input[str]] = ()
) -> dict:
    """One replica under Pod Security `restricted`, on a system node. It sees only groups that carry the tag, and keeps those
    of `always_on` (`MIN:MAX:GROUP`) at their minimum or above."""
    labels = {"app.kubernetes.io/name": NAME}
    arguments: list[pulumi.Input[str]] = [
        "--cloud-provider=aws",
        f"--namespace={namespace}",
        f"--node-group-auto-discovery=asg:tag={discovery_tag}",
        # Minimum and maximum that are given here win over those of the Auto Scaling group (auto_scaling_groups.go).
        *(pulumi.Output.concat("--nodes=", group) for group in always_on),
        "--enforce-node-group-min-size=true",
        "--expander=priority",
        "--scale-down-unneeded-time=5m",
        "--skip-nodes-with-system-pods=false",
        "--stderrthreshold=info",
    ]
    container = {
        "name": NAME,
        "image": image,
        "command": ["./cluster-autoscaler", *arguments],
        "env": [{"name": "AWS_REGION", "value": region}],
        "resources": {"requests": {"cpu": "50m", "memory": "160Mi"}, "limits": {"memory": "320Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    not_sandbox = {"matchExpressions": [{"key": SANDBOX_NODE_LABEL, "operator": "DoesNotExist"}]}
    return {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "strategy": {"type": "Recreate"},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "serviceAccountName": NAME,
                "priorityClassName": "system-cluster-critical",
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [not_sandbox]}
                    }
                },
                "containers": [container],
            },
        },
    }
