"""Guardrails of what Kubernetes runs in sandbox namespaces, whichever workload kind declares it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.names import GVISOR_RUNTIME_CLASS, SANDBOX_NAMESPACE_PREFIX
from ringfence.review.facts import Unknown
from ringfence.review.guardrails.model import Guardrail, at, entries, is_true, open_to_everybody
from ringfence.review.resource import Resource

# Kind → where its pod specification stands.
_POD_SPECS: dict[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "PodTemplate": ("template", "spec"),
    "Deployment": ("spec", "template", "spec"),
    "DaemonSet": ("spec", "template", "spec"),
    "StatefulSet": ("spec", "template", "spec"),
    "ReplicaSet": ("spec", "template", "spec"),
    "ReplicationController": ("spec", "template", "spec"),
    "Job": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}
_GROUPS = ("kubernetes:core/", "kubernetes:apps/", "kubernetes:batch/", "kubernetes:extensions/")
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def _objects(resource: Resource) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Kind and content of the resource, or of each item of a list kind; of a patch like of the kind itself."""
    kind = resource.type.rsplit(":", 1)[-1].removesuffix("Patch")
    if kind.endswith("List"):
        for item in entries(resource.get("items")):
            if isinstance(item, Mapping):
                yield str(item.get("kind") or kind.removesuffix("List")), item
    else:
        yield kind, resource.props


def in_sandbox(content: Mapping[str, Any]) -> bool:
    """Whether an object is in a sandbox namespace. One whose namespace is unknown may be."""
    namespace = at(content, "metadata", "namespace")
    return isinstance(namespace, Unknown) or str(namespace or "").startswith(SANDBOX_NAMESPACE_PREFIX)


def _pods(resource: Resource) -> Iterator[tuple[str, Any]]:
    for kind, content in _objects(resource):
        if kind in _POD_SPECS and in_sandbox(content):
            spec = at(content, *_POD_SPECS[kind])
            if spec is not None:
                yield f"{kind} {resource.name}", spec


def _runtime_class(resource: Resource) -> Iterator[str]:
    for name, spec in _pods(resource):
        runtime = at(spec, "runtimeClassName")
        if runtime != GVISOR_RUNTIME_CLASS:
            told = "unknown at preview" if isinstance(runtime, Unknown) else f"{runtime!r}" if runtime else "not set"
            yield f"{name} does not run under gVisor (runtimeClassName is {told})"


def _host_access(resource: Resource) -> Iterator[str]:
    for name, spec in _pods(resource):
        for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            if at(spec, key) not in (None, False):
                yield f"{name} shares the node's or its containers' world ({key})"
        volumes = at(spec, "volumes")
        if isinstance(volumes, Unknown) or any(_from_host(volume) for volume in entries(volumes)):
            yield f"{name} mounts a path of the node (hostPath)"


def _from_host(volume: Any) -> bool:
    return isinstance(volume, Unknown) or at(volume, "hostPath") is not None


def _token(resource: Resource) -> Iterator[str]:
    for name, spec in _pods(resource):
        if at(spec, "automountServiceAccountToken") is not False:
            yield f"{name} mounts a service-account token (automountServiceAccountToken is not false)"


def _privileges(resource: Resource) -> Iterator[str]:
    for name, spec in _pods(resource):
        if isinstance(spec, Unknown):
            yield f"{name} has a pod specification that is unknown at preview"
            continue
        pod_context = at(spec, "securityContext")
        for group in _CONTAINERS:
            for container in entries(at(spec, group)):
                yield from _container(name, container, pod_context)


