"""Guardrails over plain values: what the engine tests don't reach, above all values unknown at preview."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from ringfence.review.facts import AT_PREVIEW
from ringfence.review.guardrails import GUARDRAILS, GuardrailRules
from ringfence.review.guardrails.rules import TOPICS
from ringfence.review.resource import Resource

TODAY = datetime.date(2026, 11, 22)
SAFE = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}


def broken(resource: Resource, folder: Path = Path("/nonexistent")) -> set[str]:
    rules = GuardrailRules(folder, TODAY)
    found = [item for topic in TOPICS for item in rules.check_resource(topic, resource, {})]
    return {item.rule for item in found}


def pod(namespace: Any = "sandbox-1", **spec: Any) -> Resource:
    base = {
        "runtimeClassName": "gvisor",
        "automountServiceAccountToken": False,
        "containers": [{"name": "c", "securityContext": SAFE}],
    }
    return Resource("kubernetes:core/v1:Pod", "p", "urn", {"metadata": {"namespace": namespace}, "spec": base | spec})


def test_ids_are_unique_and_every_rule_says_why_and_how() -> None:
    assert len({rule.id for rule in GUARDRAILS}) == len(GUARDRAILS)
    for rule in GUARDRAILS:
        assert rule.why and rule.fix and (rule.check is None) != (rule.stack_check is None)


def test_a_hardened_sandbox_pod_breaks_no_rule() -> None:
    assert broken(pod()) == set()


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ({"runtimeClassName": AT_PREVIEW}, "sandbox-pod-gvisor"),
        ({"hostPID": AT_PREVIEW}, "sandbox-pod-no-host-access"),
        ({"volumes": AT_PREVIEW}, "sandbox-pod-no-host-access"),
        ({"automountServiceAccountToken": AT_PREVIEW}, "sandbox-pod-no-token"),
        ({"containers": [{"securityContext": {**SAFE, "privileged": AT_PREVIEW}}]}, "sandbox-pod-unprivileged"),
        ({"containers": [{"securityContext": {**SAFE, "runAsUser": 0}}]}, "sandbox-pod-unprivileged"),
        ({"containers": [{"securityContext": {**SAFE, "procMount": "Unmasked"}}]}, "sandbox-pod-unprivileged"),
        ({"ephemeralContainers": [{"name": "debug"}]}, "sandbox-pod-unprivileged"),
    ],
)
def test_an_unknown_or_unsafe_pod_setting_breaks_its_rule(spec: dict[str, Any], rule: str) -> None:
    assert rule in broken(pod(**spec))


def test_a_pod_whose_namespace_is_unknown_is_held_to_the_rules() -> None:
    assert "sandbox-pod-gvisor" in broken(pod(AT_PREVIEW, runtimeClassName="runc"))
    assert broken(pod("default", runtimeClassName="runc", hostNetwork=True)) == set()


def test_patches_and_lists_of_workloads_count() -> None:
    patch = Resource("kubernetes:core/v1:PodPatch", "p", "urn", pod(hostNetwork=True).props)
    listed = Resource("kubernetes:core/v1:PodList", "p", "urn", {"items": [{"kind": "Pod", **pod(hostIPC=True).props}]})
    assert "sandbox-pod-no-host-access" in broken(patch)
    assert "sandbox-pod-no-host-access" in broken(listed)


def test_an_unknown_flag_is_not_a_set_flag() -> None:
    block = dict.fromkeys(("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls"), True)
    resource = Resource(
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "b",
        "urn",
        block | {"restrictPublicBuckets": AT_PREVIEW},
    )
    assert broken(resource) == {"bucket-blocks-public-access"}
    options = {"httpTokens": AT_PREVIEW, "httpPutResponseHopLimit": 1}
    template = Resource("aws:ec2/launchTemplate:LaunchTemplate", "n", "urn", {"metadataOptions": options})
    assert broken(template) == {"instance-metadata-service"}


def test_an_exception_excuses_one_rule_on_one_resource_until_it_ends(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    path = tmp_path / "catalog/exceptions.yaml"
    text = (
        "guardrails:\n  - rule: log-group-encrypted\n    resource: l\n"
        "    reason: the key is made by another team next week\n    expires: {}\n"
    )
    path.write_text(text.format("2026-12-01"))
    group = Resource("aws:cloudwatch/logGroup:LogGroup", "l", "urn", {})
    other = Resource("aws:cloudwatch/logGroup:LogGroup", "m", "urn", {})
    assert broken(group, tmp_path) == set()
    assert broken(other, tmp_path) == {"log-group-encrypted"}
    path.write_text(text.format("2026-11-01"))
    assert broken(group, tmp_path) == {"log-group-encrypted"}
    told = [item.text for item in GuardrailRules(tmp_path, TODAY).check_stack([], {})]
    assert any("expired on 2026-11-01" in item for item in told)


def test_exceptions_that_can_t_be_read_excuse_nothing(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog/exceptions.yaml").write_text("guardrails: everything\n")
    told = [item.text for item in GuardrailRules(tmp_path, TODAY).check_stack([], {})]
    assert any("none counts" in item for item in told)


RBAC = "kubernetes:rbac.authorization.k8s.io/v1:"


@pytest.mark.parametrize(
    ("kind", "props"),
    [
        ("ClusterRoleBinding", {"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}),
        ("RoleBinding", {"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}),
        ("ClusterRoleBinding", {"roleRef": {"kind": "ClusterRole", "name": AT_PREVIEW}}),
        ("ClusterRoleBindingPatch", {"roleRef": {"name": "cluster-admin"}}),
        ("ClusterRoleBindingList", {"items": [{"kind": "ClusterRoleBinding", "roleRef": {"name": "cluster-admin"}}]}),
        ("ClusterRole", {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
        ("Role", {"rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["*", "get"]}]}),
        ("ClusterRole", {"rules": [{"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["get", "bind"]}]}),
        ("ClusterRole", {"rules": [{"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]}]}),
        ("ClusterRole", {"rules": [{"apiGroups": ["rbac"], "resources": ["roles"], "verbs": ["*"]}]}),
        ("ClusterRole", {"rules": [{"apiGroups": [""], "resources": ["*"], "verbs": AT_PREVIEW}]}),
        ("ClusterRole", {"rules": AT_PREVIEW}),
    ],
)
def test_nobody_becomes_administrator_of_the_cluster(kind: str, props: dict[str, Any]) -> None:
    assert "no-cluster-administrators" in broken(Resource(RBAC + kind, "r", "urn", props))


@pytest.mark.parametrize(
    "rule",
    [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]},
        {"apiGroups": ["karpenter.sh"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["rbac"], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["unit"]},
        {"apiGroups": [""], "resources": ["*"], "verbs": ["get", "list"]},
    ],
)
def test_what_a_controller_needs_is_no_administration(rule: dict[str, Any]) -> None:
    assert broken(Resource(RBAC + "ClusterRole", "r", "urn", {"rules": [rule]})) == set()


def test_a_list_of_bindings_gives_a_sandbox_no_rights_either() -> None:
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "sandbox-1"}
    item = {"kind": "RoleBinding", "roleRef": {"name": "view"}, "subjects": [subject]}
    listed = Resource(RBAC + "RoleBindingList", "r", "urn", {"items": [item]})
    assert broken(listed) == {"sandbox-no-cluster-rights"}
    anonymous = {"roleRef": {"name": "view"}, "subjects": [{"kind": "User", "name": "system:anonymous"}]}
    assert broken(Resource(RBAC + "ClusterRoleBinding", "r", "urn", anonymous)) == {"sandbox-no-cluster-rights"}
