"""Who asks: accounts by pattern, kinds of principals, services, long lists; each once answered wrong or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.iam.containment import Decision, Outcome, contains
from ringfence.iam.document import Permissions, parse
from ringfence.iam.evaluate import evaluate

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/x"
OWN_ACCOUNT = {"AWS": ACCOUNT}


def grant(principal: Any, condition: Any = None, effect: str = "Allow", **others: Any) -> dict[str, Any]:
    made = {
        "Effect": effect,
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::b/*",
        "Principal": principal,
        **others,
    }
    return made | ({"Condition": condition} if condition else {})


def decide(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Decision:
    both = [parse({"Version": "2012-10-17", "Statement": each}) for each in (old, new)]
    decision = contains(both[0], both[1], deadline_s=20)
    if decision.witness is not None:
        request = decision.witness.request
        assert evaluate(Permissions((both[1],)), request).allowed
        assert not evaluate(Permissions((both[0],)), request).allowed
    return decision


@pytest.mark.parametrize(
    ("condition", "account"),
    [
        ({"StringLike": {"aws:PrincipalAccount": "2222*"}}, "2222"),
        ({"StringLike": {"aws:PrincipalAccount": "22222222222?"}}, "22222222222"),
        ({"StringEqualsIgnoreCase": {"aws:PrincipalAccount": ["222222222222"]}}, "222222222222"),
        ({"NumericEquals": {"aws:PrincipalAccount": "222222222222"}}, "222222222222"),
        ({"NumericGreaterThan": {"aws:PrincipalAccount": "222222222222"}}, "222222222223"),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::222222222222:user/*"}}, "222222222222"),
    ],
)
def test_an_account_that_only_a_condition_names_is_found(condition, account):
    decision = decide([grant(OWN_ACCOUNT)], [grant("*", condition)])
    assert decision.outcome is Outcome.WIDENED
    assert decision.witness.request.principal.account.startswith(account)


def test_an_account_that_no_account_can_match_grants_nothing():
    never = {"StringLike": {"aws:PrincipalAccount": "*-*"}}
    assert decide([grant(OWN_ACCOUNT)], [grant("*", never)]).contained


def test_a_narrower_account_pattern_is_contained():
    wide, narrow = ({"StringLike": {"aws:PrincipalAccount": pattern}} for pattern in ("44*", "4444*"))
    assert decide([grant("*", wide)], [grant("*", narrow)]).contained
    assert decide([grant("*", narrow)], [grant("*", wide)]).outcome is Outcome.WIDENED


@pytest.mark.parametrize("kind", ["User", "Account", "FederatedUser", "AssumedRole"])
def test_every_kind_of_principal_of_an_account_is_tried(kind):
    decision = decide([grant({"AWS": ROLE})], [grant(OWN_ACCOUNT, {"StringEquals": {"aws:PrincipalType": kind}})])
    assert decision.outcome is Outcome.WIDENED
    assert decision.witness.request.principal.context()["aws:PrincipalType"] == (kind,)


def test_an_anonymous_caller_has_a_type():
    decision = decide([grant(OWN_ACCOUNT)], [grant("*", {"StringEquals": {"aws:PrincipalType": "Anonymous"}})])
    assert decision.outcome is Outcome.WIDENED
    assert decision.witness.request.principal.type == "Anonymous"


@pytest.mark.parametrize("principal", ["*", {"Service": "*"}])
def test_a_service_that_only_a_pattern_names_is_found(principal):
    like = {"StringLike": {"aws:PrincipalServiceName": "b*.amazonaws.com"}}
    decision = decide([grant({"Service": "a.amazonaws.com"})], [grant(principal, like)])
    assert decision.outcome is Outcome.WIDENED
    assert decision.witness.request.principal.type == "Service"


@pytest.mark.parametrize("key", ["aws:PrincipalServiceName", "aws:PrincipalArn", "aws:PrincipalAccount"])
def test_a_federated_principal_claims_no_property_of_another(key):
    claimed = grant({"Federated": "example.com"}, {"StringLike": {key: "*"}})
    assert decide([grant(OWN_ACCOUNT)], [claimed]).contained


def test_an_account_compared_with_a_variable_is_any_account():
    own = {"StringEquals": {"aws:PrincipalAccount": "${aws:ResourceAccount}"}}
    assert decide([grant(OWN_ACCOUNT)], [grant("*", own)]).outcome is Outcome.WIDENED
    assert decide([grant("*")], [grant("*", own)]).contained


def test_an_arn_compared_with_a_variable_is_any_role():
    like = {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::${aws:SourceAccount}:role/*"}}
    assert decide([grant(OWN_ACCOUNT)], [grant("*", like)]).outcome is Outcome.WIDENED
    pinned = like | {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    assert decide([grant(OWN_ACCOUNT)], [grant("*", pinned)]).contained


def test_one_more_principal_among_hundreds_is_found_and_one_less_is_none():
    few, more = ({"AWS": [f"arn:aws:iam::{n:012d}:role/r" for n in range(count)]} for count in (600, 601))
    decision = decide([grant(few)], [grant(more)])
    assert decision.outcome is Outcome.WIDENED
    assert decision.witness.request.principal.account == f"{600:012d}"
    assert decide([grant(more)], [grant(few)]).contained


def test_one_more_exemption_from_a_deny_is_found():
    other = {"StringNotEquals": {"aws:ResourceAccount": "${aws:PrincipalAccount}"}}

    def denied(*exempt: str) -> list[dict[str, Any]]:
        deny = grant("*", other, "Deny") | {"NotPrincipal": {"AWS": list(exempt)}}
        del deny["Principal"]
        return [grant("*"), deny]

    assert decide(denied(ROLE), denied(ROLE, f"{ROLE}y")).outcome is Outcome.WIDENED
    assert decide(denied(ROLE, f"{ROLE}y"), denied(ROLE)).contained
