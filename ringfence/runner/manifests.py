"""The Kubernetes objects that fence one invocation in: namespace, quota, limits, network policies.

Trust zone: control side. The admission policies of `components.sandbox` refuse a pod in a `sandbox-*` namespace that
lacks any of these, so a runner that forgets one gets no sandbox rather than an open one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.names import LABEL_DOMAIN, RUNNER_SERVICE_ACCOUNT, SANDBOX_NAMESPACE_PREFIX, SYSTEM_NAMESPACE

# Object names that the admission policies look for.
NETWORK_POLICY_NAME = "default-deny"
QUOTA_NAME = "invocation"
LIMIT_RANGE_NAME = "invocation"
# Pod Security's version is pinned so that a cluster upgrade doesn't change what is refused unseen.
POD_SECURITY_LEVEL = "restricted"
POD_SECURITY_VERSION = "v1.36"
POD_SECURITY_LABELS: Mapping[str, str] = {
    f"pod-security.kubernetes.io/{mode}{suffix}": value
    for mode in ("enforce", "audit", "warn")
    for suffix, value in (("", POD_SECURITY_LEVEL), ("-version", POD_SECURITY_VERSION))
}
INVOCATION_LABEL = f"{LABEL_DOMAIN}/invocation"
OWNER_LABEL = f"{LABEL_DOMAIN}/owner"
WARM_LABEL = f"{LABEL_DOMAIN}/warm"
DEADLINE_ANNOTATION = f"{LABEL_DOMAIN}/deadline"
# The wall clock of an invocation (design, decision 8) and a margin for pulling the image; and how long a sandbox may wait
# for its task before that. A pod's deadline is set when it is made, and can only be lowered afterwards.
MAX_DEADLINE_SECONDS = 330
MAX_WARM_SECONDS = 600
# The runner's own ClusterRole inside of a unit's namespace, bound there and nowhere else.
UNIT_CLUSTER_ROLE = "ringfence-sandbox-unit"


@dataclass(frozen=True, slots=True)
class UnitLimits:
    """What one invocation's namespace may hold in all. Defaults are one pod of the promised size and a spare."""

    pods: int = 2
    cpu: str = "1"
    memory: str = "1Gi"
    ephemeral_storage: str = "2Gi"
    max_container_cpu: str = "1"
    max_container_memory: str = "1Gi"


def namespace_name(invocation_id: str) -> str:
    """``sandbox-<id>``. Raises ValueError when that isn't a DNS label of at most 63 characters."""
    name = f"{SANDBOX_NAMESPACE_PREFIX}{invocation_id}"
    if len(name) > 63 or not all(char.isascii() and (char.isalnum() or char == "-") for char in name):
        raise ValueError(f"invocation id {invocation_id!r} gives no valid namespace name")
    if name != name.lower() or name.endswith("-"):
        raise ValueError(f"invocation id {invocation_id!r} gives no valid namespace name")
    return name


def namespace(invocation_id: str, deadline: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The namespace, with Pod Security enforced and the deadline (RFC 3339) after which anyone may reap it."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": namespace_name(invocation_id),
            "labels": {**labels, **POD_SECURITY_LABELS, INVOCATION_LABEL: invocation_id},
            "annotations": {DEADLINE_ANNOTATION: deadline},
        },
    }


def resource_quota(namespace: str, limits: UnitLimits) -> dict[str, Any]:
    """The quota: a few pods, no volumes that outlive the pod, no service, no token."""
    hard = {
        "pods": str(limits.pods),
        "requests.cpu": limits.cpu,
        "limits.cpu": limits.cpu,
        "requests.memory": limits.memory,
        "limits.memory": limits.memory,
        "requests.ephemeral-storage": limits.ephemeral_storage,
        "limits.ephemeral-storage": limits.ephemeral_storage,
        "persistentvolumeclaims": "0",
        "services": "0",
        "count/serviceaccounts": "1",
        "count/ingresses.networking.k8s.io": "0",
        "count/jobs.batch": "0",
        "count/cronjobs.batch": "0",
        "count/deployments.apps": "0",
        "count/daemonsets.apps": "0",
        "count/statefulsets.apps": "0",
        "count/replicasets.apps": "0",
        "count/replicationcontrollers": "0",
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": QUOTA_NAME, "namespace": namespace},
        "spec": {"hard": hard},
    }


def limit_range(namespace: str, limits: UnitLimits) -> dict[str, Any]:
    """The most that one container may ask for."""
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": LIMIT_RANGE_NAME, "namespace": namespace},
        "spec": {
            "limits": [
                {
                    "type": "Container",
                    "max": {
                        "cpu": limits.max_container_cpu,
                        "memory": limits.max_container_memory,
                        "ephemeral-storage": limits.ephemeral_storage,
                    },
                }
            ]
        },
    }


def default_deny(namespace: str) -> dict[str, Any]:
    """Nothing in, nothing out, DNS included. Policies add up: the others open the gateway and the tools' ports."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": NETWORK_POLICY_NAME, "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def tool_egress(namespace: str, proxy_cidrs: Sequence[str], ports: Sequence[int]) -> dict[str, Any]:
    """Out to the proxy's listeners of this invocation's tools and nowhere else. Raises ValueError when it opens nothing."""
    if not proxy_cidrs or not ports:
        raise ValueError("an egress policy needs the proxy's addresses and at least one tool's port")
    return _egress(namespace, "tool-egress", [_block(cidr) for cidr in sorted(proxy_cidrs)], sorted(set(ports)))


def gateway_egress(namespace: str, address: str, port: int, labels: Mapping[str, str]) -> dict[str, Any]:
    """Out to the model gateway: its address, and the pods of `labels` in the system namespace behind it, which is what a
    network plugin that looks behind Services compares with."""
    peers: list[dict[str, Any]] = [_block(f"{address}/32")]
    if labels:
        system = {"kubernetes.io/metadata.name": SYSTEM_NAMESPACE}
        peers.append({"namespaceSelector": {"matchLabels": system}, "podSelector": {"matchLabels": dict(labels)}})
    return _egress(namespace, "gateway-egress", peers, [port])


def _block(cidr: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr}}


def _egress(namespace: str, name: str, peers: Sequence[Mapping[str, Any]], ports: Sequence[int]) -> dict[str, Any]:
    rule = {"to": list(peers), "ports": [{"protocol": "TCP", "port": port} for port in ports]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]},
    }


def unit_binding(namespace: str) -> dict[str, Any]:
    """The runner's rights inside of the unit, which end with its namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "unit", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": UNIT_CLUSTER_ROLE},
        "subjects": [
            {"kind": "ServiceAccount", "name": RUNNER_SERVICE_ACCOUNT, "namespace": SYSTEM_NAMESPACE},
        ],
    }
