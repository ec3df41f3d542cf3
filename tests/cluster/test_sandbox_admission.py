"""What the real API server refuses in a sandbox namespace: one table, each pod refused for its own reason."""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from components.sandbox import Sandbox, SandboxArgs
from ringfence.names import RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, Names
from ringfence.runner import manifests
from tests.cluster.api import RUNTIME_CLASS, Api
from tests.components.conftest import Recorder

pytestmark = pytest.mark.cluster

NAMES = Names("ringfence", "test", "123456789012", "us-east-1")
REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
IMAGE = f"{REGISTRY}/agent@sha256:{'a' * 64}"
Change = Callable[[dict[str, Any], dict[str, Any]], None]


def manifests_of_sandbox() -> list[dict[str, Any]]:
    recording = Recorder()(lambda: Sandbox("sandbox", SandboxArgs(NAMES, [REGISTRY])) and None)
    return [dict(r.inputs) for r in recording.resources if r.type.startswith("kubernetes:")]


# A sandbox namespace from before the policies, with no label, quota or limit: in it the rules stand alone.
UNLABELLED = "sandbox-unlabelled"


@pytest.fixture(scope="module")
def admin(api_server) -> Api:
    api = Api(api_server.configuration)
    before = manifests.namespace("unlabelled", "2030-01-01T00:00:00Z", {})
    before["metadata"]["labels"] = {}
    if not _exists(api, UNLABELLED):
        api.apply(before)
    for manifest in [*manifests_of_sandbox(), RUNTIME_CLASS]:
        api.apply(manifest)
    _wait_until_enforced(api)
    return api


def unit(namespace: str) -> list[dict[str, Any]]:
    limits = manifests.UnitLimits()
    return [
        manifests.resource_quota(namespace, limits),
        manifests.limit_range(namespace, limits),
        manifests.default_deny(namespace),
    ]


def new_namespace(api: Api, skip: str = "") -> str:
    invocation = uuid.uuid4().hex[:8]
    api.apply(manifests.namespace(invocation, "2030-01-01T00:00:00Z", {}))
    name = manifests.namespace_name(invocation)
    for manifest in unit(name):
        if manifest["kind"] != skip:
            api.apply(manifest)
    return name


