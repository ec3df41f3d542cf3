"""Previews and states: read in full or refused; half a preview never passes as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import InputError
from ringfence.review import wording
from ringfence.review.compare import compare
from ringfence.review.facts import Slot, Surface
from ringfence.review.sources import preview_of, state_resources, surface_of

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})


def step(type_: str, name: str, inputs: dict[str, Any], op: str = "create", **more: Any) -> dict[str, Any]:
    urn = f"urn:pulumi:s::p::{type_}::{name}"
    return {"op": op, "urn": urn, "newState": {"urn": urn, "type": type_, "inputs": inputs, **more}}


def surface(*steps: dict[str, Any]) -> Any:
    return surface_of("preview", preview_of(json.dumps({"steps": list(steps)}), "preview"))


def test_deleted_resources_are_not_there_and_replaced_ones_are_there_once() -> None:
    kept = step(
        "aws:iam/rolePolicy:RolePolicy", "a", {"name": "a", "role": "x", "policy": POLICY}, "create-replacement"
    )
    gone = step("aws:iam/rolePolicy:RolePolicy", "b", {"name": "b", "role": "x", "policy": POLICY}, "delete")
    old = {**kept, "op": "delete-replaced", "newState": None}
    assert [fact.key for fact in surface(kept, gone, old).facts.values()] == ["a"]


def test_unknown_and_secret_documents_are_told_apart_and_not_lost() -> None:
    unknown = step("aws:iam/rolePolicy:RolePolicy", "a", {"name": "a", "role": "x", "policy": UNKNOWN})
    secret = step(
        "aws:iam/rolePolicy:RolePolicy", "b", {"name": "b", "role": "x", "policy": {**SECRET, "ciphertext": "v1"}}
    )
    hidden = step("aws:iam/rolePolicy:RolePolicy", "c", {"name": "c", "role": "x", "policy": "[secret]"})
    clear = step(
        "aws:iam/rolePolicy:RolePolicy",
        "d",
        {"name": "d", "role": "x", "policy": {**SECRET, "plaintext": json.dumps(POLICY)}},
    )
    found = {fact.key: fact for fact in surface(unknown, secret, hidden, clear).facts.values()}
    assert found["a"].unknown and found["a"].unknown.reason == "unknown until the update"
    assert found["b"].unknown and found["c"].unknown
    assert found["d"].unknown is None


def test_a_name_unknown_at_preview_is_told_by_the_resource_it_comes_from() -> None:
    role = step("aws:iam/role:Role", "r", {"name": "app", "assumeRolePolicy": POLICY})
    links = {"propertyDependencies": {"role": [role["urn"]]}}
    inline = step("aws:iam/rolePolicy:RolePolicy", "p", {"name": "p", "role": UNKNOWN, "policy": POLICY}, **links)
    found = surface(role, inline)
    assert found.value("role/app", Slot.INLINE, "p") == POLICY
    alone = surface(inline)
    assert all("name unknown" in subject for subject in alone.subjects())


@pytest.mark.parametrize(
    "named",
    [
        "shop-dev/control",
        "arn:aws:ecr:us-east-1:123456789012:repository/shop-dev/control",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/shop-dev/control",
    ],
)
def test_a_repository_is_told_by_its_whole_name_as_the_account_lists_it(named: str) -> None:
    one = step("aws:ecr/repositoryPolicy:RepositoryPolicy", "p", {"repository": named, "policy": POLICY})
    assert surface(one).subjects() == ("repository/shop-dev/control",)


def test_policies_reach_an_exclusive_list_through_their_attachments() -> None:
    policy = step("aws:iam/policy:Policy", "p", {"name": "shared", "policy": POLICY})
    attachment = step(
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "a",
        {"role": "x", "policyArn": UNKNOWN},
        propertyDependencies={"policyArn": [policy["urn"]]},
    )
    only = step(
        "aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive",
        "o",
        {"roleName": "x", "policyArns": [UNKNOWN]},
        propertyDependencies={"policyArns": [attachment["urn"]]},
    )
    found = surface(policy, attachment, only)
    assert {fact.key for fact in found.of_slot("role/x", Slot.MANAGED)} == {"policy/shared"}
    assert not any(fact.unknown for fact in found.facts.values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"steps": 5}',
        "[" * 100_000,
        '{"steps": [], "diagnostics": [{"severity": "error", "message": "boom"}]}',
        '{"steps": [], "diagnostics": [{"severity": "error", "message": "aws:iam/policy:Policy p has a problem"}]}',
        '{"steps": [], "changeSummary": {"same": 3}}',
        '{"steps": [], "changeSummary": {"same": "3"}}',
    ],
    ids=[
        "empty",
        "cut",
        "list",
        "no steps",
        "wrong steps",
        "deep",
        "failed",
        "a failed policy",
        "changes alone",
        "odd",
    ],
)
def test_what_is_no_whole_preview_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        preview_of(text, "preview.json")


def test_a_state_shows_what_the_last_refresh_found(tmp_path: Path) -> None:
    urn = "urn:pulumi:s::p::aws:iam/role:Role::r"
    entry = {
        "urn": urn,
        "type": "aws:iam/role:Role",
        "inputs": {"name": "app", "assumeRolePolicy": POLICY},
        "outputs": {
            "name": "app",
            "assumeRolePolicy": POLICY,
            "managedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"],
        },
    }
    pending = {**entry, "urn": urn + "2", "delete": True, "inputs": {"name": "old"}, "outputs": {}}
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": 3, "deployment": {"resources": [entry, pending]}}))
    found = surface_of("state", state_resources(path))
    assert found.subjects() == ("role/app",)
    assert found.value("role/app", Slot.MANAGED, "aws:policy/AdministratorAccess")
    path.write_text("{}")
    with pytest.raises(InputError):
        state_resources(path)


@pytest.mark.parametrize("secret", [True, False])
def test_a_condition_value_of_a_document_that_is_secret_is_in_no_finding(secret: bool) -> None:
    condition = {"StringEquals": {"aws:PrincipalTag/cell": "hunter2"}}
    document = {"Version": "2012-10-17", "Statement": [{**json.loads(POLICY)["Statement"][0], "Condition": condition}]}
    text = json.dumps(document)
    policy = {**SECRET, "plaintext": json.dumps(text)} if secret else text
    found = surface(step("aws:iam/rolePolicy:RolePolicy", "p", {"name": "p", "role": "x", "policy": policy}))
    told = [line for change in compare(Surface("nothing"), found) for line in wording.lines(change)]
    assert any("aws:PrincipalTag/cell" in line for line in told)
    assert any("hunter2" in line for line in told) == (not secret)
