"""The kubernetes provider against a real API server."""

from __future__ import annotations

import base64
import copy
import threading
import time
from typing import Any

import pytest

from ringfence.local.providers import kubernetes, kubernetes_client
from ringfence.local.providers.base import DiffResult, ProviderError
from ringfence.local.providers.kubernetes import AUTONAMED, KubernetesBackend
from ringfence.local.providers.kubernetes_client import ApiError, Unreachable
from tests.local.control_plane.declared import SEED, Resource, a_config_map, a_deployment, a_role, changed

pytestmark = pytest.mark.cluster


def test_an_object_is_made_read_changed_and_deleted(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("crud")
    role = Resource(backend, "rbac.authorization.k8s.io/v1:Role", a_role(namespace, "get")).create()
    assert role.id == f"{namespace}/runner"
    assert role.outputs["metadata"]["uid"]
    assert "managedFields" not in role.outputs["metadata"]
    before = copy.deepcopy(role.inputs)
    assert role.refresh() == before
    change = role.diff(a_role(namespace, "get", "list"))
    assert change == DiffResult(("rules[0].verbs",), ())
    uid = role.outputs["metadata"]["uid"]
    role.update(a_role(namespace, "get", "list"))
    assert role.outputs["rules"][0]["verbs"] == ["get", "list"]
    assert role.outputs["metadata"]["uid"] == uid
    role.delete()
    assert role.refresh() is None
    role.delete()


def test_equal_documents_are_no_change(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("equal")
    declared = a_deployment(namespace)
    deployment = Resource(backend, "apps/v1:Deployment", declared).create()
    shuffled = dict(reversed(list(declared.items()))) | {"unset": None}
    assert deployment.diff(shuffled) == DiffResult()


def test_what_the_server_defaults_or_respells_is_no_drift(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("spelling")
    deployment = Resource(backend, "apps/v1:Deployment", a_deployment(namespace)).create()
    before = copy.deepcopy(deployment.inputs)
    labels = {"metadata": {"name": "work", "namespace": namespace, "annotations": {"a.b/touched": "1"}}}
    plane.apply({"apiVersion": "apps/v1", "kind": "Deployment", **labels}, manager="kube-controller-manager")
    assert deployment.refresh() == before
    assert deployment.outputs["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "500m"


def test_a_role_that_was_widened_behind_our_back_shows_and_is_narrowed(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("widened")
    declared = a_role(namespace, "get")
    role = Resource(backend, "rbac.authorization.k8s.io/v1:Role", declared).create()
    wide = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **a_role(namespace, "*")}
    plane.apply(wide)
    assert role.diff(declared) == DiffResult()
    drifted = role.refresh()
    assert drifted is not None
    assert drifted["rules"][0]["verbs"] == ["*"]
    assert role.diff(declared).changed == ("rules[0].verbs[0]",)
    role.update(declared)
    assert role.outputs["rules"][0]["verbs"] == ["get"]


def test_what_somebody_added_shows_and_is_taken_out(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("added")
    declared = a_deployment(namespace)
    deployment = Resource(backend, "apps/v1:Deployment", declared).create()
    containers = [{"name": "main", "env": [{"name": "X", "value": "1"}]}, {"name": "side", "image": "s"}]
    extra = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {"containers": containers}}}}
    plane.apply(extra | {"metadata": {"name": "work", "namespace": namespace, "labels": {"evil": "1"}}})
    drifted = deployment.refresh()
    assert drifted is not None
    assert drifted["metadata"]["labels"] == {"evil": "1"}
    shown = {one["name"]: one for one in drifted["spec"]["template"]["spec"]["containers"]}
    assert shown["main"] == containers[0] | declared["spec"]["template"]["spec"]["containers"][0]
    assert "side" in shown
    assert deployment.diff(declared).changed
    deployment.update(declared)
    assert [one["name"] for one in deployment.outputs["spec"]["template"]["spec"]["containers"]] == ["main"]
    assert "env" not in deployment.outputs["spec"]["template"]["spec"]["containers"][0]
    assert "labels" not in deployment.outputs["metadata"]
    deployment.refresh()
    assert deployment.diff(declared) == DiffResult()


def test_what_was_never_shown_is_not_taken_out(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("unshown")
    declared = a_role(namespace, "get")
    role = Resource(backend, "rbac.authorization.k8s.io/v1:Role", declared).create()
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
    plane.apply(kind | {"metadata": {"name": "runner", "namespace": namespace, "labels": {"team": "x"}}, "rules": []})
    role.update(a_role(namespace, "get", "list"))
    assert role.outputs["metadata"]["labels"] == {"team": "x"}
    assert (role.refresh() or {})["metadata"]["labels"] == {"team": "x"}


def test_an_object_that_is_gone_is_missed_and_made_again(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("gone")
    role = Resource(backend, "rbac.authorization.k8s.io/v1:Role", a_role(namespace, "get")).create()
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/runner"
    plane.client.request("DELETE", path, "role")
    assert role.refresh() is None
    role.create()
    assert role.refresh() is not None


@pytest.mark.parametrize(
    ("token", "declared", "change", "replaces"),
    [
        ("core/v1:ConfigMap", {"data": {"a": "1"}}, {"data__a": "2"}, "data.a"),
        ("core/v1:ConfigMap", {"data": {"a": "1"}}, {"metadata__name": "other"}, "metadata.name"),
        (
            "node.k8s.io/v1:RuntimeClass",
            {"handler": "runsc"},
            {"handler": "runc"},
            "handler",
        ),
        (
            "rbac.authorization.k8s.io/v1:ClusterRoleBinding",
            {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}},
            {"roleRef__name": "edit"},
            "roleRef.name",
        ),
        # Not in the table of immutable fields: the server itself is asked.
        (
            "networking.k8s.io/v1:IPAddress",
            {"spec": {"parentRef": {"resource": "services", "name": "a", "namespace": "default"}}},
            {"spec__parentRef__name": "b"},
            "spec.parentRef.name",
        ),
    ],
)
def test_what_cannot_change_in_place_is_replaced_in_order(
    plane: Any, backend: KubernetesBackend, token: str, declared: dict, change: dict, replaces: str
) -> None:
    namespaced = token.startswith("core")
    name = "172.20.0.77" if "IPAddress" in token else f"replaced-{replaces.lower().replace('.', '-')}"
    metadata = {"name": name} | ({"namespace": plane.namespace("replaced")} if namespaced else {})
    resource = Resource(backend, token, declared | {"metadata": metadata}).create()
    result = resource.diff(changed(resource.inputs, **change))
    assert result.changed == result.replaces == (replaces,)
    assert result.delete_before_replace is (replaces != "metadata.name")
    resource.delete()


def test_a_stateful_set_replaces_only_for_what_it_must(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("stateful")
    declared = a_deployment(namespace)
    declared["spec"] |= {"serviceName": "vault"}
    stateful = Resource(backend, "apps/v1:StatefulSet", declared).create()
    assert stateful.diff(changed(declared, spec__replicas=3)).replaces == ()
    assert stateful.diff(changed(declared, spec__serviceName="other")).replaces == ("spec.serviceName",)
    with pytest.raises(ApiError, match="422 Invalid"):
        stateful.update(changed(declared, spec__serviceName="other"))


def test_a_changed_label_beside_an_immutable_field_does_not_replace(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("labels")
    config_map = Resource(backend, "core/v1:ConfigMap", a_config_map(namespace)).create()
    assert config_map.diff(changed(config_map.inputs, metadata__labels={"a": "b"})).replaces == ()


def test_an_automatic_name_is_kept_and_is_new_at_replacement(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("automatic")
    declared = {"metadata": {"namespace": namespace}, "data": {"a": "1"}}
    config_map = Resource(backend, "core/v1:ConfigMap", declared, name="Settings").create()
    assert config_map.id == f"{namespace}/settings-{SEED[:4].hex()}"
    assert config_map.outputs["metadata"]["annotations"] == {AUTONAMED: "true"}
    assert config_map.diff(declared) == DiffResult()
    result = config_map.diff(declared | {"data": {"a": "2"}})
    assert result.replaces == ("data.a",)
    assert not result.delete_before_replace
    news, _ = backend.check(config_map.token, config_map.urn, {}, declared, bytes(reversed(SEED)))
    assert news["metadata"]["name"] != config_map.inputs["metadata"]["name"]


def test_an_object_without_a_namespace_is_in_the_default_one(backend: KubernetesBackend) -> None:
    inputs = Resource(backend, "core/v1:ConfigMap", {"metadata": {"name": "x"}}).inputs
    assert inputs["metadata"]["namespace"] == "default"
    assert "namespace" not in Resource(backend, "core/v1:Namespace", {"metadata": {"name": "x"}}).inputs["metadata"]


def test_a_secret_in_plain_text_is_kept_and_its_drift_shows(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("secrets")
    declared = {"metadata": {"name": "s", "namespace": namespace}, "stringData": {"key": "one", "other": "same"}}
    secret = Resource(backend, "core/v1:Secret", declared).create()
    assert backend.secret_outputs(secret.token) == {"data", "stringData"}
    assert base64.b64decode(secret.outputs["data"]["key"]) == b"one"
    patch = {"apiVersion": "v1", "kind": "Secret", "metadata": declared["metadata"]}
    plane.apply(patch | {"data": {"key": base64.b64encode(b"two").decode()}})
    drifted = secret.refresh()
    assert drifted is not None
    assert drifted["stringData"] == {"key": "two", "other": "same"}


def test_a_namespace_is_deleted_with_what_is_in_it(plane: Any, backend: KubernetesBackend) -> None:
    namespace = Resource(backend, "core/v1:Namespace", {"metadata": {"name": "doomed"}}).create()
    config_map = Resource(backend, "core/v1:ConfigMap", a_config_map("doomed")).create()
    namespace.delete()
    assert namespace.refresh() is None
    assert config_map.refresh() is None
    config_map.delete()


def test_a_deployment_goes_with_what_it_owns(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("owners")
    deployment = Resource(backend, "apps/v1:Deployment", a_deployment(namespace)).create()
    owned = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
    for _ in range(1200):
        if plane.client.request("GET", owned, "replica sets")["items"]:
            break
        time.sleep(0.1)
    assert plane.client.request("GET", owned, "replica sets")["items"]
    deployment.delete()
    assert plane.client.request("GET", owned, "replica sets")["items"] == []


def test_a_deletion_that_is_held_up_says_by_what(
    plane: Any, backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = plane.namespace("held")
    declared = changed(a_config_map(namespace), metadata__finalizers=["example.com/hold"])
    config_map = Resource(backend, "core/v1:ConfigMap", declared).create()
    monkeypatch.setattr(kubernetes, "DELETE_TIMEOUT", 0.2)
    with pytest.raises(ProviderError, match=r"ConfigMap held/settings is still there after 0 s.*example\.com/hold"):
        config_map.delete()
    monkeypatch.undo()
    released = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": namespace}}
    plane.apply(released, manager=kubernetes.FIELD_MANAGER)
    config_map.delete()
    assert config_map.refresh() is None


def test_an_interrupted_deletion_is_no_longer_waited_for(plane: Any) -> None:
    namespace = plane.namespace("interrupted")
    impatient = KubernetesBackend()
    impatient.configure({"kubeconfig": plane.home.kubeconfig.read_text()})
    declared = changed(a_config_map(namespace), metadata__finalizers=["example.com/hold"])
    config_map = Resource(impatient, "core/v1:ConfigMap", declared).create()
    timer = threading.Timer(0.3, impatient.cancel)
    timer.start()
    with pytest.raises(ProviderError, match="no longer waited for, since you interrupted"):
        config_map.delete()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"spec__bogus": 1},
            r"Deployment .*/work: refused by the API server .*spec\.bogus: field not declared in schema",
        ),
        (
            {"spec__replicas": -1},
            r"422 Invalid\): .*spec\.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        ({"metadata__name": "Not_A_Name"}, r"metadata\.name: Invalid value: .Not_A_Name."),
    ],
)
def test_an_invalid_object_is_refused_by_field_at_preview_and_at_creation(
    plane: Any, backend: KubernetesBackend, change: dict, message: str
) -> None:
    namespace = plane.namespace("invalid")
    good = Resource(backend, "apps/v1:Deployment", a_deployment(namespace))
    good.preview()
    bad = Resource(backend, "apps/v1:Deployment", changed(a_deployment(namespace), **change))
    for attempt in (bad.preview, bad.create):
        with pytest.raises(ApiError, match=message):
            attempt()


def test_an_unknown_kind_is_told_with_the_remedy(backend: KubernetesBackend) -> None:
    thing = Resource(backend, "example.com/v1:Nothing", {"metadata": {"name": "x"}})
    assert thing.preview()["kind"] == "Nothing"
    with pytest.raises(ProviderError, match=r"no kind Nothing in example\.com/v1: make the CustomResourceDefinition"):
        thing.create()
    assert thing.refresh() is None
    thing.delete()


@pytest.mark.parametrize("token", ["helm.sh/v3:Release", "yaml/v2:ConfigFile", "kustomize/v2:Directory"])
def test_types_that_are_no_objects_are_refused(backend: KubernetesBackend, token: str) -> None:
    _, failures = backend.check(f"kubernetes:{token}", "urn:x::y", {}, {}, SEED)
    assert "not supported on the embedded target: declare its objects" in failures[0].reason


def test_a_generated_name_is_refused(backend: KubernetesBackend) -> None:
    declared = {"metadata": {"generateName": "x-"}}
    _, failures = backend.check("kubernetes:core/v1:ConfigMap", "urn:x::y", {}, declared, SEED)
    assert [failure.property for failure in failures] == ["metadata.generateName"]


def test_an_object_is_imported_as_it_could_be_declared(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("imported")
    plane.apply({"apiVersion": "v1", "kind": "ConfigMap", **a_config_map(namespace, k="v")})
    found = backend.read("kubernetes:core/v1:ConfigMap", "urn:x::y", f"{namespace}/settings", {}, {})
    assert found is not None
    assert found.id == f"{namespace}/settings"
    assert found.inputs == {"apiVersion": "v1", "kind": "ConfigMap", **a_config_map(namespace, k="v")}


def test_an_object_that_is_already_there_is_taken_over(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("taken")
    plane.apply({"apiVersion": "v1", "kind": "ConfigMap", **a_config_map(namespace, a="old")})
    config_map = Resource(backend, "core/v1:ConfigMap", a_config_map(namespace, a="new")).create()
    assert config_map.outputs["data"] == {"a": "new"}


def test_without_an_api_server_a_preview_works_and_everything_else_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_client.time, "sleep", lambda seconds: None)
    lost = KubernetesBackend()
    cluster = {"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "k"}}
    lost.configure({"kubeconfig": {"current-context": "c", "contexts": [context], "clusters": [cluster]}})
    config_map = Resource(lost, "core/v1:ConfigMap", a_config_map("default"))
    assert config_map.preview()["data"] == {"a": "1"}
    for attempt in (config_map.create, config_map.refresh, config_map.delete):
        with pytest.raises(Unreachable, match=r"no answer from http://127\.0\.0\.1:1"):
            attempt()


def test_a_provider_without_a_kubeconfig_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ProviderError, match="No such file or directory: start the control plane"):
        KubernetesBackend().configure({})
