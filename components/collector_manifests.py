"""Kubernetes objects of the collector, gateway and node agent, as plain data."""

from __future__ import annotations

from typing import Any

from components.collector_config import HEALTH_PORT, LOG_DIRECTORY, STORAGE_DIRECTORY
from ringfence import telemetry_names as t
from ringfence.names import COLLECTOR_SERVICE_ACCOUNT, SANDBOX_NODE_LABEL, SYSTEM_NAMESPACE
from ringfence.runner.manifests import INVOCATION_LABEL, POD_SECURITY_VERSION

Json = dict[str, Any]
CONFIG_FILE = "collector.yaml"
_CONFIG_DIRECTORY = "/etc/otelcol"
_DIGEST_ANNOTATION = "ringfence.dev/config-sha256"
# uid of the image's own user (opentelemetry-collector-releases, Dockerfile).
_USER = 10001
# Pod Security has no level between "no host path" (baseline) and everything (privileged). `AGENT_RULES` put back, for
# this namespace, what the level lets go.
AGENT_NAMESPACE_LABELS = {
    "pod-security.kubernetes.io/enforce": "privileged",
    "pod-security.kubernetes.io/enforce-version": POD_SECURITY_VERSION,
}
AGENT_POLICY = f"{t.TELEMETRY_NAMESPACE}-pods"


def pod_labels(name: str) -> dict[str, str]:
    """What the pods of the gateway (`COLLECTOR`) or of the node agents are told apart by."""
    return {"app.kubernetes.io/name": name}


def reader_rules() -> list[Json]:
    """What `k8s_attributes` reads: pods, and namespaces for the invocation's label. Nothing else, and no secret."""
    return [{"apiGroups": [""], "resources": ["namespaces", "pods"], "verbs": ["get", "list", "watch"]}]


def service_spec() -> Json:
    """4317 for workloads, 4319 for the node agents."""
    ports = (("otlp-grpc", t.OTLP_PORT), ("otlp-agents", t.AGENT_OTLP_PORT))
    return {
        "selector": pod_labels(t.COLLECTOR),
        "ports": [{"name": n, "port": p, "targetPort": p, "protocol": "TCP", "appProtocol": "grpc"} for n, p in ports],
    }


def disruption_budget_spec() -> Json:
    """One at a time. `minAvailable` would stop every drain when there is one replica."""
    return {"maxUnavailable": 1, "selector": {"matchLabels": pod_labels(t.COLLECTOR)}}


def _tcp(*ports: int) -> list[Json]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _dns() -> Json:
    return {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }  # fmt: skip


def _namespace(name: str) -> Json:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def gateway_network_policy() -> Json:
    """In: the control side and sandboxes on 4317, the agents' namespace on 4319 (a gateway's own metrics take that port
    without leaving the pod). Out: cluster DNS, Pod Identity's agent, and over TLS AWS and the Kubernetes API."""
    sandboxes = {"namespaceSelector": {"matchExpressions": [{"key": INVOCATION_LABEL, "operator": "Exists"}]}}
    agents = _namespace(t.TELEMETRY_NAMESPACE) | {"podSelector": {"matchLabels": pod_labels(t.COLLECTOR_AGENT)}}
    return {
        "podSelector": {"matchLabels": pod_labels(t.COLLECTOR)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [_namespace(SYSTEM_NAMESPACE), sandboxes], "ports": _tcp(t.OTLP_PORT)},
            {"from": [agents], "ports": _tcp(t.AGENT_OTLP_PORT)},
        ],
        "egress": [
            _dns(),
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}], "ports": _tcp(443)},
            {"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}], "ports": _tcp(80)},
        ],
    }


