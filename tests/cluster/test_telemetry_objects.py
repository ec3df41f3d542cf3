"""The collector's objects, as the real API server takes them: strictly, Pod Security and the agents' policy enforced."""

from __future__ import annotations

import copy
import time

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from components import collector_manifests as manifests
from ringfence.names import COLLECTOR_SERVICE_ACCOUNT
from ringfence.runner.manifests import POD_SECURITY_LABELS
from ringfence.telemetry_names import COLLECTOR, COLLECTOR_AGENT, TELEMETRY_NAMESPACE

pytestmark = pytest.mark.cluster
STRICT = {"dry_run": "All", "field_validation": "Strict"}
IMAGE = "registry.example.com/collector@sha256:" + "0" * 64
GATEWAY_NAMESPACE = "telemetry-gateway"


@pytest.fixture(scope="module")
def namespaces(api_server):
    """Both namespaces with the labels that the stack gives them, and their service accounts."""
    core = client.CoreV1Api(api_server.client)
    wanted = {
        GATEWAY_NAMESPACE: (POD_SECURITY_LABELS, COLLECTOR_SERVICE_ACCOUNT),
        TELEMETRY_NAMESPACE: (manifests.AGENT_NAMESPACE_LABELS, COLLECTOR_AGENT),
    }
    for namespace, (labels, account) in wanted.items():
        core.create_namespace({"metadata": {"name": namespace, "labels": dict(labels)}})
        core.create_namespaced_service_account(namespace, {"metadata": {"name": account}})
    yield
    for namespace in wanted:
        core.delete_namespace(namespace)


@pytest.fixture(scope="module")
def agent_policy(api_server, namespaces):
    """The admission policy, once the API server enforces it."""
    admission = client.AdmissionregistrationV1Api(api_server.client)
    metadata = {"name": manifests.AGENT_POLICY}
    admission.create_validating_admission_policy(
        {"metadata": metadata, "spec": manifests.agent_policy_spec()}, field_validation="Strict"
    )
    admission.create_validating_admission_policy_binding(
        {"metadata": metadata, "spec": manifests.agent_binding_spec()}, field_validation="Strict"
    )
    bad = _agent_pod()
    bad["spec"]["hostNetwork"] = True
    deadline = time.monotonic() + 120
    while not _refusal(api_server, bad):
        assert time.monotonic() < deadline, "the policy is not enforced"
        time.sleep(0.2)
    yield
    admission.delete_validating_admission_policy_binding(manifests.AGENT_POLICY)
    admission.delete_validating_admission_policy(manifests.AGENT_POLICY)


def _agent_pod() -> dict:
    spec = manifests.agent_spec(IMAGE, "0" * 64)["template"]["spec"]
    return {"metadata": {"name": COLLECTOR_AGENT}, "spec": copy.deepcopy(spec)}


def _gateway_pod() -> dict:
    spec = manifests.gateway_spec(IMAGE, 1, "0" * 64)["template"]["spec"]
    return {"metadata": {"name": COLLECTOR}, "spec": copy.deepcopy(spec)}


def _refusal(api_server, pod: dict, namespace: str = TELEMETRY_NAMESPACE) -> str:
    """What the API server says against the pod; empty when it takes it."""
    try:
        client.CoreV1Api(api_server.client).create_namespaced_pod(namespace, pod, **STRICT)
    except ApiException as error:
        return str(error.body)
    return ""


def test_the_gateway_is_taken_and_its_pod_passes_restricted(api_server, namespaces):
    apps = client.AppsV1Api(api_server.client)
    deployment = {"metadata": {"name": COLLECTOR}, "spec": manifests.gateway_spec(IMAGE, 2, "0" * 64)}
    apps.create_namespaced_deployment(GATEWAY_NAMESPACE, deployment, **STRICT)
    assert _refusal(api_server, _gateway_pod(), GATEWAY_NAMESPACE) == ""
    pod = _gateway_pod()
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]
    assert "restricted" in _refusal(api_server, pod, GATEWAY_NAMESPACE)


def test_the_agent_needs_the_namespace_that_it_has(api_server, namespaces):
    """With the level below, its read-only view of the logs would be refused."""
    assert "hostPath" in _refusal(api_server, _agent_pod() | {"spec": _agent_pod()["spec"] | {
        "serviceAccountName": COLLECTOR_SERVICE_ACCOUNT}}, GATEWAY_NAMESPACE)  # fmt: skip


