"""The admission rules of `sandbox-*` namespaces, in CEL: one rule, one reason, one sentence for whoever is refused.

Pod Security "restricted" covers what it covers; these rules cover what it leaves open (runtime, images, tokens, limits,
DNS, time) and repeat its most important ones, so that removing a namespace label doesn't open the fence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.names import (
    GVISOR_RUNTIME_CLASS,
    RUNNER_SERVICE_ACCOUNT,
    SANDBOX_NAMESPACE_PREFIX,
    SANDBOX_NODE_LABEL,
    SYSTEM_NAMESPACE,
)
from ringfence.runner.manifests import (
    INVOCATION_LABEL,
    LIMIT_RANGE_NAME,
    MAX_DEADLINE_SECONDS,
    MAX_WARM_SECONDS,
    NETWORK_POLICY_NAME,
    POD_SECURITY_LABELS,
    QUOTA_NAME,
    UNIT_CLUSTER_ROLE,
    WARM_LABEL,
)

# Kubernetes defaults to 30 s, in which a stopped sandbox would still run.
MAX_GRACE_SECONDS = 5
IN_SANDBOX = f"request.namespace.startsWith('{SANDBOX_NAMESPACE_PREFIX}')"
RUNNER_USER = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{RUNNER_SERVICE_ACCOUNT}"
# A waiting sandbox: its wall clock covers the wait too, and there is nothing in it that is worth having.
_WARM = f"object.metadata.?labels[?'{WARM_LABEL}'].orValue('') == 'true'"


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression that must hold, and what the refused caller is told."""

    expression: str
    message: str

    def validation(self) -> dict[str, Any]:
        """As an entry of `spec.validations`."""
        return {"expression": self.expression, "message": self.message, "reason": "Forbidden"}


_SPEC = "object.spec"
# Every container of any kind; ephemeral containers come through a subresource that is refused whole.
CONTAINERS_VARIABLE = {
    "name": "containers",
    "expression": f"{_SPEC}.containers + ({_SPEC}.?initContainers.orValue([]))",
}


def _each(condition: str) -> str:
    return f"variables.containers.all(c, {condition})"


def _security(field: str, value: str) -> str:
    opposite = {"true": "false", "false": "true"}[value]
    return _each(f"c.?securityContext.?{field}.orValue({opposite}) == {value}")


def _false_or_absent(field: str) -> str:
    return f"!{_SPEC}.?{field}.orValue(false)"


def _isolation_rules() -> list[Rule]:
    plain = " || ".join(f"has(v.{kind})" for kind in ("emptyDir", "secret", "configMap", "downwardAPI"))
    plain_volumes = f"{_SPEC}.?volumes.orValue([]).all(v, {plain})"
    return [
        Rule(
            f"{_SPEC}.?runtimeClassName.orValue('') == '{GVISOR_RUNTIME_CLASS}'",
            f"a sandbox runs under gVisor: set runtimeClassName to {GVISOR_RUNTIME_CLASS}",
        ),
        Rule(_false_or_absent("hostNetwork"), "a sandbox has its own network: remove hostNetwork"),
        Rule(_false_or_absent("hostPID"), "a sandbox has its own processes: remove hostPID"),
        Rule(_false_or_absent("hostIPC"), "a sandbox has its own IPC: remove hostIPC"),
        Rule(_false_or_absent("shareProcessNamespace"), "containers share no processes: remove shareProcessNamespace"),
        Rule(
            _each("c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0)"),
            "a sandbox opens no port of its node: remove hostPort",
        ),
        Rule(
            plain_volumes,
            "a sandbox mounts only emptyDir, secret, configMap and downwardAPI volumes: remove the others",
        ),
        Rule(
            f"{_SPEC}.?volumes.orValue([]).all(v, !has(v.emptyDir) || has(v.emptyDir.sizeLimit))",
            "scratch space is bounded: set emptyDir.sizeLimit",
        ),
        Rule(_each("c.?volumeDevices.orValue([]).size() == 0"), "a sandbox has no block devices: remove volumeDevices"),
        Rule(
            # On an update the scheduler has already placed it.
            f"request.operation != 'CREATE' || !has({_SPEC}.nodeName)",
            "the scheduler places sandboxes: remove nodeName",
        ),
        Rule(
            f"{_SPEC}.?tolerations.orValue([]).all(t, t.?key.orValue('') in "
            f"['{SANDBOX_NODE_LABEL}', 'node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable', "
            "'node.kubernetes.io/memory-pressure'])",
            "a sandbox tolerates its own pool's taint only: remove other tolerations",
        ),
        Rule(
            f"{_SPEC}.?securityContext.?sysctls.orValue([]).size() == 0",
            "a sandbox sets no kernel parameters: remove sysctls",
        ),
        Rule(
            _each("c.?securityContext.?procMount.orValue('Default') == 'Default'"),
            "/proc stays masked: remove procMount",
        ),
        Rule(f"{_SPEC}.?resourceClaims.orValue([]).size() == 0", "a sandbox claims no devices: remove resourceClaims"),
    ]


