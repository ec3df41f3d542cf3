"""Replacement rules, drift and foreign fields, on plain data."""

from __future__ import annotations

import pytest

from ringfence.local.providers.kubernetes_objects import (
    as_declared,
    foreign_steps,
    kind_of_token,
    may_own,
    named_by_server,
    removal_patch,
    replacing,
    undeclared,
    with_undeclared,
    without_nulls,
)

OWN, PREFIX = "pulumi-kubernetes", "pulumi-patch-"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("kubernetes:core/v1:Namespace", ("v1", "Namespace")),
        ("kubernetes:apps/v1:StatefulSet", ("apps/v1", "StatefulSet")),
        ("kubernetes:rbac.authorization.k8s.io/v1:RolePatch", ("rbac.authorization.k8s.io/v1", "Role")),
        ("kubernetes:example.com/v1:Patch", ("example.com/v1", "Patch")),
    ],
)
def test_a_token_names_a_kind(token: str, expected: tuple) -> None:
    assert kind_of_token(token) == expected


@pytest.mark.parametrize(
    ("api_version", "kind", "path", "replaces"),
    [
        ("v1", "Namespace", ("metadata", "name"), True),
        ("v1", "ConfigMap", ("metadata", "namespace"), True),
        ("v1", "ConfigMap", ("metadata", "labels", "a"), False),
        ("v1", "ConfigMap", ("data", "a"), True),
        ("v1", "Secret", ("type",), True),
        ("v1", "Service", ("spec", "clusterIP"), True),
        ("v1", "Service", ("spec", "ports", 0, "port"), False),
        ("v1", "Pod", ("spec", "containers", 0, "image"), False),
        ("v1", "Pod", ("spec", "containers", 0, "command"), True),
        ("v1", "Pod", ("spec", "tolerations"), False),
        ("v1", "Pod", ("metadata", "labels", "a"), False),
        ("apps/v1", "StatefulSet", ("spec", "serviceName"), True),
        ("apps/v1", "StatefulSet", ("spec", "volumeClaimTemplates", 0, "spec"), True),
        ("apps/v1", "StatefulSet", ("spec", "replicas"), False),
        ("apps/v1", "Deployment", ("spec", "selector", "matchLabels", "a"), True),
        ("apps/v1", "Deployment", ("spec",), True),
        ("batch/v1", "Job", ("spec", "template", "spec", "restartPolicy"), True),
        ("batch/v1", "Job", ("spec", "parallelism"), False),
        ("node.k8s.io/v1", "RuntimeClass", ("handler",), True),
        ("node.k8s.io/v1", "RuntimeClass", ("overhead", "podFixed", "cpu"), False),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", ("roleRef", "name"), True),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", ("subjects",), False),
        ("storage.k8s.io/v1", "StorageClass", ("parameters", "type"), True),
        ("storage.k8s.io/v1", "StorageClass", ("allowVolumeExpansion",), False),
    ],
)
def test_what_cannot_change_in_place_replaces(api_version: str, kind: str, path: tuple, replaces: bool) -> None:
    assert replacing(api_version, kind, {}, [path], mutable_content=False) == ([path] if replaces else [])


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_mutable_content_is_updated_unless_the_object_is_immutable(kind: str) -> None:
    changed = [("data", "a"), ("immutable",)]
    assert replacing("v1", kind, {}, changed, mutable_content=True) == []
    assert replacing("v1", kind, {"immutable": True}, changed, mutable_content=True) == changed


def test_the_fields_that_the_server_names_are_found_among_the_changed_ones() -> None:
    changed = [("spec", "a"), ("spec", "list", 0, "b"), ("metadata", "labels", "x")]
    assert named_by_server(["spec.list[0]"], changed) == [("spec", "list", 0, "b")]
    assert named_by_server(["elsewhere"], changed) == changed
    assert named_by_server([], changed) == changed


@pytest.mark.parametrize(
    ("group", "owns"),
    [
        ("", False),
        ("rbac.authorization.k8s.io", False),
        ("policy", False),
        ("apps", True),
        ("batch", True),
        ("a.com", True),
    ],
)
def test_what_may_own_others_goes_after_them(group: str, owns: bool) -> None:
    assert may_own(group) is owns


def test_nulls_are_left_out_at_any_depth() -> None:
    assert without_nulls({"a": None, "b": {"c": None, "d": [{"e": None}]}}) == {"b": {"d": [{}]}}


