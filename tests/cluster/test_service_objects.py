"""The service's objects, as the real API server takes them: strictly, and under Pod Security `restricted`."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from components import service_manifests as manifests
from ringfence.names import RUNNER_SERVICE_ACCOUNT
from ringfence.runner.manifests import POD_SECURITY_LABELS

pytestmark = pytest.mark.cluster
NAMESPACE = "service-objects"
STRICT = {"dry_run": "All", "field_validation": "Strict"}
FILES = {"Pulumi.yaml": "name: x\n", "catalog/tools/a.yaml": "name: a\n"}
GIVEN = manifests.arguments("test", "https://id.example.com", "ringfence", 60, True)


def deployment() -> dict[str, Any]:
    return manifests.deployment_spec(f"x/y@sha256:{'a' * 64}", GIVEN, "us-east-1", FILES, "service-tls", 60)


@pytest.fixture(scope="module")
def core(api_server) -> client.CoreV1Api:
    core = client.CoreV1Api(api_server.client)
    core.create_namespace({"metadata": {"name": NAMESPACE, "labels": dict(POD_SECURITY_LABELS)}})
    core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": RUNNER_SERVICE_ACCOUNT}})
    return core


def made(core: client.CoreV1Api, spec: dict[str, Any]) -> Any:
    """The pod of a deployment, tried on the API server until its namespace is settled."""
    template = copy.deepcopy(spec["template"])
    body = {"metadata": {"name": "pod", "labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    # No controller copies it; its class is one that every cluster has.
    deadline = time.monotonic() + 120
    while True:
        try:
            return core.create_namespaced_pod(NAMESPACE, body, **STRICT)
        except ApiException as error:
            if "service account" not in str(error.body) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_the_pod_is_accepted_under_restricted_and_one_with_a_host_path_is_not(core):
    spec = deployment()
    # Only kube-system may use the class on a bare cluster with quotas; here it is not what is tried.
    del spec["template"]["spec"]["priorityClassName"]
    made(core, spec)
    spec["template"]["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    with pytest.raises(ApiException, match="violates PodSecurity"):
        made(core, spec)


def test_every_other_object_is_accepted_as_written(api_server, core):
    meta = {"metadata": {"name": "service"}}
    network, apps = client.NetworkingV1Api(api_server.client), client.AppsV1Api(api_server.client)
    policy = client.PolicyV1Api(api_server.client)
    network.create_namespaced_network_policy(
        NAMESPACE, meta | {"spec": manifests.network_policy_spec(["10.0.0.0/16"])}, **STRICT
    )
    apps.create_namespaced_deployment(NAMESPACE, meta | {"spec": deployment()}, **STRICT)
    policy.create_namespaced_pod_disruption_budget(
        NAMESPACE, meta | {"spec": manifests.disruption_budget_spec()}, **STRICT
    )
    core.create_namespaced_service(NAMESPACE, meta | {"spec": manifests.api_service_spec()}, **STRICT)
    core.create_namespaced_persistent_volume_claim(
        NAMESPACE, meta | {"spec": manifests.state_spec("gp3", 10)}, **STRICT
    )
    names = manifests.file_keys(FILES)
    core.create_namespaced_config_map(
        NAMESPACE, meta | {"data": {names[path]: text for path, text in FILES.items()}}, **STRICT
    )
