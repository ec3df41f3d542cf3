"""The kubernetes provider: kinds that a definition adds, and patches of objects that are there, on a real API server."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ringfence.local.providers import kubernetes
from ringfence.local.providers.base import PartialCreate, ProviderError
from ringfence.local.providers.kubernetes import KubernetesBackend
from ringfence.local.providers.kubernetes_client import ApiError
from tests.local.control_plane.declared import Resource, changed

pytestmark = pytest.mark.cluster


def test_a_definition_is_served_when_its_creation_returns(plane: Any, backend: KubernetesBackend) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Widget", "plural": "widgets", "singular": "widget"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    declared = {"metadata": {"name": "widgets.example.com"}, "spec": spec}
    definition = Resource(backend, "apiextensions.k8s.io/v1:CustomResourceDefinition", declared).create()
    namespace = plane.namespace("widgets")
    widget = {"metadata": {"name": "w", "namespace": namespace}, "spec": {"size": 1}}
    custom = Resource(backend, "example.com/v1:Widget", widget).create()
    custom.update(changed(widget, spec__size=2))
    assert custom.outputs["spec"] == {"size": 2}
    with pytest.raises(ApiError, match="size"):
        custom.update(changed(widget, spec__size="big"))
    definition.delete()
    assert custom.refresh() is None


def test_a_definition_that_is_never_served_is_remembered(
    backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"kind": "Namespace", "plural": "clashes", "singular": "clash"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    one = {"group": "clash.example.com", "scope": "Cluster", "names": names, "versions": [version]}
    other = one | {"names": names | {"plural": "others", "singular": "clash"}}
    token = "apiextensions.k8s.io/v1:CustomResourceDefinition"
    first = Resource(backend, token, {"metadata": {"name": "clashes.clash.example.com"}, "spec": one}).create()
    monkeypatch.setattr(kubernetes, "DEFINITION_TIMEOUT", 0.3)
    second = Resource(backend, token, {"metadata": {"name": "others.clash.example.com"}, "spec": other})
    with pytest.raises(PartialCreate, match="already in use") as partial:
        second.create()
    assert partial.value.id == "others.clash.example.com"
    second.id, second.outputs = partial.value.id, partial.value.outputs
    second.delete()
    first.delete()


def test_a_patch_adds_to_an_object_and_takes_only_that_away(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("patched")
    metadata = {"name": "default", "namespace": namespace, "labels": {"added": "1"}}
    patch = Resource(
        backend, "core/v1:ServiceAccountPatch", {"metadata": metadata, "automountServiceAccountToken": False}
    )
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    _wait_for(plane, account)
    patch.create()
    live = plane.client.request("GET", account, "account")
    assert (live["metadata"]["labels"], live["automountServiceAccountToken"]) == ({"added": "1"}, False)
    patch.delete()
    live = plane.client.request("GET", account, "account")
    assert "labels" not in live["metadata"]
    assert "automountServiceAccountToken" not in live


def test_a_patch_of_nothing_is_refused(plane: Any, backend: KubernetesBackend) -> None:
    metadata = {"name": "nobody", "namespace": plane.namespace("unpatched")}
    patch = Resource(backend, "core/v1:ServiceAccountPatch", {"metadata": metadata})
    with pytest.raises(ProviderError, match="ServiceAccount unpatched/nobody doesn't exist"):
        patch.create()


def _wait_for(plane: Any, path: str) -> None:
    for _ in range(1200):
        try:
            plane.client.request("GET", path, path)
        except ApiError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"{path} never came")