def _until(done: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def _exists(api: Api, namespace: str) -> bool:
    return any(item.metadata.name == namespace for item in api.core.list_namespace().items)


def _refused(api: Api, namespace: str, pod: dict[str, Any]) -> str | None:
    try:
        api.create_pod(namespace, pod)
    except ApiException as error:
        return str(error.body)
    return None


def _ready(api: Api, namespace: str) -> None:
    """The default service account and the quota's status come from controllers, a moment after the namespace."""
    _until(lambda: bool(api.core.list_namespaced_service_account(namespace).items), "default service account")


def _wait_until_enforced(api: Api) -> None:
    """Admission policies take effect a moment after they are written: wait for a refusal and for an acceptance."""
    namespace = new_namespace(api)
    _ready(api, namespace)
    bad = good_pod()
    del bad["spec"]["runtimeClassName"]
    _until(lambda: "gVisor" in (_refused(api, namespace, bad) or ""), "the pod policy is enforced")
    bare = new_namespace(api, skip="NetworkPolicy")
    _ready(api, bare)
    _until(lambda: _refused(api, bare, good_pod()) is not None, "the network requirement is enforced")
    _until(lambda: _refused(api, namespace, good_pod()) is None, "the good pod is accepted")
    _ready(api, UNLABELLED)
    _until(lambda: _refused(api, UNLABELLED, good_pod()) is None, "the good pod is accepted without Pod Security")


@pytest.fixture(scope="module")
def namespace(admin: Api) -> Iterator[str]:
    name = new_namespace(admin)
    _ready(admin, name)
    _until(lambda: _refused(admin, name, good_pod()) is None, "the good pod is accepted")
    yield name
    admin.core.delete_namespace(name)


def remove_pod(api: Api, name: str, namespace: str) -> None:
    """Deletes the pod and waits until the quota is given back."""
    api.core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
    _until(lambda: _refused(api, namespace, good_pod()) is None, "the quota is given back")


def good_pod() -> dict[str, Any]:
    container = {
        "name": "agent",
        "image": IMAGE,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": "250m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
            "limits": {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "256Mi"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent"},
        "spec": {
            "runtimeClassName": "gvisor",
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 300,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["127.0.0.1"]},
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
        },
    }


def volume(kind: str, value: dict[str, Any]) -> Change:
    return lambda s, c: s["volumes"].append({"name": "extra", kind: value})


def init_container(**changes: Any) -> Change:
    def change(spec: dict[str, Any], container: dict[str, Any]) -> None:
        spec["initContainers"] = [copy.deepcopy(container) | {"name": "init"} | changes]

    return change


def context(**values: Any) -> Change:
    return lambda s, c: c["securityContext"].update(values)


# What is done to the good pod → the words that must stand in the refusal.
BAD: dict[str, tuple[Change, str]] = {
    "no runtime class": (lambda s, c: s.pop("runtimeClassName"), "runs under gVisor"),
    "the host's network": (lambda s, c: s.update(hostNetwork=True), "remove hostNetwork"),
    "the host's processes": (lambda s, c: s.update(hostPID=True), "remove hostPID"),
    "the host's IPC": (lambda s, c: s.update(hostIPC=True), "remove hostIPC"),
    "processes shared between containers": (lambda s, c: s.update(shareProcessNamespace=True), "shareProcessNamespace"),
    "a port of the host": (lambda s, c: c.update(ports=[{"containerPort": 80, "hostPort": 80}]), "remove hostPort"),
    "a path of the host": (volume("hostPath", {"path": "/"}), "mounts only emptyDir"),
    "the node's proc by hostPath": (volume("hostPath", {"path": "/proc"}), "mounts only emptyDir"),
    "a volume that outlives it": (volume("persistentVolumeClaim", {"claimName": "x"}), "mounts only emptyDir"),
    "a projected service-account token": (
        volume("projected", {"sources": [{"serviceAccountToken": {"path": "t"}}]}),
        "mounts only emptyDir",
    ),
    "a CSI volume": (volume("csi", {"driver": "d"}), "mounts only emptyDir"),
    "an NFS volume": (volume("nfs", {"server": "s", "path": "/"}), "mounts only emptyDir"),
    "unbounded scratch space": (volume("emptyDir", {}), "set emptyDir.sizeLimit"),
    "a node of its own choice": (lambda s, c: s.update(nodeName="node"), "remove nodeName"),
    "a toleration of everything": (
        lambda s, c: s.update(tolerations=[{"operator": "Exists"}]),
        "remove other tolerations",
    ),
    "a toleration of the system pool": (
        lambda s, c: s.update(tolerations=[{"key": "CriticalAddonsOnly", "operator": "Exists"}]),
        "remove other tolerations",
    ),
    "a kernel parameter": (
        lambda s, c: s["securityContext"].update(sysctls=[{"name": "kernel.shm_rmid_forced", "value": "0"}]),
        "remove sysctls",
    ),
    "an automounted token": (lambda s, c: s.update(automountServiceAccountToken=True), "holds no Kubernetes token"),
    "a token by default": (lambda s, c: s.pop("automountServiceAccountToken"), "holds no Kubernetes token"),
    "image pull secrets": (lambda s, c: s.update(imagePullSecrets=[{"name": "x"}]), "remove imagePullSecrets"),
    "privilege": (context(privileged=True, allowPrivilegeEscalation=True), "is not privileged"),
    "privilege escalation": (context(allowPrivilegeEscalation=True), "set allowPrivilegeEscalation to false"),
    "a writable root": (context(readOnlyRootFilesystem=False), "set readOnlyRootFilesystem"),
    "a writable root by default": (
        lambda s, c: c["securityContext"].pop("readOnlyRootFilesystem"),
        "readOnlyRootFilesystem",
    ),
    "root allowed": (lambda s, c: s["securityContext"].pop("runAsNonRoot"), "set runAsNonRoot"),
    "root allowed in one container": (context(runAsNonRoot=False), "set runAsNonRoot"),
    "a system user": (lambda s, c: s["securityContext"].update(runAsUser=33), "runs as an ordinary user"),
    "the image's own user": (lambda s, c: s["securityContext"].pop("runAsUser"), "runs as an ordinary user"),
    "capabilities kept": (context(capabilities={"drop": ["NET_RAW"]}), "drop ALL"),
    "a capability added": (
        context(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
        "remove capabilities.add",
    ),
    "no seccomp": (lambda s, c: s["securityContext"].pop("seccompProfile"), "seccompProfile to RuntimeDefault"),
    "seccomp off in one container": (
        context(seccompProfile={"type": "Unconfined"}),
        "seccompProfile to RuntimeDefault",
    ),
    "no limits": (lambda s, c: c["resources"].pop("limits"), "set resources.limits.cpu"),
    "no memory limit": (lambda s, c: c["resources"]["limits"].pop("memory"), "set resources.limits.cpu"),
    "no storage limit": (lambda s, c: c["resources"]["limits"].pop("ephemeral-storage"), "limits.ephemeral-storage"),
    "a restart": (lambda s, c: s.update(restartPolicy="Always"), "set restartPolicy to Never"),
    "no deadline": (lambda s, c: s.pop("activeDeadlineSeconds"), "set activeDeadlineSeconds"),
    "a long deadline": (lambda s, c: s.update(activeDeadlineSeconds=3600), "set activeDeadlineSeconds"),
    "a long farewell": (lambda s, c: s.update(terminationGracePeriodSeconds=60), "terminationGracePeriodSeconds"),
    "service links": (lambda s, c: s.update(enableServiceLinks=True), "set enableServiceLinks"),
    "the cluster's DNS": (lambda s, c: s.update(dnsPolicy="ClusterFirst"), "set dnsPolicy to None"),
    "a nameserver of its own": (lambda s, c: s["dnsConfig"].update(nameservers=["8.8.8.8"]), "only nameserver allowed"),
    "host aliases": (lambda s, c: s.update(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["x"]}]), "remove hostAliases"),
    "a scheduler of its own": (lambda s, c: s.update(schedulerName="mine"), "remove schedulerName"),
    "a priority": (lambda s, c: s.update(priorityClassName="system-node-critical"), "remove priorityClassName"),
    "an image by tag": (lambda s, c: c.update(image=f"{REGISTRY}/agent:latest"), "name them by digest"),
    "an image from elsewhere": (
        lambda s, c: c.update(image=f"docker.io/library/busybox@sha256:{'a' * 64}"),
        "allowed registries only",
    ),
    "a registry that only looks allowed": (
        lambda s, c: c.update(image=f"{REGISTRY}.example.com/agent@sha256:{'a' * 64}"),
        "allowed registries only",
    ),
    "an init container by tag": (init_container(image=f"{REGISTRY}/agent:1"), "name them by digest"),
    "an init container without limits": (init_container(resources={}), "set resources.limits.cpu"),
    "an init container with a writable root": (
        init_container(securityContext={"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}),
        "set readOnlyRootFilesystem",
    ),
    "a sidecar that restarts with privilege": (
        init_container(restartPolicy="Always", securityContext={"privileged": True}),
        "is not privileged",
    ),
}


# In a complete namespace the LimitRange has set these before the rules look.
FILLED_IN = ["no limits", "no memory limit", "no storage limit", "an init container without limits"]


def test_the_good_pod_is_accepted(admin: Api, namespace: str):
    admin.create_pod(namespace, good_pod())


@pytest.mark.parametrize("what", BAD)
def test_a_pod_is_refused_for_its_own_reason(admin: Api, namespace: str, what: str):
    change, reason = BAD[what]
    pod = good_pod()
    change(pod["spec"], pod["spec"]["containers"][0])
    with pytest.raises(ApiException) as alone:
        admin.create_pod(UNLABELLED, pod)
    assert alone.value.status in (403, 422)
    assert reason in alone.value.body
    if what in FILLED_IN:
        return
    with pytest.raises(ApiException) as both:
        admin.create_pod(namespace, pod)
    assert both.value.status in (403, 422)


@pytest.mark.parametrize("what", FILLED_IN)
def test_limits_left_out_are_filled_in_by_the_namespaces_own(admin: Api, namespace: str, what: str):
    pod = good_pod()
    BAD[what][0](pod["spec"], pod["spec"]["containers"][0])
    try:
        made = admin.core.create_namespaced_pod(namespace, pod, dry_run="All")
    except ApiException as error:
        assert "exceeded quota" in error.body  # filled in with the most there is, which is too much with the overhead
        return
    for container in [*made.spec.containers, *(made.spec.init_containers or [])]:
        assert {"cpu", "memory", "ephemeral-storage"} <= set(container.resources.limits)


def test_more_than_an_invocation_may_have_is_refused(admin: Api, namespace: str):
    pod = good_pod()
    pod["spec"]["containers"][0]["resources"]["limits"]["memory"] = "4Gi"
    assert "maximum memory usage per Container" in (_refused(admin, namespace, pod) or "")
    pods = [good_pod() | {"metadata": {"name": f"agent-{index}"}} for index in range(2)]
    admin.create_pod(namespace, pods[0], dry_run=False)
    assert "exceeded quota" in (_refused(admin, namespace, pods[1]) or "")
    remove_pod(admin, "agent-0", namespace)


def test_a_service_account_of_its_own_is_refused(admin: Api, namespace: str):
    pod = good_pod()
    pod["spec"]["serviceAccountName"] = "builder"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": "default"}}
    admin.apply(account)
    with pytest.raises(ApiException, match=r"service ?account"):
        admin.create_pod(namespace, pod)


def test_the_same_bad_pod_is_accepted_outside_of_sandbox_namespaces(admin: Api):
    pod = good_pod()
    del pod["spec"]["runtimeClassName"]
    _ready(admin, "default")
    admin.create_pod("default", pod)


@pytest.mark.parametrize("kind", ["NetworkPolicy", "ResourceQuota", "LimitRange"])
def test_no_pod_starts_before_the_unit_is_complete(admin: Api, kind: str):
    bare = new_namespace(admin, skip=kind)
    _ready(admin, bare)
    assert "failed to configure binding" in (_refused(admin, bare, good_pod()) or "")
    missing = next(manifest for manifest in unit(bare) if manifest["kind"] == kind)
    admin.apply(missing)
    _until(lambda: _refused(admin, bare, good_pod()) is None, f"the pod is accepted once the {kind} is there")
    admin.core.delete_namespace(bare)


def test_an_open_policy_under_the_right_name_does_not_count(admin: Api):
    name = new_namespace(admin, skip="NetworkPolicy")
    _ready(admin, name)
    policy = manifests.default_deny(name)
    policy["spec"]["egress"] = [{}]
    admin.apply(policy)
    _until(lambda: "must deny all" in (_refused(admin, name, good_pod()) or ""), "the open policy is refused")
    admin.core.delete_namespace(name)


@pytest.mark.parametrize("label", ["pod-security.kubernetes.io/enforce", manifests.INVOCATION_LABEL])
def test_a_sandbox_namespace_without_its_labels_is_refused(admin: Api, label: str):
    manifest = manifests.namespace(uuid.uuid4().hex[:8], "2030-01-01T00:00:00Z", {})
    admin.dynamic.resources.get(api_version="v1", kind="Namespace").create(body=manifest, dry_run="All")
    del manifest["metadata"]["labels"][label]
    with pytest.raises(ApiException) as caught:
        admin.dynamic.resources.get(api_version="v1", kind="Namespace").create(body=manifest, dry_run="All")
    assert "sandbox namespace" in caught.value.body


def test_the_label_can_not_be_taken_off_later(admin: Api, namespace: str):
    patch = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    with pytest.raises(ApiException, match="carries the label"):
        admin.core.patch_namespace(namespace, patch)


@pytest.mark.parametrize("entry", ["exec", "attach", "portforward"])
def test_nobody_enters_a_sandbox(admin: Api, namespace: str, entry: str):
    pod = good_pod() | {"metadata": {"name": f"entered-{entry}"}}
    admin.create_pod(namespace, pod, dry_run=False)
    call = getattr(admin.core, f"connect_get_namespaced_pod_{entry}")
    arguments = {"ports": "80"} if entry == "portforward" else {"container": "agent"}
    with pytest.raises(ApiException) as caught:
        call(f"entered-{entry}", namespace, **arguments)
    assert "sandboxes are not entered" in caught.value.body
    outside = good_pod() | {"metadata": {"name": f"open-{entry}"}}
    admin.create_pod("default", outside, dry_run=False)
    with pytest.raises(ApiException) as control:
        call(f"open-{entry}", "default", **arguments)
    assert "sandboxes are not entered" not in control.value.body
    for name, where in ((f"entered-{entry}", namespace), (f"open-{entry}", "default")):
        remove_pod(admin, name, where)


def test_an_ephemeral_container_is_refused(admin: Api, namespace: str):
    admin.create_pod(namespace, good_pod() | {"metadata": {"name": "debugged"}}, dry_run=False)
    security = good_pod()["spec"]["containers"][0]["securityContext"]
    extra = {"spec": {"ephemeralContainers": [{"name": "debug", "image": IMAGE, "securityContext": security}]}}
    with pytest.raises(ApiException, match="sandboxes are not entered"):
        admin.core.patch_namespaced_pod_ephemeralcontainers("debugged", namespace, extra)
    remove_pod(admin, "debugged", namespace)


def test_a_running_sandbox_gets_no_more_than_it_was_admitted_with(admin: Api, namespace: str):
    more = {"spec": {"containers": [{"name": "agent", "resources": {"limits": {"cpu": "600m"}}}]}}
    for where in (namespace, "default"):
        admin.create_pod(where, good_pod() | {"metadata": {"name": "resized"}}, dry_run=False)
    with pytest.raises(ApiException, match="not entered or resized"):
        admin.core.patch_namespaced_pod_resize("resized", namespace, more)
    admin.core.patch_namespaced_pod_resize("resized", "default", more)
    for where in (namespace, "default"):
        remove_pod(admin, "resized", where)


def test_a_running_pods_image_can_not_be_swapped(admin: Api, namespace: str):
    admin.create_pod(namespace, good_pod() | {"metadata": {"name": "swapped"}}, dry_run=False)
    patch = {"spec": {"containers": [{"name": "agent", "image": "docker.io/evil:1"}]}}
    with pytest.raises(ApiException, match="by digest"):
        admin.core.patch_namespaced_pod("swapped", namespace, patch)
    allowed = {"spec": {"containers": [{"name": "agent", "image": f"{REGISTRY}/agent@sha256:{'b' * 64}"}]}}
    admin.core.patch_namespaced_pod("swapped", namespace, allowed)
    remove_pod(admin, "swapped", namespace)


@pytest.fixture
def runner(admin: Api, api_server) -> Api:
    return Api(api_server.configuration, f"system:serviceaccount:{SYSTEM_NAMESPACE}:{RUNNER_SERVICE_ACCOUNT}")


def unit_binding(
    namespace: str, role: str = "ringfence-sandbox-unit", subject: str = RUNNER_SERVICE_ACCOUNT
) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "unit", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": subject, "namespace": SYSTEM_NAMESPACE}],
    }


def create(api: Api, manifest: dict[str, Any]) -> None:
    resource = api.dynamic.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
    resource.create(body=manifest, namespace=manifest["metadata"].get("namespace"))


def test_the_runner_makes_and_removes_a_whole_unit(admin: Api, runner: Api):
    invocation = uuid.uuid4().hex[:8]
    name = manifests.namespace_name(invocation)
    create(runner, manifests.namespace(invocation, "2030-01-01T00:00:00Z", {}))
    create(runner, unit_binding(name))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"creds-{invocation}", "namespace": name}}
    for manifest in [*unit(name), secret]:
        create(runner, manifest)
    _ready(admin, name)
    _until(lambda: _refused(runner, name, good_pod()) is None, "the runner's pod is accepted")
    runner.create_pod(name, good_pod(), dry_run=False)
    assert [item.metadata.name for item in admin.core.list_namespaced_pod(name).items] == ["agent"]
    runner.core.delete_namespace(name)
    assert admin.core.list_namespace(field_selector=f"metadata.name={name},status.phase=Active").items == []