def _identity_rules() -> list[Rule]:
    return [
        Rule(
            f"{_SPEC}.?automountServiceAccountToken.orValue(true) == false",
            "a sandbox holds no Kubernetes token: set automountServiceAccountToken to false",
        ),
        Rule(
            f"{_SPEC}.?serviceAccountName.orValue('default') == 'default'",
            "a sandbox has no identity of its own: remove serviceAccountName",
        ),
        Rule(
            f"{_SPEC}.?imagePullSecrets.orValue([]).size() == 0",
            "nodes pull images with their own role: remove imagePullSecrets",
        ),
        Rule(_each("!c.?securityContext.?privileged.orValue(false)"), "a sandbox is not privileged: remove privileged"),
        Rule(
            _security("allowPrivilegeEscalation", "false"), "set allowPrivilegeEscalation to false on every container"
        ),
        Rule(_security("readOnlyRootFilesystem", "true"), "set readOnlyRootFilesystem to true on every container"),
        Rule(
            _each(
                f"c.?securityContext.?runAsNonRoot.orValue({_SPEC}.?securityContext.?runAsNonRoot.orValue(false)) == true"
            ),
            "a sandbox does not run as root: set runAsNonRoot to true",
        ),
        Rule(
            _each(f"c.?securityContext.?runAsUser.orValue({_SPEC}.?securityContext.?runAsUser.orValue(0)) >= 1000"),
            "a sandbox runs as an ordinary user: set runAsUser to 1000 or above",
        ),
        Rule(
            _each("'ALL' in c.?securityContext.?capabilities.?drop.orValue([])"),
            "a sandbox has no capabilities: drop ALL on every container",
        ),
        Rule(
            _each("c.?securityContext.?capabilities.?add.orValue([]).size() == 0"),
            "a sandbox has no capabilities: remove capabilities.add",
        ),
        Rule(
            f"{_SPEC}.?securityContext.?seccompProfile.?type.orValue('') == 'RuntimeDefault'"
            " && " + _each("c.?securityContext.?seccompProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault'"),
            "set the pod's seccompProfile to RuntimeDefault",
        ),
    ]


def _bound_rules() -> list[Rule]:
    return [
        Rule(
            _each("'cpu' in c.?resources.?limits.orValue({}) && 'memory' in c.?resources.?limits.orValue({})"),
            "set resources.limits.cpu and resources.limits.memory on every container",
        ),
        Rule(
            _each("'ephemeral-storage' in c.?resources.?limits.orValue({})"),
            "set resources.limits.ephemeral-storage on every container",
        ),
        Rule(
            f"{_SPEC}.?restartPolicy.orValue('Always') == 'Never'",
            "an invocation runs once: set restartPolicy to Never",
        ),
        Rule(
            f"{_SPEC}.?activeDeadlineSeconds.orValue(0) > 0 && {_SPEC}.activeDeadlineSeconds <= "
            f"({_WARM} ? {MAX_DEADLINE_SECONDS + MAX_WARM_SECONDS} : {MAX_DEADLINE_SECONDS})",
            f"an invocation ends: set activeDeadlineSeconds to 1..{MAX_DEADLINE_SECONDS}"
            f" (a waiting sandbox: {MAX_DEADLINE_SECONDS + MAX_WARM_SECONDS})",
        ),
        Rule(
            f"!({_WARM}) || {_SPEC}.?volumes.orValue([]).all(v, !has(v.secret))",
            "a waiting sandbox holds no credentials: remove its secret volumes",
        ),
        Rule(
            f"{_SPEC}.?terminationGracePeriodSeconds.orValue(30) <= {MAX_GRACE_SECONDS}",
            f"a stopped sandbox stops: set terminationGracePeriodSeconds to at most {MAX_GRACE_SECONDS}",
        ),
        Rule(
            f"{_SPEC}.?enableServiceLinks.orValue(true) == false",
            "a sandbox learns of no services: set enableServiceLinks to false",
        ),
        Rule(
            f"{_SPEC}.?dnsPolicy.orValue('ClusterFirst') == 'None'",
            "a sandbox resolves no names: set dnsPolicy to None",
        ),
        Rule(
            f"{_SPEC}.?dnsConfig.?nameservers.orValue([]).all(n, n == '127.0.0.1')",
            "a sandbox resolves no names: the only nameserver allowed is 127.0.0.1",
        ),
        Rule(f"{_SPEC}.?hostAliases.orValue([]).size() == 0", "names lead nowhere new: remove hostAliases"),
        Rule(
            f"{_SPEC}.?priorityClassName.orValue('') == ''",
            "a sandbox displaces nothing: remove priorityClassName",
        ),
        Rule(
            f"{_SPEC}.?schedulerName.orValue('default-scheduler') == 'default-scheduler'",
            "the default scheduler places sandboxes: remove schedulerName",
        ),
    ]


