"""The secrets store's Kubernetes objects as plain data; all pods pass Pod Security `restricted`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from components.vault_config import (
    API_PORT,
    AUDIENCE,
    CA_FILE,
    CLUSTER_PORT,
    CONFIG_DIR,
    DATA_DIR,
    DISTRIBUTIONS,
    HEADLESS,
    HOST,
    NAME,
    OPENBAO,
    SNAPSHOT_DIR,
    SNAPSHOT_SERVICE_ACCOUNT,
    TLS_DIR,
    TOKEN_FILE,
)
from ringfence.names import (
    LABEL_DOMAIN,
    SANDBOX_NODE_LABEL,
    SYSTEM_NAMESPACE,
    VAULT_NAMESPACE,
    VAULT_SERVICE_ACCOUNT,
)
from ringfence.runner.places import POD_LABELS

CONFIG_MAP, TLS_SECRET, SCRIPTS_MAP, CA_MAP = "vault-config", "vault-tls", "vault-snapshot-scripts", "vault-ca"
# The VPC CNI lets a pod reach a Service only if a policy's selector is the Service's own, label by label
# (github.com/aws/amazon-network-policy-controller-k8s/issues/224), so both use these and nothing else does.
SERVER_LABELS = {"app.kubernetes.io/name": NAME}
SNAPSHOT_LABELS = {"app.kubernetes.io/name": SNAPSHOT_SERVICE_ACCOUNT}
# The broker lives in the control side's pod.
BROKER_LABELS = POD_LABELS
DISK_GIB = 10
# Where EKS's Pod Identity agent answers on every node (docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html).
_POD_IDENTITY_AGENT = "169.254.170.23/32"
_USER, _GROUP = 100, 1000  # of both images' own user
_KUBERNETES_TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 (a path)


def config_digest(files: Mapping[str, str]) -> str:
    """SHA-256 over file names and texts: a pod template that carries it changes when they do."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def server_env(distribution: str, region: str) -> list[dict[str, Any]]:
    """Each replica's own addresses and node id, and what the command line in its pod needs."""
    prefix = DISTRIBUTIONS[distribution].env_prefix
    own = f"https://$(POD_NAME).{HEADLESS}.{VAULT_NAMESPACE}.svc"
    values = {
        f"{prefix}_API_ADDR": f"{own}:{API_PORT}",
        f"{prefix}_CLUSTER_ADDR": f"{own}:{CLUSTER_PORT}",
        f"{prefix}_RAFT_NODE_ID": "$(POD_NAME)",
        f"{prefix}_ADDR": f"https://127.0.0.1:{API_PORT}",
        f"{prefix}_CACERT": CA_FILE,
        "AWS_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": "/tmp",  # noqa: S108 (a memory-backed volume of the pod)
    }
    name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return [name, *({"name": key, "value": value} for key, value in values.items())]


