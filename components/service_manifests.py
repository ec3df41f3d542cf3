"""Kubernetes objects of the control side's service, as plain data; the pod passes Pod Security `restricted`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.collector_manifests import pod_labels
from components.vault_config import API_PORT as VAULT_PORT
from components.vault_config import AUDIENCE
from components.vault_manifests import CA_MAP, SERVER_LABELS
from ringfence.broker.secret_stores import TOKEN_FILE
from ringfence.image.kinds import CONTROL_USER as USER
from ringfence.names import LABEL_DOMAIN, RUNNER_SERVICE_ACCOUNT, SANDBOX_NODE_LABEL, VAULT_NAMESPACE
from ringfence.runner.manifests import INVOCATION_LABEL
from ringfence.runner.places import GATEWAY_PORT, POD_LABELS, STATE_FOLDER
from ringfence.telemetry_names import COLLECTOR, OTLP_PORT, OTLP_VARIABLE

Json = dict[str, Any]
NAME, STATE, CONFIG, TLS = "ringfence", "ringfence-state", "ringfence-project", "tls"
LABELS = POD_LABELS
API_PORT = 8443
PROJECT_FOLDER, TLS_FOLDER = "/etc/ringfence", "/etc/ringfence-tls"
# What the model gateway reaches models with, made by the operator: OPENAI_API_KEY, ANTHROPIC_API_KEY and the like.
MODELS_SECRET = "ringfence-models"  # noqa: S105 (a name)
_AUTHORITY_FOLDER = "/etc/ringfence-vault"
# Where EKS's Pod Identity agent answers on every node (docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html).
_POD_IDENTITY_AGENT = "169.254.170.23/32"
# After the drain: the last clean-up, and the end of the process.
_MARGIN_S = 60


def file_keys(files: Mapping[str, str]) -> dict[str, str]:
    """Path below the project's folder → key of the ConfigMap, which takes no slash."""
    return {path: path.replace("/", "__") for path in sorted(files)}


def digest(files: Mapping[str, str], unit: str = "") -> str:
    """SHA-256 of what the process reads at its start: the pod is replaced when something of it changes."""
    read = json.dumps([dict(sorted(files.items())), unit])
    return hashlib.sha256(read.encode()).hexdigest()


def api_service_spec() -> Json:
    """Where callers come to."""
    return {"selector": LABELS, "ports": [_port("https", 443, API_PORT)]}


def gateway_service_spec(address: str) -> Json:
    """Where sandboxes reach the model gateway: at an address that is known beforehand, since they resolve no names."""
    return {"selector": LABELS, "clusterIP": address, "ports": [_port("gateway", GATEWAY_PORT, GATEWAY_PORT)]}


def _port(name: str, port: int, target: int) -> Json:
    return {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}


def disruption_budget_spec() -> Json:
    """One at a time: with one replica, `minAvailable` would stop every drain of a node."""
    return {"maxUnavailable": 1, "selector": {"matchLabels": LABELS}}


def state_spec(storage_class: str, size_gib: int) -> Json:
    """Trail, ledger of the model gateway, accepted tasks."""
    return {
        "accessModes": ["ReadWriteOncePod"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": f"{size_gib}Gi"}},
    }


def network_policy_spec(client_cidrs: Sequence[str]) -> Json:
    """In: callers to the API, sandboxes to the model gateway. Out: cluster DNS, Pod Identity's agent, the secrets store, the
    collector, and over TLS AWS, the Kubernetes API, the identity provider and the models; DNS Firewall has the last word
    on names."""
    sandboxes = {"namespaceSelector": {"matchExpressions": [{"key": INVOCATION_LABEL, "operator": "Exists"}]}}
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    store = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": VAULT_NAMESPACE}},
        "podSelector": {"matchLabels": SERVER_LABELS},
    }
    ingress: list[Json] = [{"from": [sandboxes], "ports": _tcp(GATEWAY_PORT)}]
    if client_cidrs:
        callers = [{"ipBlock": {"cidr": cidr}} for cidr in sorted(client_cidrs)]
        ingress.append({"from": callers, "ports": _tcp(API_PORT)})
    return {
        "podSelector": {"matchLabels": LABELS},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": [
            {"to": [dns], "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]},
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}], "ports": _tcp(443)},
            {"to": [{"ipBlock": {"cidr": _POD_IDENTITY_AGENT}}], "ports": _tcp(80)},
            {"to": [store], "ports": _tcp(VAULT_PORT)},
            {"to": [{"podSelector": {"matchLabels": pod_labels(COLLECTOR)}}], "ports": _tcp(OTLP_PORT)},
        ],
    }


def _tcp(port: int) -> list[Json]:
    return [{"protocol": "TCP", "port": port}]