def _image_rules(registries: Sequence[str]) -> list[Rule]:
    if not registries:
        raise ValueError("at least one registry must be allowed")
    allowed = json.dumps([f"{registry.rstrip('/')}/" for registry in sorted(registries)])
    return [
        Rule(
            _each("c.image.matches('@sha256:[0-9a-f]{64}$')"), "images are pinned: name them by digest, name@sha256:..."
        ),
        Rule(
            _each(f"{allowed}.exists(prefix, c.image.startsWith(prefix))"),
            f"images come from the allowed registries only: {', '.join(sorted(registries))}",
        ),
    ]


def pod_rules(registries: Sequence[str]) -> list[Rule]:
    """Every rule that a pod in a `sandbox-*` namespace must pass. `registries`: host or host/path, no scheme."""
    # The server names the first rule that fails. Identity comes first since a token asked for brings a volume with it.
    return [*_identity_rules(), *_isolation_rules(), *_bound_rules(), *_image_rules(registries)]


# No one opens a shell, a port or another container in a sandbox, or gives it more: what runs there is what was admitted.
DENY_ENTRY = Rule(
    "false",
    "sandboxes are not entered or resized: exec, attach, port-forward, ephemeral containers and resize are refused",
)

NETWORK_RULES = [
    Rule(
        "params.spec.policyTypes.exists(t, t == 'Ingress') && params.spec.policyTypes.exists(t, t == 'Egress')"
        " && params.spec.?ingress.orValue([]).size() == 0 && params.spec.?egress.orValue([]).size() == 0"
        " && params.spec.podSelector.?matchLabels.orValue({}).size() == 0"
        " && params.spec.podSelector.?matchExpressions.orValue([]).size() == 0",
        f"the namespace's NetworkPolicy {NETWORK_POLICY_NAME} must deny all ingress and egress of all pods",
    )
]
QUOTA_RULES = [
    Rule(
        "['pods', 'limits.cpu', 'limits.memory'].all(k, k in params.spec.hard)",
        f"the namespace's ResourceQuota {QUOTA_NAME} must bound pods, limits.cpu and limits.memory",
    )
]
LIMIT_RULES = [
    Rule(
        "params.spec.limits.exists(l, l.type == 'Container' && 'cpu' in l.?max.orValue({}) && 'memory' in l.?max.orValue({}))",
        f"the namespace's LimitRange {LIMIT_RANGE_NAME} must bound cpu and memory of a container",
    )
]
NAMESPACE_RULES = [
    Rule(
        f"object.metadata.?labels[?'{key}'].orValue('') == '{value}'",
        f"a sandbox namespace carries the label {key}={value}",
    )
    for key, value in POD_SECURITY_LABELS.items()
    if key.startswith("pod-security.kubernetes.io/enforce")
] + [
    Rule(
        f"object.metadata.?labels[?'{INVOCATION_LABEL}'].orValue('') != ''",
        f"a sandbox namespace names its invocation: set the label {INVOCATION_LABEL}",
    )
]
IS_SANDBOX_NAMESPACE = f"object.metadata.name.startsWith('{SANDBOX_NAMESPACE_PREFIX}')"

# The runner's own requests: it fences others in, so it is fenced in too.
_NAME = "(request.operation == 'DELETE' ? oldObject.metadata.name : object.metadata.name)"
RUNNER_RULES = [
    Rule(
        f"request.resource.resource == 'namespaces' ? {_NAME}.startsWith('{SANDBOX_NAMESPACE_PREFIX}') : "
        f"({IN_SANDBOX} || (request.resource.resource == 'leases' && request.namespace == '{SYSTEM_NAMESPACE}'))",
        f"the runner acts in {SANDBOX_NAMESPACE_PREFIX}* namespaces only",
    ),
    Rule(
        "request.resource.resource != 'rolebindings' || request.operation == 'DELETE' || "
        f"(object.roleRef.kind == 'ClusterRole' && object.roleRef.name == '{UNIT_CLUSTER_ROLE}' && "
        "object.subjects.all(s, s.kind == 'ServiceAccount' && "
        f"s.name == '{RUNNER_SERVICE_ACCOUNT}' && s.namespace == '{SYSTEM_NAMESPACE}'))",
        f"the runner binds only {UNIT_CLUSTER_ROLE}, and only to itself",
    ),
]