def _pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _GROUP,
        "fsGroup": _GROUP,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def _off_sandbox_nodes() -> dict[str, Any]:
    term = {"matchExpressions": [{"key": SANDBOX_NODE_LABEL, "operator": "DoesNotExist"}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}


def _health(*accepted: str) -> dict[str, Any]:
    """The health endpoint over TLS; `accepted` states count as healthy besides active and standby."""
    query = "&".join(["standbyok=true", "perfstandbyok=true", *(f"{state}code=204" for state in accepted)])
    return {"httpGet": {"path": f"/v1/sys/health?{query}", "port": API_PORT, "scheme": "HTTPS"}, "timeoutSeconds": 5}


def _probes(distribution: str) -> dict[str, Any]:
    # OpenBao that isn't set up after 15 minutes starts again and asks its peers anew; Vault waits for an operator.
    waiting = ("sealed",) if distribution == OPENBAO else ("sealed", "uninit")
    return {
        "startupProbe": _health(*waiting) | {"periodSeconds": 10, "failureThreshold": 90},
        # Sealed means that KMS doesn't answer: a restart would mend nothing.
        "livenessProbe": _health("sealed", "uninit") | {"periodSeconds": 20, "failureThreshold": 6},
        "readinessProbe": _health() | {"periodSeconds": 5, "failureThreshold": 2},
    }


def _server_volumes() -> list[dict[str, Any]]:
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    authority = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    return [
        {"name": "config", "configMap": {"name": CONFIG_MAP, "defaultMode": 0o444}},
        {"name": "tls", "secret": {"secretName": TLS_SECRET, "defaultMode": 0o440}},
        # With it the server asks the Kubernetes API whether a login's token is genuine; it may do nothing else there.
        {"name": "token-review", "projected": {"defaultMode": 0o440, "sources": [token, authority]}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ]


def _server_container(distribution: str, image: str, region: str) -> dict[str, Any]:
    return {
        "name": NAME,
        "image": image,
        "command": ["/bin/sh", f"{CONFIG_DIR}/start.sh"],
        "env": server_env(distribution, region),
        "ports": [{"name": "api", "containerPort": API_PORT}, {"name": "cluster", "containerPort": CLUSTER_PORT}],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": "512Mi", "ephemeral-storage": "256Mi"},
        },
        "securityContext": _container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
            {"name": "tls", "mountPath": TLS_DIR, "readOnly": True},
            {"name": "token-review", "mountPath": _KUBERNETES_TOKEN_DIR, "readOnly": True},
            {"name": "data", "mountPath": DATA_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
        **_probes(distribution),
    }


def stateful_set_spec(
    distribution: str, image: str, replicas: int, region: str, storage_class: str, keep: bool, digest: str
) -> dict[str, Any]:
    """The servers: one per node and spread over zones when there are several, updated only when an operator deletes a
    pod, all started at once since none gets ready before the store is set up. digest: of the configuration."""
    spread = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": SERVER_LABELS},
    }
    apart = {"labelSelector": {"matchLabels": SERVER_LABELS}, "topologyKey": "kubernetes.io/hostname"}
    several = {
        "affinity": {
            "nodeAffinity": _off_sandbox_nodes(),
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]},
        },
        "topologySpreadConstraints": [spread],
    }
    return {
        "serviceName": HEADLESS,
        "replicas": replicas,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "persistentVolumeClaimRetentionPolicy": {
            "whenDeleted": "Retain" if keep else "Delete",
            "whenScaled": "Retain" if keep else "Delete",
        },
        "selector": {"matchLabels": SERVER_LABELS},
        "template": {
            "metadata": {"labels": SERVER_LABELS, "annotations": {f"{LABEL_DOMAIN}/config-sha256": digest}},
            "spec": {
                "serviceAccountName": VAULT_SERVICE_ACCOUNT,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 30,
                "securityContext": _pod_security(),
                **(several if replicas > 1 else {"affinity": {"nodeAffinity": _off_sandbox_nodes()}}),
                "containers": [_server_container(distribution, image, region)],
                "volumes": _server_volumes(),
            },
        },
        "volumeClaimTemplates": [
            {
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOncePod"],
                    "storageClassName": storage_class,
                    "resources": {"requests": {"storage": f"{DISK_GIB}Gi"}},
                },
            }
        ],
    }


def service_spec(headless: bool) -> dict[str, Any]:
    """The clients' address (ready servers), or the replicas' own names (all, since they meet before they are ready)."""
    ports = [{"name": "api", "port": API_PORT, "targetPort": API_PORT}]
    spec: dict[str, Any] = {"selector": SERVER_LABELS, "ports": ports}
    if headless:
        ports.append({"name": "cluster", "port": CLUSTER_PORT, "targetPort": CLUSTER_PORT})
        spec |= {"clusterIP": "None", "publishNotReadyAddresses": True}
    return spec


def disruption_budget_spec(replicas: int) -> dict[str, Any]:
    """A drain takes no more replicas than leave a majority. A single one may be drained, or no node could be renewed; a
    sealed one may be drained at any time."""
    return {
        "maxUnavailable": max(1, (replicas - 1) // 2),
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": SERVER_LABELS},
    }


def _tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _pods(labels: Mapping[str, str], namespace: str | None = None) -> dict[str, Any]:
    peer: dict[str, Any] = {"podSelector": {"matchLabels": dict(labels)}}
    if namespace:
        peer["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return peer


def _outside() -> list[dict[str, Any]]:
    """Cluster DNS, the Pod Identity agent, and HTTPS: KMS, S3 and the Kubernetes API, but no link-local address."""
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return [
        {"to": [_pods({"k8s-app": "kube-dns"}, "kube-system")], "ports": dns},
        {"to": [{"ipBlock": {"cidr": _POD_IDENTITY_AGENT}}], "ports": _tcp(80)},
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}], "ports": _tcp(443)},
    ]