def agent_network_policy(vpc_cidr: str, service_cidr: str) -> Json:
    """For every pod of the agents' namespace. In: nothing. Out: cluster DNS, the Kubernetes API, the gateway."""
    gateway = _namespace(SYSTEM_NAMESPACE) | {"podSelector": {"matchLabels": pod_labels(t.COLLECTOR)}}
    inside = [{"ipBlock": {"cidr": cidr}} for cidr in (vpc_cidr, service_cidr)]
    return {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [_dns(), {"to": inside, "ports": _tcp(443)}, {"to": [gateway], "ports": _tcp(t.AGENT_OTLP_PORT)}],
    }


def _container(name: str, image: str, memory: str, mounts: list[Json]) -> Json:
    fields = {"POD_NAME": "metadata.name", "POD_IP": "status.podIP", "NODE_NAME": "spec.nodeName"}
    probe = {"httpGet": {"path": "/", "port": HEALTH_PORT}}
    return {
        "name": name,
        "image": image,
        "args": [f"--config={_CONFIG_DIRECTORY}/{CONFIG_FILE}"],
        "env": [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()],
        "resources": {"requests": {"cpu": "50m", "memory": memory}, "limits": {"memory": memory}},
        "readinessProbe": probe | {"periodSeconds": 10},
        "livenessProbe": probe | {"periodSeconds": 20, "failureThreshold": 6, "initialDelaySeconds": 60},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "config", "mountPath": _CONFIG_DIRECTORY, "readOnly": True}, *mounts],
    }


def _pod(name: str, account: str, container: Json, digest: str, group: int, volumes: list[Json]) -> Json:
    """On system nodes only: nothing trusted runs beside sandboxes."""
    off_sandbox = {"matchExpressions": [{"key": SANDBOX_NODE_LABEL, "operator": "DoesNotExist"}]}
    return {
        "metadata": {"labels": pod_labels(name), "annotations": {_DIGEST_ANNOTATION: digest}},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": True,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 60,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": group,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [off_sandbox]}}
            },
            "containers": [container],
            "volumes": [{"name": "config", "configMap": {"name": name, "defaultMode": 0o444}}, *volumes],
        },
    }