def test_services_policies_and_rights_are_taken(api_server, namespaces):
    networking = client.NetworkingV1Api(api_server.client)
    specs = {
        GATEWAY_NAMESPACE: manifests.gateway_network_policy(),
        TELEMETRY_NAMESPACE: manifests.agent_network_policy("10.42.0.0/16", "172.20.0.0/16"),
    }
    for namespace, spec in specs.items():
        networking.create_namespaced_network_policy(namespace, {"metadata": {"name": "p"}, "spec": spec}, **STRICT)
    core = client.CoreV1Api(api_server.client)
    core.create_namespaced_service(
        GATEWAY_NAMESPACE, {"metadata": {"name": COLLECTOR}, "spec": manifests.service_spec()}, **STRICT
    )
    client.PolicyV1Api(api_server.client).create_namespaced_pod_disruption_budget(
        GATEWAY_NAMESPACE, {"metadata": {"name": COLLECTOR}, "spec": manifests.disruption_budget_spec()}, **STRICT
    )
    client.RbacAuthorizationV1Api(api_server.client).create_cluster_role(
        {"metadata": {"name": "ringfence-collector"}, "rules": manifests.reader_rules()}, **STRICT
    )


def test_the_agent_is_taken_under_its_policy(api_server, agent_policy):
    apps = client.AppsV1Api(api_server.client)
    daemon_set = {"metadata": {"name": COLLECTOR_AGENT}, "spec": manifests.agent_spec(IMAGE, "0" * 64)}
    apps.create_namespaced_daemon_set(TELEMETRY_NAMESPACE, daemon_set, **STRICT)
    assert _refusal(api_server, _agent_pod()) == ""


def _other_host_path(spec):
    spec["volumes"].append({"name": "root", "hostPath": {"path": "/"}})


def _init_container(spec):
    security = {"privileged": True, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    extra = {"name": "first", "image": IMAGE, "securityContext": security}
    spec["initContainers"] = [extra]


def _container(**changes):
    def change(spec):
        spec["containers"][0].update(changes)

    return change


def _security(**changes):
    def change(spec):
        spec["containers"][0]["securityContext"].update(changes)

    return change


def _pod(**changes):
    def change(spec):
        spec.update(changes)

    return change


def _writable(spec):
    next(m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "logs")["readOnly"] = False


BAD_PODS = [
    ("host network", _pod(hostNetwork=True), "no host namespaces"),
    ("host processes", _pod(hostPID=True), "no host namespaces"),
    ("host IPC", _pod(hostIPC=True), "no host namespaces"),
    ("host port", _container(ports=[{"containerPort": 80, "hostPort": 80}]), "no ports of the node"),
    ("another host path", _other_host_path, "only /var/log/pods"),
    ("writable logs", _writable, "only read"),
    ("privileged", _security(privileged=True, allowPrivilegeEscalation=True), "no privilege"),
    ("privileged init container", _init_container, "no privilege"),
    ("privilege escalation", _security(allowPrivilegeEscalation=True), "no privilege"),
    ("writable root", _security(readOnlyRootFilesystem=False), "no privilege"),
    ("capabilities kept", _security(capabilities={"drop": []}), "no capabilities"),
    ("capability added", _security(capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}), "no capabilities"),
    ("root", _security(runAsUser=0), "not root"),
    ("root allowed", _pod(securityContext={"seccompProfile": {"type": "RuntimeDefault"}}), "not root"),
    ("no seccomp", _security(seccompProfile={"type": "Unconfined"}), "kernel's defaults"),
]


@pytest.mark.parametrize(("change", "reason"), [bad[1:] for bad in BAD_PODS], ids=[bad[0] for bad in BAD_PODS])
def test_another_pod_in_the_agents_namespace_is_refused_for_its_own_reason(api_server, agent_policy, change, reason):
    pod = _agent_pod()
    change(pod["spec"])
    assert reason in _refusal(api_server, pod)


def test_the_policy_leaves_other_namespaces_alone(api_server, agent_policy):
    assert _refusal(api_server, _gateway_pod(), GATEWAY_NAMESPACE) == ""


def test_nobody_adds_a_container_to_an_agents_running_pod(api_server, agent_policy):
    core = client.CoreV1Api(api_server.client)
    core.create_namespaced_pod(TELEMETRY_NAMESPACE, _agent_pod())
    try:
        shell = {"spec": {"ephemeralContainers": [{"name": "shell", "image": IMAGE}]}}
        with pytest.raises(ApiException, match="nobody enters"):
            core.patch_namespaced_pod_ephemeralcontainers(COLLECTOR_AGENT, TELEMETRY_NAMESPACE, shell)
        core.patch_namespaced_pod(COLLECTOR_AGENT, TELEMETRY_NAMESPACE, {"metadata": {"labels": {"seen": "yes"}}})
    finally:
        core.delete_namespaced_pod(COLLECTOR_AGENT, TELEMETRY_NAMESPACE, grace_period_seconds=0)