def test_what_the_server_only_spells_differently_is_as_declared() -> None:
    declared = {"spec": {"cpu": "0.5", "list": [{"n": 1}]}}
    live = {"spec": {"cpu": "500m", "list": [{"n": 1, "default": True}], "added": 1}, "status": {}}
    assert as_declared(declared, live, live) == declared


def test_a_changed_a_removed_and_an_added_part_show_as_they_live() -> None:
    declared = {"spec": {"cpu": "0.5", "memory": "1Gi", "gone": 1}}
    wanted = {"spec": {"cpu": "500m", "memory": "1Gi", "gone": 1}}
    live = {"spec": {"cpu": "500m", "memory": "2Gi"}}
    assert as_declared(declared, live, wanted) == {"spec": {"cpu": "0.5", "memory": "2Gi"}}


def test_a_list_of_another_length_keeps_the_words_of_known_elements() -> None:
    declared = {"rules": [{"cpu": "0.5"}, {"cpu": "1"}]}
    wanted = {"rules": [{"cpu": "500m"}, {"cpu": "1"}]}
    live = {"rules": [{"cpu": "9"}, {"cpu": "500m"}, {"cpu": "1"}]}
    assert as_declared(declared, live, wanted) == {"rules": [{"cpu": "9"}, {"cpu": "0.5"}, {"cpu": "1"}]}


def _entry(manager: str, fields: dict, **more: str) -> dict:
    return {"manager": manager, "fieldsV1": fields, **more}


LIVE = {
    "metadata": {"name": "x", "labels": {"own": "1", "evil": "1"}, "finalizers": ["f"]},
    "spec": {
        "containers": [
            {"name": "side", "image": "s"},
            {"name": "main", "image": "m", "env": [{"name": "X", "value": "1"}]},
        ],
        "set": ["a", "b"],
    },
}
DECLARED = {
    "metadata": {"name": "x", "labels": {"own": "1"}},
    "spec": {"containers": [{"name": "main", "image": "m"}], "set": ["a"]},
}
EDIT = {
    "f:metadata": {"f:labels": {"f:evil": {}}, "f:finalizers": {".": {}, 'v:"f"': {}}},
    "f:spec": {
        "f:containers": {
            'k:{"name":"side"}': {".": {}, "f:name": {}, "f:image": {}},
            'k:{"name":"main"}': {"f:env": {".": {}, 'k:{"name":"X"}': {".": {}, "f:name": {}, "f:value": {}}}},
        },
        "f:set": {'v:"b"': {}},
    },
    "f:status": {"f:phase": {}},
}


def test_what_somebody_else_added_is_found_once_and_at_its_root() -> None:
    found = undeclared(DECLARED, LIVE, foreign_steps([_entry("kubectl-edit", EDIT)], OWN, PREFIX))
    assert sorted(found, key=str) == sorted(
        [
            (("metadata", "labels"), ("metadata", "labels", "evil")),
            (("spec", "containers"), ("spec", "containers", 0)),
            (("spec", "containers", 0), ("spec", "containers", 1, "env")),
            (("spec", "set"), ("spec", "set", 1)),
        ],
        key=str,
    )
    shown = with_undeclared(DECLARED, LIVE, found)
    assert shown["metadata"]["labels"] == {"own": "1", "evil": "1"}
    assert {one["name"]: one.get("env") for one in shown["spec"]["containers"]} == {
        "main": [{"name": "X", "value": "1"}],
        "side": None,
    }
    assert shown["spec"]["set"] == ["a", "b"]
    assert DECLARED["metadata"]["labels"] == {"own": "1"}


@pytest.mark.parametrize(
    "entry",
    [
        _entry(OWN, EDIT),
        _entry(f"{PREFIX}abc", EDIT),
        _entry("kube-controller-manager", EDIT),
        _entry("kubectl-edit", EDIT, subresource="status"),
    ],
)
def test_own_fields_system_fields_and_subresources_are_no_drift(entry: dict) -> None:
    assert foreign_steps([entry], OWN, PREFIX) == []


def test_a_removal_takes_later_elements_first_and_holds_for_one_version() -> None:
    patch = removal_patch([("l", 0), ("l", 10), ("l", 2), ("m", "a/b~c")], "42")
    assert patch[0] == {"op": "test", "path": "/metadata/resourceVersion", "value": "42"}
    assert [one["path"] for one in patch[1:]] == ["/m/a~1b~0c", "/l/10", "/l/2", "/l/0"]
