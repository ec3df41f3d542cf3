"""The Kubernetes objects that fence one invocation in: namespace, quota, limits, network policies.

Trust zone: control side. The admission policies of `components.sandbox` refuse a pod in a `sandbox-*` namespace that
lacks any of these, so a runner that forgets one gets no sandbox rather than an open one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.names import LABEL_DOMAIN, SANDBOX_NAMESPACE_PREFIX

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
DEADLINE_ANNOTATION = f"{LABEL_DOMAIN}/deadline"


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
    """Nothing in, nothing out, DNS included. Policies add up, so no other may open more than one tool's port."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": NETWORK_POLICY_NAME, "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def proxy_egress(namespace: str, proxy_cidrs: Sequence[str], ports: Sequence[int]) -> dict[str, Any]:
    """Out to the proxy's listeners of this invocation's tools and nowhere else. Raises ValueError when it opens nothing."""
    if not proxy_cidrs or not ports:
        raise ValueError("an egress policy needs the proxy's addresses and at least one tool's port")
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "tool-egress", "namespace": namespace},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [
                {
                    "to": [{"ipBlock": {"cidr": cidr}} for cidr in sorted(proxy_cidrs)],
                    "ports": [{"protocol": "TCP", "port": port} for port in sorted(set(ports))],
                }
            ],
        },
    }
