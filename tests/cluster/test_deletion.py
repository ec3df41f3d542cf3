"""What the embedded control plane must let go of, since it has no nodes to finish anything."""

from __future__ import annotations

import time

import pytest
from kubernetes import client

pytestmark = pytest.mark.cluster


def test_a_namespace_with_a_stateful_sets_claim_is_gone_soon_after_its_deletion(api_server):
    core, apps = client.CoreV1Api(api_server.client), client.AppsV1Api(api_server.client)
    name = "claims-of-its-own"
    core.create_namespace({"metadata": {"name": name}})
    labels = {"app": "store"}
    container = {"name": "store", "image": "store", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec = {
        "serviceName": "store",
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
    }
    apps.create_namespaced_stateful_set(name, {"metadata": {"name": "store"}, "spec": spec})
    deadline = time.monotonic() + 60
    while not core.list_namespaced_persistent_volume_claim(name).items:
        assert time.monotonic() < deadline, "no claim was made"
        time.sleep(0.2)
    core.delete_namespace(name)
    while any(item.metadata.name == name for item in core.list_namespace().items):
        assert time.monotonic() < deadline, "the namespace is still there"
        time.sleep(0.2)