@pytest.mark.parametrize(
    ("what", "manifest"),
    [
        ("another namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-tools"}}),
        ("a binding elsewhere", unit_binding("kube-system")),
        ("a binding of another role", unit_binding("NAMESPACE", role="cluster-admin")),
        ("a binding for another account", unit_binding("NAMESPACE", subject="builder")),
        (
            "a secret elsewhere",
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "kube-system"}},
        ),
    ],
)
def test_the_runner_stays_in_sandboxes(admin: Api, runner: Api, namespace: str, what: str, manifest: dict[str, Any]):
    manifest = copy.deepcopy(manifest)
    if manifest["metadata"].get("namespace") == "NAMESPACE":
        manifest["metadata"]["namespace"] = namespace
    with pytest.raises(ApiException) as caught:
        create(runner, manifest)
    assert caught.value.status == 403


def test_the_runner_can_not_delete_other_namespaces(admin: Api, runner: Api):
    with pytest.raises(ApiException, match="acts in sandbox-"):
        runner.core.delete_namespace(SYSTEM_NAMESPACE)


@pytest.mark.parametrize("verb", ["get", "list"])
def test_the_runner_never_reads_a_secret_back(admin: Api, runner: Api, namespace: str, verb: str):
    create_if_missing = unit_binding(namespace)
    admin.apply(create_if_missing)
    body = {"metadata": {"name": f"creds-{verb}"}, "stringData": {"token": "x"}}
    _until(lambda: _allowed(lambda: runner.core.create_namespaced_secret(namespace, body)), "the runner may create")
    with pytest.raises(ApiException) as caught:
        if verb == "get":
            runner.core.read_namespaced_secret(f"creds-{verb}", namespace)
        else:
            runner.core.list_namespaced_secret(namespace)
    assert caught.value.status == 403


def _allowed(call: Callable[[], object]) -> bool:
    try:
        call()
    except ApiException as error:
        return error.status == 409
    return True
