"""Escalation paths: complete only if each action is really allowed, on the resource and in the context that it needs."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.iam.document import parse
from ringfence.iam.escalation import Escalation, Scope, catalogue, find_escalations, newly_complete
from ringfence.iam.evaluate import evaluate
from ringfence.iam.model import Document, Permissions

ACCOUNT = "123456789012"
USERS, ROLES = f"arn:aws:iam::{ACCOUNT}:user/*", f"arn:aws:iam::{ACCOUNT}:role/*"


def policy(*statements: dict[str, Any]) -> Document:
    return parse({"Version": "2012-10-17", "Statement": list(statements)}, "identity")


def allow(actions: str | list[str], resources: str | list[str], condition: Any = None) -> dict[str, Any]:
    made: dict[str, Any] = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return {**made, "Condition": condition} if condition else made


def ids(found: tuple[Escalation, ...]) -> set[str]:
    return {item.id for item in found}


def test_the_catalogue_holds_every_known_path_once() -> None:
    paths = catalogue()
    assert len({path.id for path in paths}) == len(paths)
    assert len({frozenset(path.actions) for path in paths}) == len(paths)
    assert sum("pathfinding" in path.sources for path in paths) >= 65
    assert all(path.passed_to for path in paths if "iam:PassRole" in path.actions)


def test_an_administrator_completes_every_path() -> None:
    assert ids(find_escalations(policy(allow("*", "*")))) == {path.id for path in catalogue()}


def test_nothing_completes_nothing() -> None:
    assert find_escalations(()) == ()
    assert find_escalations(policy(allow("s3:*", "*"))) == ()


def test_writing_policies_of_users_by_path_is_reported() -> None:
    assert ids(find_escalations(policy(allow("iam:PutUserPolicy", USERS)))) == {"iam-007"}


@pytest.mark.parametrize(
    "statement",
    [
        allow("iam:PutUserPolicy", "arn:aws:s3:::bucket/*"),
        allow(
            "iam:PutUserPolicy",
            USERS,
            {"StringEquals": {"iam:PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/b"}},
        ),
        allow("iam:AttachUserPolicy", "*", {"ArnEquals": {"iam:PolicyARN": "arn:aws:iam::aws:policy/ReadOnlyAccess"}}),
        allow("iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/${{aws:username}}"),
        allow("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/one"),
    ],
    ids=["other resource", "within a boundary", "another policy only", "own user only", "one named role"],
)
def test_what_a_resource_or_condition_rules_out_is_not_reported(statement: dict[str, Any]) -> None:
    assert find_escalations(policy(statement)) == ()


@pytest.mark.parametrize(
    ("statement", "path"),
    [
        (allow("iam:PutUserPolicy", USERS, {"Bool": {"aws:MultiFactorAuthPresent": "true"}}), "iam-007"),
        (allow("iam:PutUserPolicy", USERS, {"StringLike": {"iam:PermissionsBoundary": "*"}}), "iam-007"),
        (allow("iam:PutUserPolicy", f"arn:aws:iam::{ACCOUNT}:user/${{aws:username}}"), "iam-007"),
        (allow("iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/alice"), "iam-002"),
        (allow("IAM:putuser*", "*"), "iam-007"),
        (allow("sts:AssumeRole", ROLES), "sts-001"),
    ],
    ids=["condition that can be met", "any boundary", "own policy", "named user", "other spelling", "any role"],
)
def test_a_condition_or_spelling_alone_clears_nothing(statement: dict[str, Any], path: str) -> None:
    assert path in ids(find_escalations(policy(statement)))


def test_a_role_passed_to_another_service_completes_no_path() -> None:
    use = allow(["lambda:CreateFunction", "lambda:InvokeFunction"], "*")
    to_ecs = allow("iam:PassRole", ROLES, {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}})
    to_lambda = allow("iam:PassRole", ROLES, {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}})
    assert find_escalations(policy(to_ecs, use)) == ()
    assert ids(find_escalations(policy(to_lambda, use))) == {"lambda-001"}


def test_passing_one_named_role_is_told_apart_from_passing_any() -> None:
    use = allow(["lambda:CreateFunction", "lambda:InvokeFunction"], "*")
    document = policy(allow("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/report"), use)
    assert find_escalations(document) == ()
    assert {item.scope for item in find_escalations(document, include_named=True)} == {Scope.NAMED}


def test_a_deny_a_boundary_and_notaction_count() -> None:
    document = policy(allow("iam:*", "*"), {"Effect": "Deny", "Action": "iam:Put*", "Resource": "*"})
    assert "iam-007" not in ids(find_escalations(document))
    limit = parse({"Version": "2012-10-17", "Statement": [allow("s3:*", "*")]}, "boundary")
    assert find_escalations(Permissions((policy(allow("*", "*")),), limit)) == ()
    everything_else = policy({"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"})
    assert "iam-007" in ids(find_escalations(everything_else))


def test_every_step_is_a_request_that_the_plain_evaluator_allows() -> None:
    permissions = Permissions((policy(allow(["iam:*", "ec2:*", "lambda:*", "ssm:*"], "*")),))
    found = find_escalations(permissions)
    assert len(found) > 20
    for item in found:
        assert [request.action.lower() for request in item.requests] == [a.lower() for a in item.path.actions]
        assert all(evaluate(permissions, request).allowed for request in item.requests)


def test_only_what_the_difference_completes_is_new() -> None:
    before = policy(allow("iam:PassRole", ROLES))
    after = policy(allow(["iam:PassRole", "ec2:RunInstances"], "*"))
    assert ids(newly_complete(before, after)) == {"ec2-001"}
    assert newly_complete(after, after) == ()
    named = policy(allow("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/x"), allow("ec2:RunInstances", "*"))
    assert "ec2-001" in ids(newly_complete(named, after))


@pytest.mark.parametrize(
    ("statement", "scope"),
    [
        (allow("iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/admin"), Scope.NAMED),
        (allow("iam:CreateAccessKey", USERS), Scope.ANY),
        (allow("iam:CreatePolicyVersion", f"arn:aws:iam::{ACCOUNT}:policy/p"), Scope.NAMED),
    ],
)
def test_writing_iam_is_always_a_finding_and_its_scope_says_of_what(statement: dict[str, Any], scope: Scope) -> None:
    (found,) = find_escalations(policy(statement))
    assert found.scope is scope


def test_a_deny_on_all_but_ones_own_user_leaves_no_other_user() -> None:
    own = f"arn:aws:iam::{ACCOUNT}:user/${{aws:username}}"
    others = {"Effect": "Deny", "Action": "iam:CreateAccessKey", "NotResource": own}
    assert find_escalations(policy(allow("iam:CreateAccessKey", "*"), others)) == ()
