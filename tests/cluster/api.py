"""Applying manifests to the real API server, and the RuntimeClass that sandboxes name."""

from __future__ import annotations

from typing import Any

from kubernetes import client, dynamic

FIELD_MANAGER = "ringfence-test"
RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "gvisor"},
    "handler": "runsc",
    "overhead": {"podFixed": {"cpu": "100m", "memory": "64Mi"}},
    "scheduling": {
        "nodeSelector": {"ringfence.dev/sandbox": "true"},
        "tolerations": [{"key": "ringfence.dev/sandbox", "operator": "Exists", "effect": "NoSchedule"}],
    },
}


class Api:
    """Applies manifests through the dynamic client, as the administrator or as somebody else."""

    def __init__(self, configuration: client.Configuration, user: str | None = None):
        api_client = client.ApiClient(configuration)
        if user:
            api_client.set_default_header("Impersonate-User", user)
            namespace = user.split(":")[2]
            api_client.set_default_header("Impersonate-Group", f"system:serviceaccounts:{namespace}")
        self.core = client.CoreV1Api(api_client)
        self.dynamic = dynamic.DynamicClient(api_client)

    def apply(self, manifest: dict[str, Any]) -> None:
        resource = self.dynamic.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
        self.dynamic.server_side_apply(
            resource,
            body=manifest,
            name=manifest["metadata"]["name"],
            namespace=manifest["metadata"].get("namespace"),
            field_manager=FIELD_MANAGER,
        )

    def create_pod(self, namespace: str, pod: dict[str, Any], dry_run: bool = True) -> None:
        self.core.create_namespaced_pod(namespace, pod, dry_run="All" if dry_run else None)