def network_policies() -> dict[str, dict[str, Any]]:
    """Name → spec. Nothing in the namespace talks to anybody but as said here."""
    return {
        "default-deny": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        NAME: {
            "podSelector": {"matchLabels": SERVER_LABELS},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [_pods(BROKER_LABELS, SYSTEM_NAMESPACE)], "ports": _tcp(API_PORT)},
                {"from": [_pods(SNAPSHOT_LABELS)], "ports": _tcp(API_PORT)},
                # A replica joins over the API port and replicates over the other.
                {"from": [_pods(SERVER_LABELS)], "ports": _tcp(API_PORT, CLUSTER_PORT)},
            ],
            "egress": [{"to": [_pods(SERVER_LABELS)], "ports": _tcp(API_PORT, CLUSTER_PORT)}, *_outside()],
        },
        SNAPSHOT_SERVICE_ACCOUNT: {
            "podSelector": {"matchLabels": SNAPSHOT_LABELS},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [{"to": [_pods(SERVER_LABELS)], "ports": _tcp(API_PORT)}, *_outside()],
        },
    }


def _snapshot_volumes() -> list[dict[str, Any]]:
    token = {"path": "token", "expirationSeconds": 600, "audience": AUDIENCE}
    return [
        {"name": "scripts", "configMap": {"name": SCRIPTS_MAP, "defaultMode": 0o444}},
        {"name": "authority", "configMap": {"name": CA_MAP, "defaultMode": 0o444}},
        {"name": "token", "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]}},
        {"name": "snapshot", "emptyDir": {"sizeLimit": "4Gi"}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
    ]


def _job_container(
    name: str, image: str, env: Mapping[str, str], mounts: Mapping[str, str], memory: str
) -> dict[str, Any]:
    everywhere = {"scripts": "/scripts", "snapshot": SNAPSHOT_DIR, "tmp": "/tmp"}  # noqa: S108
    return {
        "name": name,
        "image": image,
        "command": ["/bin/sh", f"/scripts/{name}.sh"],
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": memory, "ephemeral-storage": "5Gi"},
        },
        "securityContext": _container_security(),
        "volumeMounts": [
            {"name": volume, "mountPath": path, "readOnly": volume not in ("snapshot", "tmp")}
            for volume, path in (everywhere | dict(mounts)).items()
        ],
    }


def snapshot_job_spec(distribution: str, image: str, upload_image: str, region: str, schedule: str) -> dict[str, Any]:
    """A CronJob that saves the storage with the store's own tool and then uploads it with the AWS CLI, whose container
    gets no token for the store. `schedule` is in UTC."""
    prefix = DISTRIBUTIONS[distribution].env_prefix
    home = {"HOME": "/tmp"}  # noqa: S108
    login = {f"{prefix}_ADDR": f"https://{HOST}:{API_PORT}", f"{prefix}_CACERT": "/etc/vault-ca/ca.crt"} | home
    mounts = {"authority": "/etc/vault-ca", "token": TOKEN_FILE.rpartition("/")[0]}
    upload = {"AWS_REGION": region, "AWS_EC2_METADATA_DISABLED": "true"} | home
    pod = {
        "serviceAccountName": SNAPSHOT_SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 1800,
        "securityContext": _pod_security(),
        "affinity": {"nodeAffinity": _off_sandbox_nodes()},
        "initContainers": [_job_container("snapshot", image, login, mounts, "256Mi")],
        "containers": [_job_container("upload", upload_image, upload, {}, "512Mi")],
        "volumes": _snapshot_volumes(),
    }
    return {
        "schedule": schedule,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {
            "spec": {"backoffLimit": 2, "template": {"metadata": {"labels": SNAPSHOT_LABELS}, "spec": pod}}
        },
    }