def arguments(stack: str, issuer: str, audience: str, drain_seconds: int, client_ca: bool) -> list[str]:
    """The container's command line."""
    given = ["serve", f"--stack={stack}", f"--project={PROJECT_FOLDER}", "--executor=kubernetes"]
    # Every address of the pod: what reaches it is the NetworkPolicy's matter, and it speaks TLS only.
    given += ["--host=0.0.0.0", f"--port={API_PORT}"]
    given += [f"--tls-certificate={TLS_FOLDER}/tls.crt", f"--tls-key={TLS_FOLDER}/tls.key"]
    given += [f"--client-ca={TLS_FOLDER}/ca.crt"] if client_ca else []
    given += [f"--oidc-issuer={issuer}", f"--oidc-audience={audience}"] if issuer else []
    return [*given, f"--drain-seconds={drain_seconds}"]


def _probe(path: str, **values: int) -> Json:
    return {"httpGet": {"path": path, "port": API_PORT, "scheme": "HTTPS"}, "timeoutSeconds": 5, **values}


def _environment(region: str, vault_address: str, otlp_endpoint: str) -> dict[str, str]:
    common = {"AWS_REGION": region, "AWS_EC2_METADATA_DISABLED": "true", "HOME": "/tmp"}  # noqa: S108
    # `ringfence.broker.factory` reads these; without them tools' secrets come from Secrets Manager.
    store = {"VAULT_ADDR": vault_address, "VAULT_CACERT": f"{_AUTHORITY_FOLDER}/ca.crt"}
    spans = {OTLP_VARIABLE: otlp_endpoint} if otlp_endpoint else {}
    return common | spans | (store if vault_address else {})


def _container(image: str, given: Sequence[str], environment: Mapping[str, str], mounts: Mapping[str, str]) -> Json:
    return {
        "name": NAME,
        "image": image,
        "args": list(given),
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "envFrom": [{"secretRef": {"name": MODELS_SECRET, "optional": True}}],
        "ports": [
            {"name": "https", "containerPort": API_PORT},
            {"name": "gateway", "containerPort": GATEWAY_PORT},
        ],
        "resources": {
            "requests": {"cpu": "250m", "memory": "512Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": "1Gi", "ephemeral-storage": "256Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "startupProbe": _probe("/healthz", periodSeconds=5, failureThreshold=60),
        "livenessProbe": _probe("/healthz", periodSeconds=20, failureThreshold=6),
        "readinessProbe": _probe("/readyz", periodSeconds=5, failureThreshold=2),
        "volumeMounts": [
            {"name": "state", "mountPath": str(STATE_FOLDER)},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            *({"name": name, "mountPath": path, "readOnly": True} for name, path in mounts.items()),
        ],
    }


def _read_only(files: Mapping[str, str], tls_secret: str, vault: bool) -> dict[str, tuple[str, Json]]:
    """Name of a volume → where it is mounted, and its source."""
    items = [{"key": key, "path": path} for path, key in file_keys(files).items()]
    found: dict[str, tuple[str, Json]] = {
        "project": (PROJECT_FOLDER, {"configMap": {"name": CONFIG, "defaultMode": 0o444, "items": items}}),
        "tls": (TLS_FOLDER, {"secret": {"secretName": tls_secret, "defaultMode": 0o440}}),
    }
    if vault:
        token = {"path": TOKEN_FILE.name, "expirationSeconds": 600, "audience": AUDIENCE}
        projected = {"projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]}}
        found["vault-authority"] = (_AUTHORITY_FOLDER, {"configMap": {"name": CA_MAP, "defaultMode": 0o444}})
        found["vault-token"] = (str(TOKEN_FILE.parent), projected)
    return found


def deployment_spec(
    image: str,
    given: Sequence[str],
    region: str,
    files: Mapping[str, str],
    tls_secret: str,
    drain_seconds: int,
    vault_address: str = "",
    read_at_start: Any = "",
    otlp_endpoint: str = "",
) -> Json:
    """One replica, since trail and accepted tasks lie on one volume; the old pod has drained before the new one starts.

    read_at_start: `digest`, or an Output of it.
    """
    off_sandbox = {"matchExpressions": [{"key": SANDBOX_NODE_LABEL, "operator": "DoesNotExist"}]}
    read_only = _read_only(files, tls_secret, bool(vault_address))
    mounts = {name: path for name, (path, _) in read_only.items()}
    return {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": LABELS},
        "template": {
            "metadata": {"labels": LABELS, "annotations": {f"{LABEL_DOMAIN}/project-sha256": read_at_start}},
            "spec": {
                "serviceAccountName": RUNNER_SERVICE_ACCOUNT,
                # It makes sandboxes at the Kubernetes API.
                "automountServiceAccountToken": True,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": drain_seconds + _MARGIN_S,
                "priorityClassName": "system-cluster-critical",
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": USER,
                    "runAsGroup": USER,
                    "fsGroup": USER,
                    "fsGroupChangePolicy": "OnRootMismatch",
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [off_sandbox]}
                    }
                },
                "containers": [_container(image, given, _environment(region, vault_address, otlp_endpoint), mounts)],
                "volumes": [
                    {"name": "state", "persistentVolumeClaim": {"claimName": STATE}},
                    {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
                    *({"name": name, **source} for name, (_, source) in read_only.items()),
                ],
            },
        },
    }