def _container(pod: str, container: Any, pod_context: Any) -> Iterator[str]:
    label = at(container, "name")
    name = f"container {label} of {pod}" if isinstance(label, str) else f"a container of {pod}"
    context = at(container, "securityContext")
    if at(context, "privileged") not in (None, False):
        yield f"{name} is privileged"
    if at(context, "allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate its privileges (allowPrivilegeEscalation is not false)"
    if not any(str(item).upper() == "ALL" for item in entries(at(context, "capabilities", "drop"))):
        yield f"{name} keeps Linux capabilities (capabilities.drop lacks ALL)"
    if entries(at(context, "capabilities", "add")):
        yield f"{name} adds Linux capabilities"
    if not is_true(at(context, "readOnlyRootFilesystem")):
        yield f"{name} can write its root file system (readOnlyRootFilesystem is not true)"
    user = _effective(context, pod_context, "runAsUser")
    ordinary = isinstance(user, int | float) and user > 0
    if user == 0 or not (ordinary or is_true(_effective(context, pod_context, "runAsNonRoot"))):
        yield f"{name} may run as root (runAsNonRoot is not true)"
    if at(context, "procMount") not in (None, "Default"):
        yield f"{name} sees an unmasked /proc (procMount)"
    profile = at(context, "seccompProfile", "type") or at(pod_context, "seccompProfile", "type")
    if isinstance(profile, Unknown) or profile == "Unconfined":
        yield f"{name} runs without a seccomp profile (Unconfined)"


def _effective(context: Any, pod_context: Any, key: str) -> Any:
    own = at(context, key)
    return own if own is not None else at(pod_context, key)


def _namespace_labels(resource: Resource) -> Iterator[str]:
    name = at(resource.props, "metadata", "name")
    if isinstance(name, str) and name.startswith(SANDBOX_NAMESPACE_PREFIX):
        level = at(resource.props, "metadata", "labels")
        enforced = at(level, "pod-security.kubernetes.io/enforce")
        if enforced != "restricted":
            yield f"namespace {name} does not enforce the restricted Pod Security level"


def _open_policy(resource: Resource) -> Iterator[str]:
    if not in_sandbox(resource.props):
        return
    for rule in entries(at(resource.props, "spec", "egress")):
        targets = entries(at(rule, "to"))
        blocks = [at(target, "ipBlock", "cidr") for target in targets]
        if not targets or any(block is not None and open_to_everybody(block) for block in blocks):
            yield f"network policy {resource.name} lets a sandbox connect to any address"


def _sandbox_rights(resource: Resource) -> Iterator[str]:
    for subject in (item for _, content in _objects(resource) for item in entries(at(content, "subjects"))):
        namespace = at(subject, "namespace")
        group = str(at(subject, "name") or "")
        if isinstance(namespace, Unknown) or str(namespace or "").startswith(SANDBOX_NAMESPACE_PREFIX):
            yield f"{resource.name} gives a sandbox's service account rights in the cluster"
        elif group.startswith(f"system:serviceaccounts:{SANDBOX_NAMESPACE_PREFIX}") or group in (
            "system:serviceaccounts",
            "system:authenticated",
            "system:unauthenticated",
            "system:anonymous",
        ):
            yield f"{resource.name} gives {group}, sandboxes included, rights in the cluster"


# Verbs that let their holder become more than it is. Source: Kubernetes documentation, RBAC good practices.
_ESCALATING = frozenset({"escalate", "bind", "impersonate", "*"})
_ESCALATED = frozenset({"*", "roles", "clusterroles", "users", "groups", "serviceaccounts", "userextras", "uids"})


def _administrators(resource: Resource) -> Iterator[str]:
    for kind, content in _objects(resource):
        if kind.endswith("Binding"):
            name = at(content, "roleRef", "name")
            if isinstance(name, Unknown) or name == "cluster-admin":
                told = "a role that is unknown at preview" if isinstance(name, Unknown) else "cluster-admin"
                yield f"{kind} {resource.name} binds {told}"
        else:
            for rule in entries(at(content, "rules")):
                yield from _administrator_rule(f"{kind} {resource.name}", rule)


def _administrator_rule(role: str, rule: Any) -> Iterator[str]:
    verbs, resources = entries(at(rule, "verbs")), entries(at(rule, "resources"))
    if any(isinstance(item, Unknown) for item in (rule, *verbs, *resources)):
        yield f"{role} has a rule that is unknown at preview"
    elif "*" in verbs and "*" in resources:
        # Of a custom group this is no more than what its controller does.
        if not {"", "*", "rbac.authorization.k8s.io"}.isdisjoint(map(str, entries(at(rule, "apiGroups")))):
            yield f"{role} allows every verb on every resource"
    elif not entries(at(rule, "resourceNames")) and not _ESCALATED.isdisjoint(map(str, resources)):
        # With names a rule reaches only what they name.
        for verb in sorted(_ESCALATING.intersection(map(str, verbs))):
            yield f"{role} allows {verb} on {', '.join(map(str, resources))}"


_ESCAPE = "a sandbox that shares anything with its node or keeps privileges is a way out of the sandbox"

GUARDRAILS = (
    Guardrail(
        "sandbox-pod-gvisor",
        "pods",
        "without gVisor hostile code talks to the node's kernel itself",
        f"set runtimeClassName to {GVISOR_RUNTIME_CLASS}",
        _GROUPS,
        _runtime_class,
    ),
    Guardrail("sandbox-pod-no-host-access", "pods", _ESCAPE, "take the host setting out", _GROUPS, _host_access),
    Guardrail(
        "sandbox-pod-no-token",
        "pods",
        "a token is ambient authority that any code in the pod can use",
        "set automountServiceAccountToken to false",
        _GROUPS,
        _token,
    ),
    Guardrail(
        "sandbox-pod-unprivileged",
        "pods",
        _ESCAPE,
        "drop ALL capabilities, set runAsNonRoot, readOnlyRootFilesystem and allowPrivilegeEscalation: false",
        _GROUPS,
        _privileges,
    ),
    Guardrail(
        "sandbox-namespace-restricted",
        "pods",
        "the level is what refuses a pod that some other way creates",
        "set the label pod-security.kubernetes.io/enforce to restricted",
        ("kubernetes:core/v1:Namespace",),
        _namespace_labels,
    ),
    Guardrail(
        "sandbox-network-policy-closed",
        "pods",
        "an open policy undoes the one that leads everything through the proxy",
        "name the proxy's address and port",
        ("kubernetes:networking.k8s.io/v1:NetworkPolicy",),
        _open_policy,
    ),
    Guardrail(
        "sandbox-no-cluster-rights",
        "pods",
        "sandboxes hold no authority of their own",
        "bind the control side's service accounts only",
        ("kubernetes:rbac.authorization.k8s.io/",),
        _sandbox_rights,
    ),
    Guardrail(
        "no-cluster-administrators",
        "pods",
        "whoever administers the cluster is every pod in it, with the AWS roles that those hold",
        "name the verbs, resources and names that are needed",
        ("kubernetes:rbac.authorization.k8s.io/",),
        _administrators,
    ),
)
