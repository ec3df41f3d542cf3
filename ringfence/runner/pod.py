"""The sandbox's pod and its secret on Kubernetes: the promised spec and what the admission policies ask for besides.

Trust zone: control side. Nothing in the pod's own object is secret: prompt, token and credentials come from the Secret.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from ringfence.names import GVISOR_RUNTIME_CLASS
from ringfence.runner.executor import CREDENTIALS_FOLDER, Unit
from ringfence.runner.manifests import INVOCATION_LABEL, WARM_LABEL

POD_NAME = CONTAINER_NAME = "agent"
# uid, gid and fsGroup of the sandbox (design, "The interfaces that users were promised").
USER_ID = 1000
SCRATCH = {"/tmp": "64Mi"}  # noqa: S108 (inside of the sandbox)
EPHEMERAL_STORAGE = {"requests": "64Mi", "limits": "256Mi"}


def secret_name(invocation_id: str) -> str:
    """``creds-<id>``."""
    return f"creds-{invocation_id}"


def secret(unit: Unit, namespace: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The unit's Secret: environment and credential files. It can't be changed, only removed."""
    content = {**{key: value.encode() for key, value in environment.items()}, **unit.credentials}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(unit.invocation_id), "namespace": namespace},
        "immutable": True,
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
    }


def pod(unit: Unit, image: str, environment: Mapping[str, str], deadline_seconds: int, *, warm: bool) -> dict[str, Any]:
    """The pod. environment: whose keys the Secret holds; deadline_seconds: wall clock from its start on the node."""
    labels = {INVOCATION_LABEL: unit.invocation_id} | ({WARM_LABEL: "true"} if warm else {})
    volumes, mounts = _volumes(unit)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD_NAME, "labels": labels},
        "spec": {
            "runtimeClassName": GVISOR_RUNTIME_CLASS,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": deadline_seconds,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["127.0.0.1"]},
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(unit, image, environment, mounts)],
            "volumes": volumes,
        },
    }


def _container(unit: Unit, image: str, environment: Mapping[str, str], mounts: list[dict[str, Any]]) -> dict[str, Any]:
    # From the Secret even where nothing is secret: Kubernetes expands $(NAME) in plain values, and a prompt that says
    # $(CREDENTIALS_TOKEN) would be handed to the model with the token in it.
    source = secret_name(unit.invocation_id)
    variables = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": source, "key": key}}} for key in sorted(environment)
    ]
    return {
        "name": CONTAINER_NAME,
        "image": image,
        "env": variables,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "procMount": "Default",
        },
        "resources": {
            "requests": {
                "cpu": f"{unit.cpu_millis // 2}m",
                "memory": f"{unit.memory_mib // 2}Mi",
                "ephemeral-storage": EPHEMERAL_STORAGE["requests"],
            },
            "limits": {
                "cpu": f"{unit.cpu_millis}m",
                "memory": f"{unit.memory_mib}Mi",
                "ephemeral-storage": EPHEMERAL_STORAGE["limits"],
            },
        },
        "volumeMounts": mounts,
    }


def _volumes(unit: Unit) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Bounded scratch space, and the credential files, readable by the sandbox's group alone."""
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for index, (path, size) in enumerate(sorted(SCRATCH.items())):
        volumes.append({"name": f"scratch-{index}", "emptyDir": {"sizeLimit": size}})
        mounts.append({"name": f"scratch-{index}", "mountPath": path})
    if unit.credentials:
        items = [{"key": name, "path": name} for name in sorted(unit.credentials)]
        source = {"secretName": secret_name(unit.invocation_id), "defaultMode": 0o440, "items": items}
        volumes.append({"name": "credentials", "secret": source})
        mounts.append({"name": "credentials", "mountPath": CREDENTIALS_FOLDER, "readOnly": True})
    return volumes, mounts
