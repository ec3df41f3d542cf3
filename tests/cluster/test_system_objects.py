"""The control side's objects, as the real API server takes them: strictly, and under Pod Security `restricted`."""

from __future__ import annotations

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from components.cluster_dns import coredns_network_policy_spec
from components.gvisor_pool import OVERHEAD, SCHEDULING
from components.node_autoscaler_manifests import (
    NAME,
    cluster_rules,
    deployment_spec,
    namespace_rules,
    network_policy_spec,
)
from ringfence.names import GVISOR_RUNTIME_CLASS, SANDBOX_NODE_LABEL

pytestmark = pytest.mark.cluster
STRICT = {"dry_run": "All", "field_validation": "Strict"}
# Other tests on the same server make the real one.
RUNTIME_CLASS = f"{GVISOR_RUNTIME_CLASS}-of-system-objects"
IMAGE = "registry.example.com/x@sha256:" + "0" * 64


@pytest.fixture(scope="module")
def restricted(api_server):
    """A namespace in which only restricted pods may run, and a service account for them."""
    core = client.CoreV1Api(api_server.client)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": "system-objects", "labels": labels}})
    core.create_namespaced_service_account("system-objects", {"metadata": {"name": NAME}})
    yield "system-objects"
    core.delete_namespace("system-objects")


def _deployment(namespace: str) -> dict:
    spec = deployment_spec(IMAGE, namespace, "us-east-1", "ringfence.dev/autoscaled-by/ringfence-test")
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": spec}


def test_the_autoscaler_is_taken_and_its_pod_passes_restricted(api_server, restricted):
    client.AppsV1Api(api_server.client).create_namespaced_deployment(restricted, _deployment(restricted), **STRICT)
    pod = {"metadata": {"name": "autoscaler"}, "spec": _deployment(restricted)["spec"]["template"]["spec"]}
    core = client.CoreV1Api(api_server.client)
    core.create_namespaced_pod(restricted, pod, **STRICT)
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]
    with pytest.raises(ApiException, match="restricted"):
        core.create_namespaced_pod(restricted, pod, **STRICT)


def test_network_policies_and_permissions_are_taken(api_server, restricted):
    networking = client.NetworkingV1Api(api_server.client)
    for spec in (
        network_policy_spec("10.42.0.0/16", "172.20.0.0/16"),
        coredns_network_policy_spec("10.42.0.0/16", "172.20.0.0/16"),
    ):
        networking.create_namespaced_network_policy(restricted, {"metadata": {"name": "p"}, "spec": spec}, **STRICT)
    rbac = client.RbacAuthorizationV1Api(api_server.client)
    rbac.create_cluster_role({"metadata": {"name": NAME}, "rules": cluster_rules()}, **STRICT)
    rbac.create_namespaced_role(restricted, {"metadata": {"name": NAME}, "rules": namespace_rules()}, **STRICT)


def test_the_runtime_class_adds_selector_toleration_and_overhead_to_a_sandbox(api_server, restricted):
    runtime = {
        "metadata": {"name": RUNTIME_CLASS},
        "handler": "runsc",
        "overhead": {"podFixed": OVERHEAD},
        "scheduling": SCHEDULING,
    }
    node = client.NodeV1Api(api_server.client)
    node.create_runtime_class(runtime, field_validation="Strict")
    try:
        pod = {"metadata": {"name": "sandbox"}, "spec": _deployment(restricted)["spec"]["template"]["spec"]}
        del pod["spec"]["affinity"]
        pod["spec"]["runtimeClassName"] = RUNTIME_CLASS
        made = client.CoreV1Api(api_server.client).create_namespaced_pod(restricted, pod, **STRICT)
    finally:
        node.delete_runtime_class(RUNTIME_CLASS)
    assert made.spec.node_selector == {SANDBOX_NODE_LABEL: GVISOR_RUNTIME_CLASS}
    assert made.spec.overhead == OVERHEAD
    assert any(t.key == SANDBOX_NODE_LABEL for t in made.spec.tolerations)
