"""The secrets store's objects, as the real API server takes them: strictly, and under Pod Security `restricted`."""

from __future__ import annotations

import base64
import copy
import time
from typing import Any

import pytest
from kubernetes import client, dynamic
from kubernetes.client.exceptions import ApiException

from components.block_storage import BlockStorage, BlockStorageArgs
from components.vault import Vault, VaultArgs
from ringfence.names import SYSTEM_NAMESPACE, VAULT_NAMESPACE, Names
from tests.components.conftest import Recorder

pytestmark = pytest.mark.cluster
NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
STRICT = {"dry_run": "All", "field_validation": "Strict"}


def manifests(distribution: str, replicas: int) -> list[dict[str, Any]]:
    def program() -> None:
        BlockStorage("storage", BlockStorageArgs(NAMES, "ringfence-test"))
        Vault("vault", VaultArgs(NAMES, "ringfence-test", "ringfence-encrypted", distribution, replicas))

    def computed(type_: str, name: str, inputs: Any) -> dict[str, str]:
        return {"base64": base64.b64encode(name[:1].encode() * 32).decode()} if "RandomBytes" in type_ else {}

    recording = Recorder()(program, computed=computed)
    return [dict(r.inputs) for r in recording.resources if r.type.startswith("kubernetes:")]


@pytest.fixture(scope="module")
def core(api_server) -> client.CoreV1Api:
    """The namespaces and service accounts that the pods need, made for real; the rest is tried without being kept."""
    core = client.CoreV1Api(api_server.client)
    for manifest in manifests("openbao", 3):
        if manifest["kind"] == "Namespace":
            core.create_namespace(manifest)
    if all(item.metadata.name != SYSTEM_NAMESPACE for item in core.list_namespace().items):
        core.create_namespace({"metadata": {"name": SYSTEM_NAMESPACE}})
    for manifest in manifests("openbao", 3):
        if manifest["kind"] == "ServiceAccount":
            core.create_namespaced_service_account(VAULT_NAMESPACE, manifest)
    deadline = time.monotonic() + 120
    while not any(
        m.metadata.name == "kube-root-ca.crt" for m in core.list_namespaced_config_map(VAULT_NAMESPACE).items
    ):
        assert time.monotonic() < deadline, "the namespace has no cluster CA"
        time.sleep(0.1)
    yield core
    core.delete_namespace(VAULT_NAMESPACE)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("distribution", ["openbao", "vault"])
def test_every_object_is_taken_without_an_unknown_field(api_server, core, distribution, replicas):
    api = dynamic.DynamicClient(api_server.client)
    kinds = set()
    for manifest in manifests(distribution, replicas):
        resource = api.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
        api.server_side_apply(
            resource, body=manifest, name=manifest["metadata"]["name"], namespace=manifest["metadata"].get("namespace"),
            field_manager="ringfence-test", force_conflicts=True,
            query_params=[("dryRun", "All"), ("fieldValidation", "Strict")],
        )  # fmt: skip
        kinds.add(manifest["kind"])
    assert {"StatefulSet", "CronJob", "NetworkPolicy", "PodDisruptionBudget", "Secret", "StorageClass"} <= kinds


def pod_specs(distribution: str) -> dict[str, dict[str, Any]]:
    made = {m["kind"]: m["spec"] for m in manifests(distribution, 3) if m["kind"] in ("StatefulSet", "CronJob")}
    servers = copy.deepcopy(made["StatefulSet"]["template"]["spec"])
    # What the StatefulSet controller adds for each replica.
    servers["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data-vault-0"}})
    return {"servers": servers, "snapshot": made["CronJob"]["jobTemplate"]["spec"]["template"]["spec"]}


@pytest.mark.parametrize("workload", ["servers", "snapshot"])
@pytest.mark.parametrize("distribution", ["openbao", "vault"])
def test_the_pods_pass_restricted_and_hold_no_token_beyond_the_declared_one(core, distribution, workload):
    pod = {"metadata": {"name": workload}, "spec": pod_specs(distribution)[workload]}
    made = core.create_namespaced_pod(VAULT_NAMESPACE, pod, **STRICT)
    tokens = [v for v in made.spec.volumes if v.projected and any(s.service_account_token for s in v.projected.sources)]
    assert len(tokens) == 1 and not tokens[0].name.startswith("kube-api-access")


@pytest.mark.parametrize("workload", ["servers", "snapshot"])
def test_the_same_pods_with_one_protection_less_are_refused(core, workload):
    for weaken in (
        lambda spec: spec["securityContext"].pop("runAsNonRoot"),
        lambda spec: spec["securityContext"].pop("seccompProfile"),
        lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"),
        lambda spec: spec["containers"][0]["securityContext"].update(allowPrivilegeEscalation=True),
    ):
        spec = copy.deepcopy(pod_specs("openbao")[workload])
        weaken(spec)
        with pytest.raises(ApiException, match="restricted"):
            core.create_namespaced_pod(VAULT_NAMESPACE, {"metadata": {"name": workload}, "spec": spec}, **STRICT)


def test_the_store_may_review_tokens_and_do_nothing_else(api_server, core):
    rbac = client.RbacAuthorizationV1Api(api_server.client)
    made = [m for m in manifests("openbao", 1) if m["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    store = f"system:serviceaccount:{VAULT_NAMESPACE}:vault"

    def may(verb: str, group: str, resource: str) -> bool:
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": VAULT_NAMESPACE}
        review = {"spec": {"user": store, "resourceAttributes": attributes}}
        authorization = client.AuthorizationV1Api(api_server.client)
        return bool(authorization.create_subject_access_review(review).status.allowed)

    assert not may("create", "authentication.k8s.io", "tokenreviews")
    rbac.create_cluster_role(next(m for m in made if m["kind"] == "ClusterRole"))
    rbac.create_cluster_role_binding(next(m for m in made if m["kind"] == "ClusterRoleBinding"))
    try:
        deadline = time.monotonic() + 120
        while not may("create", "authentication.k8s.io", "tokenreviews"):
            assert time.monotonic() < deadline, "the binding has no effect"
            time.sleep(0.1)
        for verb, group, resource in (
            ("get", "", "secrets"), ("create", "", "pods"), ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ):  # fmt: skip
            assert not may(verb, group, resource)
    finally:
        for manifest in made:
            kind = "cluster_role" if manifest["kind"] == "ClusterRole" else "cluster_role_binding"
            getattr(rbac, f"delete_{kind}")(manifest["metadata"]["name"])