def gateway_spec(image: str, replicas: int, digest: str) -> Json:
    """The gateway's Deployment; passes Pod Security `restricted`."""
    container = _container(t.COLLECTOR, image, "512Mi", [])
    template = _pod(t.COLLECTOR, COLLECTOR_SERVICE_ACCOUNT, container, digest, _USER, [])
    template["spec"]["priorityClassName"] = "system-cluster-critical"
    template["spec"]["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": pod_labels(t.COLLECTOR)},
        }
    ]
    return {
        "replicas": replicas,
        "selector": {"matchLabels": pod_labels(t.COLLECTOR)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template,
    }


def agent_spec(image: str, digest: str) -> Json:
    """The node agent's DaemonSet. Container logs belong to root and its group, who may read them (0640): group 0 and no
    capability suffice, so it is not root."""
    mounts = [
        {"name": "logs", "mountPath": LOG_DIRECTORY, "readOnly": True},
        {"name": "state", "mountPath": STORAGE_DIRECTORY},
    ]
    volumes = [
        {"name": "logs", "hostPath": {"path": LOG_DIRECTORY, "type": "Directory"}},
        {"name": "state", "emptyDir": {"sizeLimit": "512Mi"}},
    ]
    container = _container(t.COLLECTOR_AGENT, image, "192Mi", mounts)
    template = _pod(t.COLLECTOR_AGENT, t.COLLECTOR_AGENT, container, digest, 0, volumes)
    template["spec"]["priorityClassName"] = "system-node-critical"
    return {
        "selector": {"matchLabels": pod_labels(t.COLLECTOR_AGENT)},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "template": template,
    }


_ALL = "(object.spec.containers + object.spec.?initContainers.orValue([]))"
_VOLUMES = "object.spec.?volumes.orValue([])"
# In CEL: what a pod of the agents' namespace may be. Expression → what the refused caller is told.
AGENT_RULES: tuple[tuple[str, str], ...] = (
    (
        "!object.spec.?hostNetwork.orValue(false) && !object.spec.?hostPID.orValue(false) && "
        "!object.spec.?hostIPC.orValue(false)",
        "no host namespaces: remove hostNetwork, hostPID and hostIPC",
    ),
    (
        f"{_ALL}.all(c, c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0))",
        "no ports of the node: remove hostPort",
    ),
    (
        f"{_VOLUMES}.all(v, has(v.configMap) || has(v.emptyDir) || has(v.projected) || "
        f"(has(v.hostPath) && v.hostPath.path == '{LOG_DIRECTORY}'))",
        f"of the node's files only {LOG_DIRECTORY}: remove other volumes",
    ),
    (
        f"{_VOLUMES}.all(v, !has(v.hostPath) || {_ALL}.all(c, "
        "c.?volumeMounts.orValue([]).all(m, m.name != v.name || m.?readOnly.orValue(false))))",
        "the node's files are only read: set readOnly on the mount",
    ),
    (f"{_ALL}.all(c, c.?volumeDevices.orValue([]).size() == 0)", "no block devices: remove volumeDevices"),
    (
        f"{_ALL}.all(c, !c.?securityContext.?privileged.orValue(false) && "
        "c.?securityContext.?allowPrivilegeEscalation.orValue(true) == false && "
        "c.?securityContext.?readOnlyRootFilesystem.orValue(false))",
        "no privilege: set privileged and allowPrivilegeEscalation to false, readOnlyRootFilesystem to true",
    ),
    (
        f"{_ALL}.all(c, c.?securityContext.?capabilities.?drop.orValue([]).exists(d, d == 'ALL') && "
        "c.?securityContext.?capabilities.?add.orValue([]).size() == 0)",
        "no capabilities: drop ALL and add none",
    ),
    (
        f"object.spec.?securityContext.?runAsNonRoot.orValue(false) && {_ALL}.all(c, "
        "c.?securityContext.?runAsNonRoot.orValue(true) && c.?securityContext.?runAsUser.orValue(1) != 0)",
        "not root: set runAsNonRoot, and no other user on a container",
    ),
    (
        "object.spec.?securityContext.?seccompProfile.?type.orValue('') == 'RuntimeDefault' && "
        f"{_ALL}.all(c, c.?securityContext.?seccompProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault') && "
        f"{_ALL}.all(c, c.?securityContext.?procMount.orValue('Default') == 'Default') && "
        "object.spec.?securityContext.?sysctls.orValue([]).size() == 0",
        "the kernel's defaults: seccomp profile RuntimeDefault, no procMount, no sysctls",
    ),
)


def agent_policy_spec() -> Json:
    """The ValidatingAdmissionPolicy of the agents' namespace; ephemeral containers are refused whole."""
    pods = {"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"]}
    here = f"request.namespace == '{t.TELEMETRY_NAMESPACE}'"
    no_entry = {
        "expression": "!has(request.subResource)",
        "message": "nobody enters an agent's pod: it reads the node's logs",
        "reason": "Forbidden",
    }
    rules = [
        {"expression": f"has(request.subResource) || ({expression})", "message": message, "reason": "Forbidden"}
        for expression, message in AGENT_RULES
    ]
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                pods | {"resources": ["pods"]},
                pods
                | {
                    "resources": [
                        "pods/attach",
                        "pods/ephemeralcontainers",
                        "pods/exec",
                        "pods/portforward",
                        "pods/proxy",
                    ],
                    "operations": ["CREATE", "UPDATE", "CONNECT"],
                },
            ]
        },
        "matchConditions": [{"name": "in-the-agents-namespace", "expression": here}],
        "validations": [no_entry, *rules],
    }


def agent_binding_spec() -> Json:
    """Refuses, and notes the refusal in the audit log."""
    return {"policyName": AGENT_POLICY, "validationActions": ["Deny", "Audit"]}
